package tunnel

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// maxFrame bounds the data of one frame, so that one stream does not hold up
// the others.
const maxFrame = 32 << 10

// ErrBroken means that the other side went away without ending its half of a
// stream.
var ErrBroken = errors.New("tunnel: stream broken off")

// Conn is one stream of a tunnel. It can be closed by halves.
type Conn struct {
	stream *yamux.Stream

	readMu sync.Mutex
	head   []byte // of the header being read; guarded by readMu
	left   int    // of the frame being read; guarded by readMu
	end    error  // why nothing more comes; guarded by readMu

	writeMu sync.Mutex
	ended   bool   // our half; guarded by writeMu
	buf     []byte // guarded by writeMu
}

var _ net.Conn = (*Conn)(nil)

func newConn(s *yamux.Stream) *Conn { return &Conn{stream: s} }

// Read reads what the other side wrote; io.EOF when it has ended its half,
// [ErrBroken] when it went away.
func (c *Conn) Read(b []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if c.end != nil || len(b) == 0 {
		return 0, c.end
	}
	// A deadline that passes loses nothing: reading goes on where it was.
	for c.left == 0 {
		var h [2]byte
		n, err := c.stream.Read(h[:2-len(c.head)])
		if c.head = append(c.head, h[:n]...); len(c.head) == 2 {
			c.left = int(binary.BigEndian.Uint16(c.head))
			c.head = c.head[:0]
			if c.left == 0 {
				c.end = io.EOF
				return 0, io.EOF
			}
		} else if err != nil {
			return 0, c.broken(err)
		}
	}
	n, err := c.stream.Read(b[:min(len(b), c.left)])
	c.left -= n
	if n == 0 && err != nil {
		return 0, c.broken(err)
	}
	return n, nil
}

// broken says why reading failed: for good, unless a deadline has passed.
func (c *Conn) broken(err error) error {
	var t net.Error
	if errors.As(err, &t) && t.Timeout() {
		return err
	}
	c.end = ErrBroken
	return c.end
}

// Write writes to the other side.
func (c *Conn) Write(b []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if c.ended {
		return 0, net.ErrClosed
	}
	done := 0
	for done < len(b) {
		part := b[done:min(len(b), done+maxFrame)]
		c.buf = binary.BigEndian.AppendUint16(c.buf[:0], uint16(len(part)))
		c.buf = append(c.buf, part...)
		if _, err := c.stream.Write(c.buf); err != nil {
			c.ended = true // half a frame may be out
			return done, err
		}
		done += len(part)
	}
	return done, nil
}

// CloseWrite ends our half; what the other side writes can still be read.
func (c *Conn) CloseWrite() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if c.ended {
		return nil
	}
	c.ended = true
	_, err := c.stream.Write([]byte{0, 0})
	return err
}

// Close ends both halves. The other side reads io.EOF if our half had been
// ended before, [ErrBroken] if not; what it still writes comes to nothing, and
// fails after some seconds.
func (c *Conn) Close() error { return c.stream.Close() }

// LocalAddr is this end of the connection under the stream.
func (c *Conn) LocalAddr() net.Addr { return c.stream.LocalAddr() }

// RemoteAddr is the other end of the connection under the stream.
func (c *Conn) RemoteAddr() net.Addr { return c.stream.RemoteAddr() }

// SetDeadline bounds reads and writes.
func (c *Conn) SetDeadline(t time.Time) error { return c.stream.SetDeadline(t) }

// SetReadDeadline bounds reads; one that passes can be set anew.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.stream.SetReadDeadline(t) }

// SetWriteDeadline bounds writes; one that passes ends our half.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.stream.SetWriteDeadline(t) }

// listener gives the streams that the other side opens.
type listener struct{ session *yamux.Session }

func (l listener) Accept() (net.Conn, error) {
	s, err := l.session.AcceptStream()
	if err != nil {
		return nil, err
	}
	return newConn(s), nil
}

func (l listener) Close() error   { return l.session.Close() }
func (l listener) Addr() net.Addr { return l.session.LocalAddr() }

// config is the same on both sides.
func config(log *slog.Logger) *yamux.Config {
	c := yamux.DefaultConfig()
	c.KeepAliveInterval = 5 * time.Second
	c.ConnectionWriteTimeout = 5 * time.Second
	// Streams are closed as a whole only: halves are ended by a frame.
	c.StreamCloseTimeout = 5 * time.Second
	c.StreamOpenTimeout = 10 * time.Second
	c.LogOutput = nil
	c.Logger = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	return c
}
