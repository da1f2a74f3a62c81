package wireguard

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	wg "golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// userspace is WireGuard in this process, on a TUN device.
type userspace struct{ device *wg.Device }

// startUserspace makes the TUN device, or takes over the one that an earlier
// process left, and serves it. Segments are gathered and cut in the kernel on
// both sides, as far as it can (GSO, GRO).
func startUserspace(key wgtypes.Key, mtu int, log *slog.Logger) (engine, error) {
	t, err := tun.CreateTUN(DeviceName, mtu)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("this kernel has no WireGuard, and /dev/net/tun cannot be opened, which would do instead: load the module wireguard or tun: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open TUN device: %w", err)
	}
	if err := persist(t.File(), true); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	log = log.With("device", DeviceName)
	d := wg.NewDevice(t, conn.NewDefaultBind(), &wg.Logger{
		Verbosef: func(format string, args ...any) { log.Debug(fmt.Sprintf(format, args...)) },
		Errorf:   func(format string, args ...any) { log.Warn(fmt.Sprintf(format, args...)) },
	})
	u := userspace{d}
	if err := d.IpcSet(fmt.Sprintf("private_key=%x\nlisten_port=%d\n", key[:], Port)); err != nil {
		u.close()
		return nil, err
	}
	if err := d.Up(); err != nil {
		u.close()
		return nil, fmt.Errorf("listen on UDP port %d: %w", Port, err)
	}
	return u, nil
}

// persist has a TUN device stay when the process that serves it ends.
func persist(f *os.File, yes bool) error {
	c, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("keep TUN device: %w", err)
	}
	value := 0
	if yes {
		value = 1
	}
	var failed error
	if err := c.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, value) }); err != nil {
		return fmt.Errorf("keep TUN device: %w", err)
	}
	if failed != nil {
		return fmt.Errorf("keep TUN device: %w", failed)
	}
	return nil
}

func (u userspace) apply(all []change) error {
	if len(all) == 0 {
		return nil
	}
	return u.device.IpcSet(text(all))
}

func (u userspace) status() (map[wgtypes.Key]status, error) {
	s, err := u.device.IpcGet()
	if err != nil {
		return nil, fmt.Errorf("read device: %w", err)
	}
	return parseStatus(s), nil
}

func (u userspace) close() { u.device.Close() }

// parseStatus reads what the configuration protocol says of remotes. What it
// does not know is left out.
func parseStatus(s string) map[wgtypes.Key]status {
	all := map[wgtypes.Key]status{}
	var at wgtypes.Key
	for line := range strings.Lines(s) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		x := all[at]
		switch name {
		case "public_key":
			b, err := hex.DecodeString(value)
			if err != nil || len(b) != len(at) {
				continue
			}
			at = wgtypes.Key(b)
			x = status{}
		case "endpoint":
			x.endpoint, _ = netip.ParseAddrPort(value)
		case "last_handshake_time_sec":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n > 0 {
				x.handshake = time.Unix(n, 0)
			}
		case "rx_bytes":
			x.received, _ = strconv.ParseInt(value, 10, 64)
		default:
			continue
		}
		all[at] = x
	}
	return all
}
