package api

// Paths about hosts. {host} is a name or an id; logs and exec are answered by
// the host's agent.
//
//	POST   /v1/hosts/{host}/labels           LabelChange → Host
//	GET    /v1/hosts/{host}/logs?component=agent|plugin|engine&follow=1&tail=N&since=T&timestamps=1 → log stream (stdcopy framed)
//	POST   /v1/hosts/{host}/exec             ExecRequest, runs on the machine itself; as for tasks
//	GET    /v1/hosts/{host}/exec/{exec}      → ExecState
//	POST   /v1/hosts/{host}/exec/{exec}/resize?h=N&w=N
//	POST   /v1/hosts/{host}/engine           → a connection to the API of the host's engine

// LabelChange changes a host's labels.
type LabelChange struct {
	// Set are added or replaced, Remove are keys that go; one that is not
	// there is no error.
	Set    map[string]string `json:"set,omitempty"`
	Remove []string          `json:"remove,omitempty"`
}
