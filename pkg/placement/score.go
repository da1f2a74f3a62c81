package placement

import "fmt"

// better orders two eligible hosts for a request: the preferred one first,
// then the one with fewest replicas of the same service, of the same
// application, of anything; then by name, so that the same snapshot always
// gives the same answer.
func better(a, b *candidate, r *Request) bool {
	if r.Prefer != "" {
		if ap, bp := a.host.ID == r.Prefer, b.host.ID == r.Prefer; ap != bp {
			return ap
		}
	}
	service := r.App + "/" + r.Service
	if x, y := a.byService[service], b.byService[service]; x != y {
		return x < y
	}
	if x, y := a.byApp[r.App], b.byApp[r.App]; x != y {
		return x < y
	}
	if a.total != b.total {
		return a.total < b.total
	}
	return a.host.Name < b.host.Name
}

func explain(c *candidate, r *Request) string {
	if r.Prefer == c.host.ID {
		return "it runs there already"
	}
	return fmt.Sprintf("least loaded: %d of this service, %d of this application, %d in all",
		c.byService[r.App+"/"+r.Service], c.byApp[r.App], c.total)
}
