package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"filippo.io/age"
	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/version"
)

type backupOptions struct {
	output, from   string
	passphraseFile string
	recipients     []string
	quiet          bool
	reach          reachFlags
}

func newBackupCommand(e *Env) *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup [OPTIONS]",
		Short: "Write the fleet's state and authority to a file",
		Long: `Write the fleet's state and authority to a file, while it works.

The file has a snapshot of etcd and the fleet's certificate authority, both
encrypted by age: with a passphrase (asked for, or in --passphrase-file), or to
recipients (age1..., or a file of them). Who has file and passphrase has the
fleet. Containers' data is not in it.`,
		Example: `  docker clocker backup -o fleet.backup
  docker clocker backup -o fleet.backup --passphrase-file secret.txt
  docker clocker backup -o fleet.backup --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p`,
		Args:              args(cli.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return runBackup(cmd.Context(), e, o) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "File to write (default: FLEET-DATE.backup)")
	f.StringVar(&o.passphraseFile, "passphrase-file", "", "File whose first line is the passphrase")
	f.StringArrayVar(&o.recipients, "recipient", nil, "age recipient, or file of recipients, that can open the backup")
	f.StringVar(&o.from, "from", "", "Controller that the authority is read from (default: one that answers)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print only the file's name")
	o.reach.flags(cmd)
	return cmd
}

func runBackup(ctx context.Context, e *Env, o backupOptions) error {
	p, err := e.profile()
	if err != nil {
		return err
	}
	to, err := e.recipients(o)
	if err != nil {
		return err
	}
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.FleetControllers(ctx)
	if err != nil {
		return err
	}
	var reached engines
	defer reached.close()
	source, err := e.sourceEngine(ctx, p, &reached, o.reach, all, o.from)
	if err != nil {
		return err
	}
	if o.output == "" {
		o.output = p.Name + "-" + e.clock.Now().UTC().Format("20060102T150405Z") + ".backup"
	}
	show := e.steps("Backing up fleet "+p.Name, o.quiet)
	m, err := fleet.Backup(ctx, fleet.BackupOptions{
		Profile: p, API: c, Source: source, Recipients: to, Path: o.output, Version: version.Version,
	}, show.add)
	show.close(err)
	if err != nil {
		return err
	}
	if o.quiet {
		_, err = fmt.Fprintln(e.cli.Out(), o.output)
		return err
	}
	e.say("Fleet %s as of %s is in %s. Keep the passphrase or identity apart from it.", p.Name, m.CreatedAt.Format("2006-01-02 15:04:05 MST"), o.output)
	return nil
}

// recipients are who can open the backup.
func (e *Env) recipients(o backupOptions) ([]age.Recipient, error) {
	if len(o.recipients) > 0 {
		if o.passphraseFile != "" {
			return nil, usageError{errors.New("give --recipient or --passphrase-file, not both")}
		}
		var out []age.Recipient
		for _, r := range o.recipients {
			text := []byte(r)
			if !strings.HasPrefix(r, "age1") {
				b, err := os.ReadFile(r)
				if err != nil {
					return nil, invalid("read recipients: %v", err)
				}
				text = b
			}
			some, err := age.ParseRecipients(bytes.NewReader(text))
			if err != nil {
				return nil, invalid("--recipient %s: %v", r, err)
			}
			out = append(out, some...)
		}
		return out, nil
	}
	pass, err := e.passphrase(o.passphraseFile, true)
	if err != nil {
		return nil, err
	}
	r, err := age.NewScryptRecipient(pass)
	if err != nil {
		return nil, invalid("passphrase: %v", err)
	}
	return []age.Recipient{r}, nil
}

// passphrase reads it from a file, or asks for it, twice when it is new.
func (e *Env) passphrase(file string, fresh bool) (string, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", invalid("read passphrase: %v", err)
		}
		line, _, _ := strings.Cut(string(b), "\n")
		if line = strings.TrimRight(line, "\r"); line == "" {
			return "", invalid("read passphrase: the first line of %s is empty", file)
		}
		return line, nil
	}
	if !e.cli.In().IsTerminal() {
		return "", usageError{errors.New("no terminal to ask for the passphrase on: give --passphrase-file")}
	}
	pass, err := e.secret("Passphrase of the backup: ")
	if err != nil || !fresh {
		return pass, err
	}
	again, err := e.secret("The same again: ")
	if err != nil {
		return "", err
	}
	if pass == "" || again != pass {
		return "", invalid("the passphrases differ or are empty")
	}
	return pass, nil
}

// secret asks for a line that is not shown.
func (e *Env) secret(prompt string) (string, error) {
	_, _ = fmt.Fprint(e.cli.Err(), prompt)
	text, err := term.ReadPassword(int(e.cli.In().FD()))
	_, _ = fmt.Fprintln(e.cli.Err())
	if err != nil {
		return "", fmt.Errorf("ask for passphrase: %w", err)
	}
	return string(text), nil
}
