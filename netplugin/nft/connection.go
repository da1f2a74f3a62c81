package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// Connection is a socket to the kernel's packet filter. It is kept open:
// closing one takes the kernel several milliseconds. After an error it is
// made anew, as answers to what was sent may still be under way in it.
//
// It is for one user at a time.
type Connection struct{ conn *nftables.Conn }

// Open returns the socket, made when there is none.
func (c *Connection) Open() (*nftables.Conn, error) {
	if c.conn != nil {
		return c.conn, nil
	}
	// A whole table of thousands of endpoints, and its acknowledgements,
	// must fit the socket's buffers.
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(bigBuffers))
	if err != nil {
		return nil, fmt.Errorf("open packet filter: %w", err)
	}
	c.conn = conn
	return conn, nil
}

// Flush sends what was gathered on the connection, as one transaction.
func (c *Connection) Flush() error {
	err := c.conn.Flush()
	if err != nil {
		c.Close()
	}
	return err
}

// Close ends the connection; it may be used again.
func (c *Connection) Close() {
	if c.conn != nil {
		_ = c.conn.CloseLasting() // nothing is lost with it
		c.conn = nil
	}
}

// bigBuffers asks for socket buffers of 16 MiB.
func bigBuffers(c *netlink.Conn) error {
	const size = 16 << 20
	if err := c.SetWriteBuffer(size); err != nil {
		return fmt.Errorf("set buffer: %w", err)
	}
	if err := c.SetReadBuffer(size); err != nil {
		return fmt.Errorf("set buffer: %w", err)
	}
	return nil
}
