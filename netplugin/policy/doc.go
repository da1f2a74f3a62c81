// Package policy decides which packets may pass on a host, and translates
// addresses for networks whose way out is the plugin's: one nftables table,
// `inet clocker`, rendered from a plain description of networks, endpoints
// and published ports.
//
// Every endpoint's source address is pinned to its link. A network is closed
// to every other network, to the host's own services but DNS and ICMP echo,
// and to the outside but for published ports. The rule that counts is the one
// on the receiving host; the sending host drops early what cannot be allowed.
//
// Adding or removing an endpoint changes elements of the table's sets and
// nothing else. Beside its table the package keeps two rules in the chain
// that Docker leaves to others (DOCKER-USER) and touches no other rule.
//
// Design page: docs/design/policy.md.
package policy
