package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrClosed means that the journal was closed.
var ErrClosed = errors.New("journal is closed")

// ErrLocked means that another process has the journal open.
var ErrLocked = errors.New("journal is in use by another process")

// Journal is an open journal. It is safe for concurrent use.
type Journal struct {
	path string
	lock *os.File

	mu   sync.Mutex
	idle *sync.Cond // signalled when writing becomes false
	f    *os.File
	// size is how far the file is written and synced.
	size int64
	// base is the size after the last compaction.
	base    int64
	next    *batch // gathers records; never nil
	writing bool   // a batch is being written
	// broken is the error of a write or sync; nothing can be appended until
	// Compact starts a new file.
	broken error
}

// batch is what one fdatasync makes durable.
type batch struct {
	buf  []byte
	done chan struct{}
	// lead takes a token that tells one waiter to write the batch.
	lead chan struct{}
	err  error // valid once done is closed
}

func newBatch() *batch {
	return &batch{done: make(chan struct{}), lead: make(chan struct{}, 1)}
}

// Commit is a record on its way to the disk.
type Commit struct {
	j   *Journal
	b   *batch
	err error
}

// Open opens the journal at path, or makes an empty one, and calls replay
// with each record in order; replay must not keep the slice. The torn tail of
// a crash is cut off. It returns [ErrCorrupt], wrapped, when acknowledged
// records are damaged, and [ErrLocked] when another process has it open.
func Open(path string, replay func(payload []byte) error) (*Journal, error) {
	lock, err := acquire(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	j := &Journal{path: path, lock: lock, next: newBatch()}
	j.idle = sync.NewCond(&j.mu)
	if err := j.open(replay); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	return j, nil
}

func (j *Journal) open(replay func([]byte) error) error {
	b, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	good, err := scan(b, replay)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(good), f.Sync(), syncDir(filepath.Dir(j.path))); err != nil {
		_ = f.Close()
		return err
	}
	j.f, j.size, j.base = f, good, good
	return nil
}

// acquire takes the lock that keeps a second process away; closing the file
// or the end of the process gives it back.
func acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, err
	}
	return f, nil
}

// Append adds records after all that were appended before; it does not block
// on the disk. They are durable when the Commit's Wait returns nil. A crash
// before that may leave some of them, so each must make sense by itself.
func (j *Journal) Append(payloads ...[]byte) Commit {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		return Commit{err: j.broken}
	}
	for _, p := range payloads {
		if len(p) > MaxRecord {
			return Commit{err: fmt.Errorf("append record of %d bytes: more than %d", len(p), MaxRecord)}
		}
	}
	for _, p := range payloads {
		j.next.buf = appendFrame(j.next.buf, p, j.size)
	}
	return Commit{j: j, b: j.next}
}

// Wait returns when the record is on the disk, or with the reason why it may
// not be. The first caller to come writes for all the others.
func (c Commit) Wait() error {
	if c.b == nil {
		return c.err
	}
	j, b := c.j, c.b
	for {
		select {
		case <-b.done:
			return b.err
		default:
		}
		j.mu.Lock()
		if j.next == b && !j.writing {
			j.write() // releases mu
			continue
		}
		j.mu.Unlock()
		select {
		case <-b.done:
			return b.err
		case <-b.lead:
		}
	}
}

// write commits the gathered batch. It is called with mu held and writing
// false, and returns with mu released.
func (j *Journal) write() {
	b, f, at := j.next, j.f, j.size
	j.next, j.writing = newBatch(), true
	err := j.broken
	j.mu.Unlock()

	if err == nil && len(b.buf) > 0 {
		if _, err = f.WriteAt(b.buf, at); err == nil {
			err = unix.Fdatasync(int(f.Fd()))
		}
	}

	j.mu.Lock()
	if err != nil {
		err = fmt.Errorf("write journal: %w", err)
		if j.broken == nil {
			j.broken = err
		}
	} else {
		j.size = at + int64(len(b.buf))
	}
	j.writing = false
	j.idle.Broadcast()
	b.err = err
	close(b.done)
	j.next.lead <- struct{}{} // Never full: a new batch gets one token.
	j.mu.Unlock()
}

// Sync returns when everything appended so far is on the disk.
func (j *Journal) Sync() error { return j.Append().Wait() }

// Broken returns the error that keeps records from being written, or nil.
// [Journal.Compact] mends it when the disk is well again.
func (j *Journal) Broken() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// Size is the journal's length in bytes; Grown is by how much it has grown
// since it was opened or compacted.
func (j *Journal) Size() (size, grown int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size, j.size - j.base
}

// Compact replaces the journal by the records that write hands to emit. They
// must describe the state that everything appended so far leads to, so the
// caller appends nothing meanwhile; emit keeps the slices it gets. On return all of it is on the disk; on
// error the journal is as before.
func (j *Journal) Compact(write func(emit func(payload []byte))) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.writing {
		j.idle.Wait()
	}
	if errors.Is(j.broken, ErrClosed) {
		return j.broken
	}
	f, err := replaceFile(j.path, frames(write))
	if err != nil {
		return fmt.Errorf("compact journal: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("compact journal: %w", err)
	}
	_ = j.f.Close()
	j.f, j.size, j.base, j.broken = f, size, size, nil
	// What waits to be written is part of the state just written.
	b := j.next
	j.next = newBatch()
	close(b.done)
	return nil
}

// frames turns what write emits into the content of a compacted file.
func frames(write func(emit func(payload []byte))) []byte {
	var payloads [][]byte
	total := 0
	write(func(p []byte) {
		payloads = append(payloads, p)
		total += headerSize + len(p)
	})
	buf := make([]byte, 0, total)
	for _, p := range payloads {
		buf = appendFrame(buf, p, int64(total))
	}
	return buf
}

// Close writes what is pending and closes the journal.
func (j *Journal) Close() error {
	err := j.Sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	if errors.Is(j.broken, ErrClosed) {
		return nil
	}
	for j.writing {
		j.idle.Wait()
	}
	j.broken = ErrClosed
	return errors.Join(err, j.f.Close(), j.lock.Close())
}

// replaceFile puts a file with the content at path in one step and returns it
// open.
func replaceFile(path string, content []byte) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return nil, err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(f.Name())
		return nil, err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
