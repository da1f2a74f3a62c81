package vxlan

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// spoilers are the drivers of network cards that are known to spoil checksums
// within a tunnel on a UDP port that they do not know.
var spoilers = map[string]bool{"vmxnet3": true}

// spoils reports whether an interface is a card of such a driver.
func spoils(name string) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	i, err := unix.IoctlGetEthtoolDrvinfo(fd, name)
	return err == nil && spoilers[unix.ByteSliceToString(i.Driver[:])]
}

// checksumsOff has the kernel work out the checksums of what is sent by an
// interface, before it reaches a card.
func checksumsOff(name string) error {
	off := uint32(0)
	if err := ethtool(name, unix.ETHTOOL_STXCSUM, &off); err != nil {
		return fmt.Errorf("switch checksum offload of %s off: %w", name, err)
	}
	return nil
}

// ethtool gets or sets a number of an interface.
func ethtool(name string, command uint32, data *uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	// struct ethtool_value of linux/ethtool.h.
	value := struct{ command, data uint32 }{command, *data}
	// struct ifreq of linux/if.h with ifr_data.
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	if _, _, no := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); no != 0 {
		return no
	}
	*data = value.data
	return nil
}
