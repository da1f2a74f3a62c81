// Command generate writes the pages of docs/reference into a directory and
// removes the pages of commands that are gone.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"clocker.io/clocker/cli-plugin/reference"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: generate DIRECTORY")
	}
	pages := reference.Pages()
	old, err := filepath.Glob(filepath.Join(args[0], "*.md"))
	if err != nil {
		return fmt.Errorf("list pages: %w", err)
	}
	for _, p := range old {
		if _, ok := pages[filepath.Base(p)]; !ok {
			if err := os.Remove(p); err != nil {
				return fmt.Errorf("remove page: %w", err)
			}
		}
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write page: %w", err)
		}
	}
	return nil
}
