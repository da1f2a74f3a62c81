package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
)

// machines maps ELF machines to GOARCH, for the little-endian architectures
// that Docker Engine is built for.
var machines = map[elf.Machine]string{
	elf.EM_X86_64:  "amd64",
	elf.EM_AARCH64: "arm64",
	elf.EM_ARM:     "arm",
	elf.EM_386:     "386",
	elf.EM_RISCV:   "riscv64",
	elf.EM_PPC64:   "ppc64le",
	elf.EM_S390:    "s390x",
}

// Architecture returns the GOARCH of a static Linux executable. The error
// matches [ErrExecutable] and says what is wrong with any other file.
func Architecture(path string) (string, error) {
	bad := func(why string) error {
		return fmt.Errorf("%s: %w: %s: build it with CGO_ENABLED=0 GOOS=linux (make build does)", path, ErrExecutable, why)
	}
	f, err := elf.Open(path)
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return "", bad("it is no ELF file")
		}
		return "", fmt.Errorf("open executable: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return "", bad("it is no program")
	}
	if f.OSABI != elf.ELFOSABI_NONE && f.OSABI != elf.ELFOSABI_LINUX {
		return "", bad("it is for another operating system")
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", bad("it needs the libraries of this machine")
		}
	}
	if libs, err := f.ImportedLibraries(); err == nil && len(libs) > 0 {
		return "", bad("it needs " + libs[0])
	}
	arch, ok := machines[f.Machine]
	if !ok {
		return "", bad("no engine is known for its machine " + f.Machine.String())
	}
	return arch, nil
}
