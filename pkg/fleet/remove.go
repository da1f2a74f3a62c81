package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/hostclean"
	"clocker.io/clocker/pkg/image"
	"clocker.io/clocker/pkg/record"
)

// RemoveHost takes a host out of its fleet and leaves nothing of Clocker on
// its machine: the controller moves its work away and forgets it, then
// networks, plugin, agent, kernel state, files and image go. progress may be
// nil.
//
// Without Force it refuses, with [ErrInUse], the fleet's last host, a host
// that carries the controller, and one whose networks are used by containers
// that are not Clocker's; and, with [ErrUnreachable], a host whose engine does
// not answer. With Force that host is only forgotten: what is on it stays
// until it is added or cleaned again. RemoveHost can be repeated, also for a
// host that the controller no longer knows.
func RemoveHost(ctx context.Context, o RemoveOptions, progress func(Progress)) error {
	if progress == nil {
		progress = func(Progress) {}
	}
	if o.Kit == nil && o.Engine != nil {
		k, err := NewKit(Build{})
		if err != nil {
			return err
		}
		o.Kit = k
	}
	r := &removal{o: o, e: o.Engine, report: progress}
	return r.run(ctx)
}

// removal is one run of RemoveHost.
type removal struct {
	o      RemoveOptions
	e      *client.Client
	report func(Progress)
	// keepController says that the machine goes on carrying the controller.
	keepController bool
	// keepImage says that the image is wanted for what comes next.
	keepImage bool
}

func (r *removal) say(s Step, st State, format string, args ...any) {
	r.report(Progress{Subject: r.o.Name, Step: s, State: st, Text: fmt.Sprintf(format, args...)})
}

func (r *removal) run(ctx context.Context) error {
	known, err := r.known(ctx)
	if err != nil {
		return err
	}
	var m *machine
	if r.e != nil {
		if m, err = r.checkMachine(ctx, known); err != nil {
			return err
		}
	}
	if known != nil {
		if err := r.drain(ctx); err != nil {
			return err
		}
	}
	if r.e == nil && r.o.Joined {
		r.say(StepClean, Note, "what is on the machine of host %s stays until docker clocker host leave is given there", r.o.Name)
		return nil
	}
	if r.e == nil {
		r.say(StepClean, Note, "host %s is forgotten; what is on its machine stays there", r.o.Name)
		return nil
	}
	return r.clean(ctx, m)
}

// known returns the host as the controller lists it, nil when it does not,
// and refuses what cannot go without force.
func (r *removal) known(ctx context.Context) (*api.Host, error) {
	if r.e == nil && !r.o.Force && !r.o.Joined {
		why := r.o.Unreachable
		if why == nil {
			why = errors.New("no way to it is known")
		}
		return nil, fmt.Errorf("remove host %s: %w: start it, or forget it with --force: %w", r.o.Name, ErrUnreachable, why)
	}
	if r.o.Controller == nil {
		return nil, nil
	}
	hosts, err := r.o.Controller.Hosts(ctx)
	if err != nil {
		return nil, fmt.Errorf("remove host %s: %w", r.o.Name, err)
	}
	i := slices.IndexFunc(hosts, func(h api.Host) bool { return h.Name == r.o.Name })
	if i < 0 {
		if r.e == nil {
			return nil, fmt.Errorf("remove host %s: fleet %s has no such host", r.o.Name, r.o.Fleet)
		}
		return nil, nil
	}
	if len(hosts) == 1 && !r.o.Force {
		return nil, fmt.Errorf("remove host %s: %w: it is the last one of fleet %s: use --force, or take the whole fleet away with docker clocker fleet rm", r.o.Name, ErrInUse, r.o.Fleet)
	}
	return &hosts[i], nil
}

