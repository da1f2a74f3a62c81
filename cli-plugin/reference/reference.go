// Package reference turns the command tree of docker clocker into the pages of
// docs/reference: one Markdown page for each command and one that lists them,
// with the exit codes. The commands are the only source; it writes no file.
//
// Design page: docs/design/cli.md.
package reference

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"clocker.io/clocker/cli-plugin/command"
)

//go:generate go run ./generate ../../docs/reference

// Pages returns the content of each page by its file's name.
func Pages() map[string]string {
	// As the docker CLI shows it: the plugin's own root is a command of
	// docker's.
	docker := &cobra.Command{Use: "docker"}
	root := command.New(nil)
	docker.AddCommand(root)
	pages := map[string]string{"README.md": index(root)}
	walk(root, func(c *cobra.Command) {
		if c != root {
			pages[file(c)] = page(c)
		}
	})
	return pages
}

func walk(c *cobra.Command, f func(*cobra.Command)) {
	if c.Hidden {
		return
	}
	c.InitDefaultHelpFlag()
	c.DisableFlagsInUseLine = true
	f(c)
	for _, sub := range c.Commands() {
		walk(sub, f)
	}
}

// file is the name of a command's page: "clocker_host_add.md".
func file(c *cobra.Command) string {
	path := strings.TrimPrefix(c.CommandPath(), "docker ")
	return strings.ReplaceAll(path, " ", "_") + ".md"
}

const notice = "<!-- Generated from the commands by go generate ./cli-plugin/...: do not edit. -->\n\n"

func index(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(notice + "# docker clocker\n\n" + root.Long + "\n\n## Commands\n\n| Command | What it does |\n|:--|:--|\n")
	walk(root, func(c *cobra.Command) {
		if c != root && !c.HasSubCommands() {
			fmt.Fprintf(&b, "| [`%s`](%s) | %s |\n", c.CommandPath(), file(c), escape(c.Short))
		}
	})
	b.WriteString("\n## Options of every command\n\n")
	b.WriteString(options(root.PersistentFlags()))
	b.WriteString("\n## Exit codes\n\n| Code | Meaning |\n|--:|:--|\n")
	for _, c := range command.ExitCodes {
		fmt.Fprintf(&b, "| %d | %s |\n", c.Code, escape(c.Meaning))
	}
	b.WriteString("\n`docker clocker exec` ends with the code of the command that it ran, when that one ran.\n")
	return b.String()
}

func page(c *cobra.Command) string {
	var b strings.Builder
	long := c.Long
	if long == "" {
		long = c.Short
	}
	usage := c.UseLine()
	if c.HasAvailableSubCommands() {
		usage += " COMMAND"
	}
	fmt.Fprintf(&b, "%s# %s\n\n%s\n\n```console\n%s\n```\n", notice, c.CommandPath(), strings.TrimSpace(long), usage)
	if len(c.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAliases: `%s`\n", strings.Join(c.Aliases, "`, `"))
	}
	if c.HasAvailableSubCommands() {
		b.WriteString("\n## Commands\n\n| Command | What it does |\n|:--|:--|\n")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(&b, "| [`%s`](%s) | %s |\n", sub.CommandPath(), file(sub), escape(sub.Short))
			}
		}
	}
	if own := options(c.NonInheritedFlags()); own != "" {
		b.WriteString("\n## Options\n\n" + own)
	}
	if c.Example != "" {
		fmt.Fprintf(&b, "\n## Examples\n\n```console\n%s\n```\n", unindent(c.Example))
	}
	b.WriteString("\nSee also: [the other commands, options of every command, exit codes](README.md).\n")
	return b.String()
}

// options is a table of flags, empty when there is none to show.
func options(flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		if b.Len() == 0 {
			b.WriteString("| Option | Type | Default | What it does |\n|:--|:--|:--|:--|\n")
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		def := f.DefValue
		if def == "[]" || def == "false" || def == "0" {
			def = ""
		}
		if def != "" {
			def = "`" + def + "`"
		}
		kind := f.Value.Type()
		if kind == "bool" {
			kind = ""
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, kind, def, escape(f.Usage))
	})
	return b.String()
}

// escape makes text fit a cell of a Markdown table.
func escape(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(s)
}

func unindent(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "  ")
	}
	return strings.Join(lines, "\n")
}
