// Package testbed makes Docker hosts out of one Linux machine, for tests and
// for trying things out.
//
// A host is a Debian root mounted by overlayfs, in network, mount, UTS, PID,
// IPC and cgroup namespaces of its own, under a small init (this very program,
// run again as process 1) that keeps containerd, dockerd and sshd going. The
// hosts hang on one bridge. The bridge is in the namespaces of one more such
// machine, the hub, which also serves names, images and, when asked, etcd. A
// veth pair joins the bridge to the machine's own network namespace, so the
// machine reaches every host, while traffic between hosts never meets the
// machine's own firewall rules or sysctls.
//
// Nothing is touched that a testbed did not make: every mount is in a
// namespace that dies with its init, the one link in the machine's own network
// namespace and the cgroups carry the testbed's name, and processes are ended
// by recorded PID and start time.
//
// A program that imports this package runs itself again (see reexec.go): it
// must be started as root and must not depend on how os.Args[0] is spelt.
//
// How to use it is in README.md of this directory.
package testbed
