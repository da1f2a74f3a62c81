// Package backend is what a kind of storage must do to hold volumes. It
// decides nothing about who may use a volume: volplugin/driver does, and it
// calls a backend for one volume at a time.
//
// Design page: docs/design/volumes.md.
package backend

import (
	"context"
	"time"
)

// Volume is a volume as its backend sees it.
type Volume struct {
	// ID names the data; it never changes, is never used again, and is safe
	// as the name of a file.
	ID string
	// Name is the name the user gave it.
	Name string
	// Options are those of `docker volume create -o`, checked, without the
	// one that chose the backend.
	Options   map[string]string
	CreatedAt time.Time
}

// Backend keeps the data of volumes. Every call may come again after it was
// cut short, and must then come to the same end.
type Backend interface {
	// Name is the word by which `-o backend=` asks for it.
	Name() string
	// Options lists the options it knows.
	Options() []string
	// Check says what is wrong with the values of known options.
	Check(options map[string]string) error
	// Create makes the volume, empty.
	Create(ctx context.Context, v Volume) error
	// Mount makes the volume's content reachable and returns the absolute
	// path of its directory. It is called for every user, the first or not.
	Mount(ctx context.Context, v Volume) (path string, err error)
	// Unmount ends that, after the last user.
	Unmount(ctx context.Context, v Volume) error
	// Path is where the content is, or "" while it is not mounted.
	Path(v Volume) string
	// Holders counts those on this host who have the content mounted, as
	// the kernel knows them. An error means that nobody can tell.
	Holders(ctx context.Context, v Volume) (int, error)
	// Remove takes the volume and its content away.
	Remove(ctx context.Context, v Volume) error
}
