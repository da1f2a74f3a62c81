package e2e

import (
	"strings"
	"testing"

	"clocker.io/clocker/e2e/testbed"
)

// letIn makes a user of a machine, in no group, whom its sshd lets in as it does
// root.
func letIn(t *testing.T, h *testbed.Host, user string) {
	t.Helper()
	// Any password but a locked one: sshd without PAM lets nobody in by that.
	out, err := h.Exec(t.Context(), "sh", "-ec", `useradd -m -s /bin/sh -p '*' "$0"
install -d -m 700 -o "$0" -g "$0" "/home/$0/.ssh"
install -m 600 -o "$0" -g "$0" /root/.ssh/authorized_keys "/home/$0/.ssh/"`, user)
	if err != nil {
		t.Fatal(out, err)
	}
}

// sshAs is [sshTo] for another user than root.
func sshAs(h *testbed.Host, user string) []string {
	args := sshTo(h)
	last := len(args) - 1
	args[last] = strings.Replace(args[last], "root@", user+"@", 1)
	return args
}

// A user who is not root needs no more than the engine's socket where there is an
// engine, and sudo without a password where one is to be installed. Who has
// neither must be told what is missing, and nothing may be done.
func TestUsersWhoAreNotRootMustAddHosts(t *testing.T) {
	f := adopters(t, "users", 1)
	h2, h3 := f.bed.Host("h2"), f.bed.Host("h3")
	run := func(h *testbed.Host, script string) {
		t.Helper()
		if out, err := h.Exec(t.Context(), "sh", "-ec", script); err != nil {
			t.Fatal(out, err)
		}
	}
	add := func(h *testbed.Host, user string, flags ...string) []string {
		return append(append([]string{"host", "add"}, flags...), sshAs(h, user)...)
	}
	noSocket := []string{"may not open /var/run/docker.sock", "make the user a member of the group docker"}

	letIn(t, h2, "dora")
	f.refused(t, 3, append(noSocket, "dora"), add(h2, "dora")...)
	f.refused(t, 3, append(noSocket, "dora"), add(h2, "dora", "--install-engine")...)
	untouched(t, h2)
	run(h2, "usermod -aG docker dora")
	f.clocker(t, add(h2, "dora", "--label", "disk=ssd")...)
	if h := f.hosts(t)["h2"]; h.Status != "ready" || h.Labels["disk"] != "ssd" || !strings.Contains(h.Endpoint, "dora@") {
		t.Errorf("h2 is %+v", h)
	}
	f.clocker(t, "host", "upgrade", "h2")
	f.clocker(t, "host", "rm", "h2")
	untouched(t, h2)

	letIn(t, h3, "sam")
	f.refused(t, 3, []string{"there is no /var/run/docker.sock", "--install-engine"}, add(h3, "sam")...)
	f.refused(t, 1, []string{"sudo asks sam for a password", "NOPASSWD"}, add(h3, "sam", "--install-engine")...)
	run(h3, "! command -v dockerd && ! test -e /var/lib/clocker-engine")
	run(h3, "echo 'sam ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/sam")
	f.clocker(t, add(h3, "sam", "--install-engine")...)
	if h := f.hosts(t)["h3"]; h.Status != "ready" {
		t.Errorf("h3 is %+v", h)
	}
	run(h3, "id -nG sam | grep -qw docker")

	// Sudo is for installing alone: an engine that is there is its owner's.
	letIn(t, h3, "ann")
	run(h3, "echo 'ann ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ann")
	f.refused(t, 3, append(noSocket, "ann"), add(h3, "ann", "--install-engine")...)
	if out, err := h3.Exec(t.Context(), "id", "-nG", "ann"); err != nil || strings.Contains(out, "docker") {
		t.Errorf("ann is in %s %v", out, err)
	}
}
