// Package version says which build of docker clocker a program is. The values
// are set by the linker (-ldflags "-X clocker.io/clocker/pkg/version.Version=...");
// a program built without them answers with what the Go toolchain recorded.
// The package decides nothing.
//
// Design page: docs/design/cli.md.
package version

import (
	"runtime"
	"runtime/debug"
)

// Version, Commit and Date are set at link time. Version has the form "0.1.0",
// Commit is a git revision and Date is in RFC 3339.
var (
	Version string
	Commit  string
	Date    string
)

// Info describes a build.
type Info struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Date    string `json:"date"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// Get returns the running program's build. Every field is filled: what nobody
// knows reads "unknown", and a version nobody set reads "dev".
func Get() Info {
	i := Info{Version: Version, Commit: Commit, Date: Date, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if b, ok := debug.ReadBuildInfo(); ok {
		i = i.withBuild(b)
	}
	return i.complete()
}

// withBuild fills what the linker left open from the toolchain's record.
func (i Info) withBuild(b *debug.BuildInfo) Info {
	if i.Version == "" && b.Main.Version != "(devel)" {
		i.Version = b.Main.Version
	}
	dirty := false
	commit, date := "", ""
	for _, s := range b.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.time":
			date = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if i.Commit == "" && commit != "" {
		i.Commit = commit[:min(12, len(commit))]
		if dirty {
			i.Commit += "-dirty"
		}
	}
	if i.Date == "" {
		i.Date = date
	}
	return i
}

func (i Info) complete() Info {
	if i.Version == "" {
		i.Version = "dev"
	}
	if i.Commit == "" {
		i.Commit = "unknown"
	}
	if i.Date == "" {
		i.Date = "unknown"
	}
	return i
}