// checkMachine makes sure that the engine that answers is the host's, and
// that nothing of others would be cut off.
func (r *removal) checkMachine(ctx context.Context, known *api.Host) (*machine, error) {
	m, err := ask(ctx, r.e)
	if err != nil {
		return nil, err
	}
	if known != nil && known.EngineID != "" && known.EngineID != m.info.ID {
		return nil, fmt.Errorf("remove host %s: the engine that answers is not the one that was added (id %s, not %s): the machine was made anew: forget the host with --force and without its engine",
			r.o.Name, m.info.ID, known.EngineID)
	}
	if err := loadImage(ctx, r.e, r.o.Kit, m, nil, r.report, r.o.Name); err != nil {
		return nil, err
	}
	if err := m.look(ctx, r.e, time.Now); err != nil {
		return nil, err
	}
	if f := m.facts.Member; f != nil && (f.Fleet != r.o.Fleet || known != nil && f.HostID != known.ID) {
		return nil, fmt.Errorf("remove host %s: the machine says it is host %s of fleet %s: %w", r.o.Name, f.Name, f.Fleet, ErrOtherFleet)
	}
	c, err := inspect(ctx, r.e, ControllerContainer)
	if err != nil {
		return nil, err
	}
	if label(c, LabelFleet) == r.o.Fleet && c != nil {
		r.keepController = true
		if !r.o.Force {
			return nil, fmt.Errorf("remove host %s: %w: it carries the controller of fleet %s, which would go on without being a host: use --force, or take the whole fleet away with docker clocker fleet rm",
				r.o.Name, ErrInUse, r.o.Fleet)
		}
	}
	users, err := strangers(ctx, r.e)
	if err != nil {
		return nil, err
	}
	if len(users) > 0 && !r.o.Force {
		return nil, fmt.Errorf("remove host %s: %w: containers that are not Clocker's use its networks: stop them, or cut them off with --force: %s",
			r.o.Name, ErrInUse, strings.Join(users, ", "))
	}
	return m, nil
}

// strangers lists the running containers on our networks that no application
// of ours owns, as "container (network)".
func strangers(ctx context.Context, e *client.Client) ([]string, error) {
	ns, err := ownNetworks(ctx, e)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range ns {
		l, err := e.ContainerList(ctx, client.ContainerListOptions{Filters: make(client.Filters).Add("network", n.ID)})
		if err != nil {
			return nil, fmt.Errorf("list containers: %w", err)
		}
		for _, c := range l.Items {
			if c.Labels[labelTask] == "" && len(c.Names) > 0 {
				out = append(out, fmt.Sprintf("%s (%s)", strings.TrimPrefix(c.Names[0], "/"), n.Name))
			}
		}
	}
	return out, nil
}

// labelTask marks the containers of applications.
const labelTask = record.LabelTask

// drain lets the controller move the host's work and forget it.
func (r *removal) drain(ctx context.Context) error {
	r.say(StepDrain, Doing, "moving its work elsewhere")
	var problems []string
	last := ""
	err := r.o.Controller.RemoveHost(ctx, r.o.Name, r.o.Force, func(p api.Progress) error {
		switch {
		case p.Problem != "":
			problems = append(problems, p.Problem)
		case p.Step != nil && p.Step.Cause != last:
			last = p.Step.Cause
			r.say(StepDrain, Doing, "%s", p.Step.Cause)
		case p.Done != "" && p.Done != "ok":
			problems = append(problems, "the controller ended with: "+p.Done)
		}
		return nil
	})
	if errors.Is(err, api.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove host %s: %w", r.o.Name, err)
	}
	if len(problems) > 0 {
		return &Problems{Subject: r.o.Name, List: problems}
	}
	r.say(StepDrain, Done, "host %s is out of fleet %s", r.o.Name, r.o.Fleet)
	return nil
}

// clean takes everything of ours off the machine, what needs the plugin
// first.
func (r *removal) clean(ctx context.Context, m *machine) error {
	if err := r.removeContainers(ctx); err != nil {
		return err
	}
	if err := r.removeNetworks(ctx); err != nil {
		return err
	}
	r.say(StepPlugin, Doing, "removing plugin %s", PluginName)
	if err := removePlugin(ctx, r.e); err != nil {
		return err
	}
	r.say(StepPlugin, Done, "plugin %s removed", PluginName)
	if a := m.facts.Member; a != nil && a.Adopted != nil && !a.Adopted.GatewayBridge {
		if err := r.removeGatewayBridge(ctx, m); err != nil {
			return err
		}
	}
	if err := cleanHost(ctx, r.e, m.image); err != nil {
		return err
	}
	r.say(StepClean, Done, "kernel state and files removed")
	if err := sweep(ctx, r.e, time.Now(), true); err != nil {
		return err
	}
	if r.keepImage {
		return nil
	}
	kept, err := removeImages(ctx, r.e)
	if err != nil {
		return err
	}
	switch {
	case len(kept) > 0 && r.keepController:
		r.say(StepImage, Note, "the image stays, as the controller runs from it")
	case len(kept) > 0:
		r.say(StepImage, Note, "the image stays, as other containers use it: %s", strings.Join(kept, ", "))
	default:
		r.say(StepImage, Done, "image removed")
	}
	return nil
}

