package api

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"clocker.io/clocker/pkg/record"
)

// The results of entries of the audit log.
const (
	auditBegun   = "begun"
	auditOK      = "ok"
	auditRefused = "refused"
	auditFailed  = "failed"
)

// note is what a handler tells of a request while it serves it.
type note struct {
	mu      sync.Mutex // guards the following fields
	subject string
	done    string
}

type noteKey struct{}

// about says what a request is for, where its path does not.
func about(ctx context.Context, subject string) {
	if n, ok := ctx.Value(noteKey{}).(*note); ok {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.subject = subject
	}
}

// ended says how a stream ended: Done of its last [Progress], or an error.
func ended(ctx context.Context, done string) {
	if n, ok := ctx.Value(noteKey{}).(*note); ok {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.done = done
	}
}

// worthNoting reports whether a request changes something: only then it is in
// the audit log without being refused.
func worthNoting(pattern string, r *http.Request) bool {
	return r.Method != http.MethodGet && actionOf(pattern, r) != ""
}

func entry(pattern string, r *http.Request, c Caller, n *note, result, reason string) record.AuditEntry {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := record.AuditEntry{
		User: c.User, Role: c.Role, From: c.From, Action: actionOf(pattern, r), Subject: n.subject, Result: result, Reason: reason,
	}
	if e.Subject == "" {
		e.Subject = subjectOf(pattern, r)
	}
	if c.Host != "" {
		e.User = "host " + c.Host
	}
	return e
}

// note writes a request's end into the audit log; id is of the entry that was
// made when it began. Nobody known has made a request that anyone may make:
// what goes wrong with one counts as refused, of which only so many are kept.
func (s *server) note(pattern string, r *http.Request, c Caller, n *note, id string, byAnyone bool, err error) {
	result, reason := auditOK, ""
	var call *CallError
	switch {
	case errors.As(err, &call) && (call.Status == http.StatusForbidden || call.Status == http.StatusUnauthorized || call.Status == http.StatusTooManyRequests):
		result, reason = auditRefused, call.Body.Message
	case err != nil && byAnyone:
		result, reason = auditRefused, err.Error()
	case err != nil:
		result, reason = auditFailed, err.Error()
	default:
		n.mu.Lock()
		if n.done != "" && n.done != "ok" {
			result, reason = auditFailed, n.done
		}
		n.mu.Unlock()
	}
	if result != auditRefused && id == "" && !byAnyone {
		return // it only read, or did not come to begin
	}
	if len(reason) > maxReason {
		reason = reason[:maxReason] + "..."
	}
	e := entry(pattern, r, c, n, result, reason)
	if e.Action == "" {
		return
	}
	e.ID = id
	s.b.Audit(e)
}

// maxReason bounds what an entry says.
const maxReason = 300
