package agent

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"clocker.io/clocker/pkg/engine"
)

// The parts of a host that have a log.
const (
	logAgent  = "agent"
	logPlugin = "plugin"
	logEngine = "engine"
)

// engineLog shows the engine's log where the machine keeps it: in the journal,
// or in one of the usual files. $1 is the number of lines or "all", $2 "yes" to
// go on, $3 what lines must hold.
const engineLog = `lines=$1 follow=$2 hold=$3
show() { if test -n "$hold"; then grep --line-buffered -F -e "$hold" || true; else cat; fi; }
if test -d /run/systemd/system && command -v journalctl >/dev/null; then
	set -- --no-pager -o short-iso -u docker
	if test "$lines" != all; then set -- "$@" -n "$lines"; fi
	if test "$follow" = yes; then set -- "$@" -f; fi
	journalctl "$@" | show
	exit 0
fi
for f in /var/log/docker.log /var/log/dockerd.log /var/log/upstart/docker.log; do
	if test -r "$f"; then
		if test "$lines" = all; then lines=+1; fi
		if test "$follow" = yes; then tail -n "$lines" -F "$f" | show; else tail -n "$lines" "$f" | show; fi
		exit 0
	fi
done
echo "the machine has neither a journal nor a /var/log/docker.log" >&2
exit 1
`

// pluginMark is what the engine's log has in lines that plugins wrote.
const pluginMark = "plugin="

// hostLogs shows the log of a part of the host.
func (h *handler) hostLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	o := engine.LogOptions{Follow: truth(q.Get("follow")), Timestamps: truth(q.Get("timestamps")), Tail: q.Get("tail"), Since: q.Get("since")}
	hold := ""
	switch q.Get("component") {
	case "", logAgent:
		logs, err := h.engine.Logs(r.Context(), agentContainer, o)
		if err != nil {
			refuse(w, codeOf(err), err)
			return
		}
		defer func() { _ = logs.Close() }()
		h.stream(w, r, logs, streamType(false), agentContainer)
		return
	case logPlugin:
		hold = pluginMark
	case logEngine:
	default:
		refuse(w, http.StatusBadRequest, fmt.Errorf("%q has no log: there are %s, %s and %s", q.Get("component"), logAgent, logPlugin, logEngine))
		return
	}
	lines := o.Tail
	if n, err := strconv.Atoi(lines); lines != "" && lines != "all" && (err != nil || n < 0) {
		refuse(w, http.StatusBadRequest, fmt.Errorf("tail %q is not a number of lines", lines))
		return
	}
	if lines == "" {
		lines = "all"
	}
	if o.Since != "" || o.Timestamps {
		refuse(w, http.StatusBadRequest, errors.New("the engine's log has times of its own: leave out since and timestamps"))
		return
	}
	follow := "no"
	if o.Follow {
		follow = "yes"
	}
	x, container, err := h.shells.start(r.Context(), engine.ExecRequest{Cmd: []string{"/bin/sh", "-c", engineLog, "sh", lines, follow, hold}})
	if err != nil {
		refuse(w, codeOf(err), err)
		return
	}
	defer h.shells.end(r.Context(), x.ID, container)
	defer func() { _ = x.Close() }()
	h.stream(w, r, x, streamType(false), "engine")
}