// removeContainers removes the agent, which would bring back what is taken
// away, and what is left of applications.
func (r *removal) removeContainers(ctx context.Context) error {
	if err := stopContainer(ctx, r.e, AgentContainer, 10); err != nil {
		return err
	}
	if _, err := removeContainer(ctx, r.e, nextAgent); err != nil { // of an upgrade that was cut off
		return err
	}
	if _, err := removeContainer(ctx, r.e, AgentContainer); err != nil {
		return err
	}
	r.say(StepAgent, Done, "agent removed")
	l, err := r.e.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: make(client.Filters).Add("label", LabelFleet+"="+r.o.Fleet, labelTask),
	})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, c := range l.Items {
		if _, err := removeContainer(ctx, r.e, c.ID); err != nil {
			return err
		}
	}
	if len(l.Items) > 0 {
		r.say(StepDrain, Done, "%d containers of applications removed", len(l.Items))
	}
	return nil
}

func (r *removal) removeNetworks(ctx context.Context) error {
	ns, err := ownNetworks(ctx, r.e)
	if err != nil {
		return err
	}
	for _, n := range ns {
		d, err := r.e.NetworkInspect(ctx, n.ID, client.NetworkInspectOptions{})
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("inspect network %s: %w", n.Name, err)
		}
		for id := range d.Network.Containers {
			if _, err := r.e.NetworkDisconnect(ctx, n.ID, client.NetworkDisconnectOptions{Container: id, Force: true}); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("disconnect from network %s: %w", n.Name, err)
			}
		}
		if _, err := r.e.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove network %s: %w", n.Name, err)
		}
		r.say(StepNetworks, Done, "network %s removed", n.Name)
	}
	return nil
}

// removeGatewayBridge removes the bridge that the engine made for containers
// of ours, unless something else uses it by now.
func (r *removal) removeGatewayBridge(ctx context.Context, m *machine) error {
	if m.info.Swarm.NodeID != "" {
		return nil
	}
	d, err := r.e.NetworkInspect(ctx, gatewayBridge, client.NetworkInspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("inspect network %s: %w", gatewayBridge, err)
	}
	if len(d.Network.Containers) > 0 {
		r.say(StepNetworks, Note, "network %s stays, as other containers use it", gatewayBridge)
		return nil
	}
	if _, err := r.e.NetworkRemove(ctx, gatewayBridge, client.NetworkRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove network %s: %w", gatewayBridge, err)
	}
	r.say(StepNetworks, Done, "network %s removed", gatewayBridge)
	return nil
}

// cleanHost runs hostclean on the machine: kernel state and files.
func cleanHost(ctx context.Context, e *client.Client, image string) error {
	ctx, cancel := context.WithTimeout(ctx, cleanTime)
	defer cancel()
	p := probe{
		image: image, args: []string{"hostclean"},
		caps: []string{"NET_ADMIN", "DAC_OVERRIDE", "FOWNER"},
	}
	for _, path := range hostclean.Parents {
		p.mounts = append(p.mounts, mount.Mount{
			Type: mount.TypeBind, Source: path, Target: hostclean.ParentRoot + path,
			BindOptions: &mount.BindOptions{NonRecursive: true},
		})
	}
	for _, path := range hostclean.Directories {
		p.binds = append(p.binds, path+":"+hostclean.ContentRoot+path)
	}
	if _, err := p.run(ctx, e); err != nil {
		return fmt.Errorf("clean machine: %w", err)
	}
	return nil
}

// removeImage removes an image unless a container uses it.
func removeImage(ctx context.Context, e *client.Client, ref string) (removed bool, err error) {
	_, err = e.ImageRemove(ctx, ref, client.ImageRemoveOptions{PruneChildren: true})
	switch {
	case errdefs.IsNotFound(err):
		return false, nil
	case errdefs.IsConflict(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("remove image %s: %w", ref, err)
	}
	return true, nil
}

// removeImages removes every image of ours, of this version and of others,
// and returns those that containers still use.
func removeImages(ctx context.Context, e *client.Client) (kept []string, err error) {
	l, err := e.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("label", image.Label)})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	for _, i := range l.Items {
		refs := i.RepoTags
		if len(refs) == 0 {
			refs = []string{i.ID}
		}
		for _, ref := range refs {
			removed, err := removeImage(ctx, e, ref)
			if err != nil {
				return kept, err
			}
			if !removed {
				kept = append(kept, ref)
			}
		}
	}
	return kept, nil
}
