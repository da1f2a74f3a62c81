package formatter

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/templates"

	"clocker.io/clocker/pkg/api"
)

// Tables of a large fleet say so much and no more, unless cells are kept
// whole.
const (
	mostRanked = 10
	mostNamed  = 3
	fewHosts   = 16
)

// Placement renders `docker clocker why`: for each service where its replicas
// are and why, and what every host has to say to the next one.
func Placement(o Options, services []api.ServicePlacement) error {
	switch o.Format {
	case "", formatter.TableFormatKey:
		for i, s := range services {
			if i > 0 {
				if _, err := fmt.Fprintln(o.Out); err != nil {
					return err
				}
			}
			if err := servicePlacement(o, s); err != nil {
				return err
			}
		}
		return nil
	case formatter.JSONFormatKey:
		enc := json.NewEncoder(o.Out)
		for _, s := range services {
			if err := enc.Encode(s); err != nil {
				return err
			}
		}
		return nil
	}
	t, err := templates.Parse(o.Format)
	if err != nil {
		return fmt.Errorf("parse format: %w", err)
	}
	for _, s := range services {
		if err := t.Execute(o.Out, s); err != nil {
			return fmt.Errorf("write placement: %w", err)
		}
		if _, err := fmt.Fprintln(o.Out); err != nil {
			return err
		}
	}
	return nil
}

func servicePlacement(o Options, s api.ServicePlacement) error {
	if len(s.Replicas) > 0 {
		err := table(o.Out, "REPLICA\tHOST\tSTATE\tWHY", func(row func(...string)) {
			for _, r := range s.Replicas {
				row(r.Name, dash(r.Host), r.State, dash(replicaReason(r)))
			}
		})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(o.Out); err != nil {
			return err
		}
	}
	title := "One more replica of " + s.Service + ", " + s.Next + ", would go to "
	switch {
	case len(s.Hosts) == 0 && len(s.Replicas) == 0:
		title = s.Service + " wants no replica."
	case len(s.Hosts) == 0:
		title = s.Next + ": the fleet has no hosts: add one with docker clocker host add."
	case s.Hosts[0].Rank == 0 && s.Missing:
		title = s.Next + " has no host:"
	case s.Hosts[0].Rank == 0:
		title = "No host takes one more replica of " + s.Service + ":"
	case s.Missing:
		title = s.Next + " is going to " + s.Hosts[0].Host + ":"
	default:
		title += s.Hosts[0].Host + ":"
	}
	if _, err := fmt.Fprintln(o.Out, title); err != nil || len(s.Hosts) == 0 {
		return err
	}
	return Verdicts(o, s.Hosts)
}

func replicaReason(r api.ReplicaPlacement) string {
	switch {
	case r.Cause == "":
		return r.Reason
	case r.Reason == "":
		return "moved here: " + r.Cause
	}
	return "moved here (" + r.Cause + "): " + r.Reason
}

// Verdicts renders what every host says to a replica, the best first. Of many
// hosts those that say the same share a line.
func Verdicts(o Options, hosts []api.HostVerdict) error {
	whole := o.NoTrunc || len(hosts) <= fewHosts
	return table(o.Out, "HOST\tRANK\tFILTER\tWHY", func(row func(...string)) {
		ranked := 0
		var kinds []string
		same := map[string][]api.HostVerdict{}
		for _, h := range hosts {
			switch kind := h.Filter + "\x00" + sharedReason(h.Reason); {
			case h.Rank > 0:
				if ranked++; whole || ranked <= mostRanked {
					row(h.Host, strconv.Itoa(h.Rank), "-", score(h.Score))
				}
			case whole:
				row(h.Host, "-", h.Filter, h.Reason)
			default:
				if same[kind] == nil {
					kinds = append(kinds, kind)
				}
				same[kind] = append(same[kind], h)
			}
		}
		if more := ranked - mostRanked; more > 0 && !whole {
			row(fmt.Sprintf("%d more", more), "-", "-", "they fit, but not as well (--no-trunc shows them)")
		}
		for _, k := range kinds {
			reason := same[k][0].Reason
			for _, h := range same[k] {
				if h.Reason != reason {
					reason = sharedReason(reason)
				}
			}
			row(someHosts(same[k]), "-", same[k][0].Filter, reason)
		}
	})
}

// sharedReason is a reason without how much the host has left, which differs
// from host to host.
func sharedReason(reason string) string {
	if at := strings.LastIndex(reason, ", "); at > 0 && strings.HasSuffix(reason, " free") {
		return reason[:at]
	}
	return reason
}

// someHosts names a few hosts and counts the others.
func someHosts(hs []api.HostVerdict) string {
	var names []string
	for _, h := range hs {
		names = append(names, h.Host)
	}
	if len(names) <= mostNamed+1 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:mostNamed], ", "), len(names)-mostNamed)
}

// score is what ranked a host.
func score(parts []api.ScorePart) string {
	var texts []string
	for _, p := range parts {
		if p.Text != "" {
			texts = append(texts, p.Text)
		}
	}
	return dash(strings.Join(texts, ", "))
}

// table writes rows in columns as docker's lists have them.
func table(out io.Writer, header string, rows func(row func(...string))) error {
	w := tabwriter.NewWriter(out, 0, 1, 3, ' ', 0)
	if _, err := fmt.Fprintln(w, header); err != nil {
		return err
	}
	var failed error
	rows(func(cells ...string) {
		if _, err := fmt.Fprintln(w, strings.Join(cells, "\t")); err != nil && failed == nil {
			failed = err
		}
	})
	if failed != nil {
		return failed
	}
	return w.Flush()
}
