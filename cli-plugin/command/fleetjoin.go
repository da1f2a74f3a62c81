package command

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/config"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/fleet/token"
)

func newFleetJoinCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "join TOKEN|-",
		Short: "Use a fleet that somebody else has made",
		Long: `Use a fleet that somebody else has made, with a token of one of its
administrators (docker clocker user add). The key is made on this machine and
never leaves it; the controllers must show the authority that the token names.

With - the token is read from the standard input, which keeps it out of the
shell's history.`,
		Example: `  docker clocker fleet join clocker1_dQ4...
  docker clocker fleet join - < token.txt`,
		Args: args(cli.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseToken(e, args[0])
			if err != nil {
				return err
			}
			p, err := fleet.Join(cmd.Context(), config.Dir(), t, e.clock.Now())
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintln(e.cli.Out(), p.Name)
			e.say("You are user %s of fleet %s at %s.", p.User, p.Name, strings.Join(p.Controllers, ", "))
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

// parseToken reads a token given as an argument, or on standard input as "-".
func parseToken(e *Env, text string) (token.Token, error) {
	if text == "-" {
		b, err := io.ReadAll(io.LimitReader(e.cli.In(), 64<<10))
		if err != nil {
			return token.Token{}, fmt.Errorf("read token: %w", err)
		}
		text = string(b)
	}
	t, err := token.Parse(text)
	if err != nil {
		return t, invalid("%v", err)
	}
	return t, nil
}

// refreshTime is how long a command is held up at its end by the renewal of the
// user's certificate.
const refreshTime = 5 * time.Second

// refresh renews the user's certificate when it is time. What goes wrong is
// said and changes nothing for the command that is through: the next one tries
// again.
func (e *Env) refresh(p *fleet.Profile, c *api.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), refreshTime)
	defer cancel()
	if _, err := p.Refresh(ctx, config.Dir(), c, e.clock.Now()); err != nil {
		e.say("Your certificate could not be renewed (the next command tries again): %v", err)
	}
}
