package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A record on disk, all numbers little-endian:
//
//	offset  size
//	0       2     magic
//	2       4     length of the payload
//	6       8     durable: how far the file was known to be on the disk when
//	              the record was appended
//	14      4     CRC-32C of bytes 2 to 13 and the payload
//	18      ...   payload
//
// "durable" tells a torn tail from damage: when a record cannot be read and
// another one says that the place had been committed, acknowledged records
// are lost. The records of a compacted file all name its whole length, which
// was synced before the file got its name.
const (
	headerSize = 18
	// MaxRecord is the size of the largest payload, in bytes.
	MaxRecord = 1 << 20
)

var (
	magic  = [2]byte{0xC1, 0x0C}
	crcTab = crc32.MakeTable(crc32.Castagnoli)
)

// ErrCorrupt means that records that had been committed cannot be read.
var ErrCorrupt = errors.New("journal is damaged")

// appendFrame adds a record to b.
func appendFrame(b, payload []byte, durable int64) []byte {
	var h [headerSize]byte
	h[0], h[1] = magic[0], magic[1]
	binary.LittleEndian.PutUint32(h[2:], uint32(len(payload)))
	binary.LittleEndian.PutUint64(h[6:], uint64(durable))
	sum := crc32.Update(crc32.Checksum(h[2:14], crcTab), crcTab, payload)
	binary.LittleEndian.PutUint32(h[14:], sum)
	return append(append(b, h[:]...), payload...)
}

// readFrame reads the record at the start of b. It reports false when there
// is none.
func readFrame(b []byte) (payload []byte, durable int64, size int, ok bool) {
	if len(b) < headerSize || b[0] != magic[0] || b[1] != magic[1] {
		return nil, 0, 0, false
	}
	n := binary.LittleEndian.Uint32(b[2:])
	if n > MaxRecord || int(n) > len(b)-headerSize {
		return nil, 0, 0, false
	}
	payload = b[headerSize : headerSize+int(n)]
	sum := crc32.Update(crc32.Checksum(b[2:14], crcTab), crcTab, payload)
	if sum != binary.LittleEndian.Uint32(b[14:]) {
		return nil, 0, 0, false
	}
	return payload, int64(binary.LittleEndian.Uint64(b[6:])), headerSize + len(payload), true
}

// scan calls f for each record of b and returns how far b is good. It returns
// [ErrCorrupt] when any record, before that place or after it, says that more
// had been committed.
func scan(b []byte, f func(payload []byte) error) (good int64, err error) {
	at, committed := 0, int64(0)
	for at < len(b) {
		payload, durable, size, ok := readFrame(b[at:])
		if !ok {
			break
		}
		if err := f(payload); err != nil {
			return int64(at), err
		}
		committed = max(committed, durable)
		at += size
	}
	for later := at + 1; later+headerSize <= len(b); later++ {
		if _, durable, _, ok := readFrame(b[later:]); ok {
			committed = max(committed, durable)
		}
	}
	if committed > int64(at) {
		return int64(at), fmt.Errorf("read record at byte %d: %w", at, ErrCorrupt)
	}
	return int64(at), nil
}
