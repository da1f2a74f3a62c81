package testbed

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// distillery picks files out of a root tree into one layer of an image: what
// is named, the links on the way to it, and the libraries it needs.
type distillery struct {
	tree string
	have map[string]tarEntry // by absolute path
}

type tarEntry struct {
	header tar.Header
	data   []byte // of text files and links; regular files come from source
	source string
}

func newDistillery(tree string) *distillery {
	return &distillery{tree: tree, have: map[string]tarEntry{}}
}

// libraryDirs are where the dynamic linker of Debian looks by itself.
var libraryDirs = []string{"/lib/*-linux-gnu*", "/usr/lib/*-linux-gnu*", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// add puts in a file of the tree with all that it needs.
func (d *distillery) add(name string) error {
	for range 40 { // as many links as the kernel follows
		target, link, err := d.firstLink(name)
		if err != nil {
			return fmt.Errorf("distil %s: %w", name, err)
		}
		if link == "" {
			return d.addFile(name)
		}
		d.addParents(link)
		d.have[link] = tarEntry{header: tar.Header{Typeflag: tar.TypeSymlink, Name: link, Linkname: target, Mode: 0o777}}
		rest := strings.TrimPrefix(name, link)
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(link), target)
		}
		name = path.Join(target, rest)
	}
	return fmt.Errorf("distil %s: too many links", name)
}

// firstLink finds the first symbolic link on the way to name within the tree.
func (d *distillery) firstLink(name string) (target, link string, err error) {
	at := ""
	for part := range strings.SplitSeq(strings.TrimPrefix(name, "/"), "/") {
		at += "/" + part
		info, err := os.Lstat(filepath.Join(d.tree, at))
		if err != nil {
			return "", "", err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			target, err = os.Readlink(filepath.Join(d.tree, at))
			return target, at, err
		}
	}
	return "", "", nil
}

func (d *distillery) addFile(name string) error {
	if _, ok := d.have[name]; ok {
		return nil
	}
	source := filepath.Join(d.tree, name)
	info, err := os.Lstat(source)
	if err != nil {
		return fmt.Errorf("distil %s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("distil %s: not a regular file", name)
	}
	d.addParents(name)
	d.have[name] = tarEntry{source: source, header: tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size(),
	}}
	return d.addLibraries(source)
}

// addLibraries reads what an ELF program asks for (DT_NEEDED and its
// interpreter). Anything else needs nothing.
func (d *distillery) addLibraries(source string) error {
	file, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("read libraries of %s: %w", source, err)
	}
	defer file.Close()
	f, err := elf.NewFile(file)
	var format *elf.FormatError
	if errors.As(err, &format) || errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read libraries of %s: %w", source, err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			if err != nil {
				return fmt.Errorf("read interpreter of %s: %w", source, err)
			}
			if err := d.add(strings.TrimRight(string(b), "\x00")); err != nil {
				return err
			}
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read libraries of %s: %w", source, err)
	}
	for _, lib := range libs {
		found, err := d.findLibrary(lib)
		if err == nil {
			err = d.add(found)
		}
		if err != nil {
			return fmt.Errorf("find library of %s: %w", source, err)
		}
	}
	return nil
}

func (d *distillery) findLibrary(lib string) (string, error) {
	for _, dir := range libraryDirs {
		found, err := filepath.Glob(filepath.Join(d.tree, dir, lib))
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return path.Join("/", strings.TrimPrefix(found[0], d.tree)), nil
		}
	}
	return "", fmt.Errorf("%s: %w", lib, fs.ErrNotExist)
}

func (d *distillery) addParents(name string) {
	for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
		if _, ok := d.have[dir]; !ok {
			d.addDir(dir, 0o755)
		}
	}
}

func (d *distillery) addDir(name string, mode int64) {
	d.have[name] = tarEntry{header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
	d.addParents(name)
}

func (d *distillery) addText(name, text string, mode int64) {
	d.addParents(name)
	d.have[name] = tarEntry{data: []byte(text), header: tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(text)),
	}}
}

func (d *distillery) addLink(name, target string) {
	d.addParents(name)
	d.have[name] = tarEntry{header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

// addProgram puts a file from outside the tree at name, executable.
func (d *distillery) addProgram(source, name string) error {
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	d.addParents(name)
	d.have[name] = tarEntry{source: source, header: tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: info.Size(),
	}}
	return nil
}

// pack writes the layer as a tar archive, the same bytes for the same files.
func (d *distillery) pack() ([]byte, error) {
	names := make([]string, 0, len(d.have))
	for n := range d.have {
		names = append(names, n)
	}
	slices.Sort(names)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range names {
		e := d.have[n]
		data := e.data
		if e.source != "" {
			var err error
			if data, err = os.ReadFile(e.source); err != nil {
				return nil, fmt.Errorf("pack %s: %w", n, err)
			}
		}
		h := e.header
		h.Name = strings.TrimPrefix(h.Name, "/")
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("pack %s: %w", n, err)
		}
		if _, err := w.Write(data); err != nil {
			return nil, fmt.Errorf("pack %s: %w", n, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack layer: %w", err)
	}
	return b.Bytes(), nil
}
