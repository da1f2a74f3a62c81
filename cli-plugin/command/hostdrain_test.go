package command

import (
	"context"
	"net/http"
	"testing"

	"github.com/docker/cli/cli/command"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

// ^C makes a host what it was before the drain, whatever that was.
func TestAnInterruptedDrainLeavesTheHostAsItWas(t *testing.T) {
	for was, call := range map[string]string{
		record.HostActive: "enable", record.HostCordoned: "cordon", record.HostDraining: "",
	} {
		m := newMachine(t)
		ctx, cancel := context.WithCancel(t.Context())
		called := ""
		host := api.Host{Host: record.Host{ID: "h2", Name: "h2", State: was}}
		say := func(what string) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { called += what; _, _ = w.Write([]byte("{}")) }
		}
		m.serve(answers{
			"GET /v1/hosts/h2": host,
			"POST /v1/hosts/h2/drain": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				send(w, api.Progress{Step: &api.Step{Action: "drain", Kind: "host", Subject: "h2"}})
				cancel()
				<-r.Context().Done()
			}),
			"POST /v1/hosts/h2/enable": say("enable"), "POST /v1/hosts/h2/cordon": say("cordon"),
		})
		docker, err := command.NewDockerCli()
		assert.NilError(t, err)
		root := newRoot(&Env{cli: docker, clock: m.clock})
		root.SilenceErrors, root.SilenceUsage = true, true
		root.SetArgs([]string{"host", "drain", "--quiet", "h2"})
		code, text := Exit(root.ExecuteContext(ctx))
		assert.Equal(t, code, ExitInterrupted, text)
		assert.Equal(t, called, call, text)
		cancel()
	}
}
