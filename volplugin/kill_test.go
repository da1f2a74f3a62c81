package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/volume"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// process is the program itself, run as a system service runs it.
type process struct {
	cmd    *exec.Cmd
	client *http.Client
}

func launch(t *testing.T, program, dir string) *process {
	t.Helper()
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(program, "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"), "--socket", socket)
	cmd.Stderr = os.Stderr
	assert.NilError(t, cmd.Start())
	p := &process{cmd, &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}}
	t.Cleanup(p.kill)
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if err := p.call("Capabilities", struct{}{}); err != nil {
			return poll.Continue("%v", err)
		}
		return poll.Success()
	}, poll.WithDelay(time.Millisecond))
	return p
}

// kill is a power cut for the process; it may come twice.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.client.CloseIdleConnections()
}

// refused is an answer that says no, unlike no answer.
type refused string

func (r refused) Error() string { return string(r) }

func (p *process) call(method string, request any) error {
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	r, err := p.client.Post("http://plugin/VolumeDriver."+method, "application/json", bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var answer volume.ErrorResponse
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	if answer.Err != "" {
		return refused(answer.Err)
	}
	return nil
}

// Killed in the middle of mounts, the plugin knows every one that it answered.
// What it was asked and did not answer it may know or not.
func TestKilledWhileMounting(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "clocker-vol")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput()
	assert.NilError(t, err, "%s", out)
	p := launch(t, program, dir)
	for round := range 8 {
		name := fmt.Sprintf("v%d", round)
		assert.NilError(t, p.call("Create", volume.CreateRequest{Name: name}))
		// Each caller goes on until nobody answers; the kill comes after a
		// number of answers that differs by round.
		var callers sync.WaitGroup
		answers := make(chan string, 1000)
		for c := range 3 {
			callers.Go(func() {
				for i := 0; ; i++ {
					id := fmt.Sprintf("%d-%d", c, i)
					if p.call("Mount", volume.MountRequest{Name: name, ID: id}) != nil {
						return
					}
					answers <- id
				}
			})
		}
		var mounted []string
		for len(mounted) < 1+3*round {
			mounted = append(mounted, <-answers)
		}
		p.kill()
		callers.Wait()
		close(answers)
		for id := range answers {
			mounted = append(mounted, id)
		}

		p = launch(t, program, dir)
		for _, id := range mounted {
			var no refused
			err := p.call("Remove", volume.RemoveRequest{Name: name})
			assert.Assert(t, errors.As(err, &no), "removed while %s has it mounted: %v", id, err)
			assert.NilError(t, p.call("Unmount", volume.UnmountRequest{Name: name, ID: id}))
		}
		// One mount of each caller may have been written and not answered.
		for c := range 3 {
			for i := range len(mounted) + 1 {
				assert.NilError(t, p.call("Unmount", volume.UnmountRequest{Name: name, ID: fmt.Sprintf("%d-%d", c, i)}))
			}
		}
		assert.NilError(t, p.call("Remove", volume.RemoveRequest{Name: name}))
	}
}
