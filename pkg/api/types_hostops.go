package api

// Paths. {host} is a name or an id.
//
//	POST   /v1/hosts/{host}/cordon           the host gets no new work → Host
//	POST   /v1/hosts/{host}/enable           it does again; a drain ends where it is → Host
//	GET    /v1/hosts/{host}/drain            what a drain would do → DrainPlan
//	POST   /v1/hosts/{host}/drain            its work moves away → stream of Progress
//	GET    /v1/rebalance?max=N               what rebalancing would do → []PlannedMove
//	POST   /v1/rebalance?max=N               carries it out → stream of Progress

// PlannedMove is a replica that would move.
type PlannedMove struct {
	App     string `json:"app"`
	Service string `json:"service"`
	Name    string `json:"name"`
	Task    string `json:"task"`
	From    string `json:"from"`
	// To is empty where the replica cannot move: then Blocked says why.
	To      string `json:"to,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Blocked string `json:"blocked,omitempty"`
	// StopFirst says that the replica stops before its successor starts.
	StopFirst bool `json:"stopFirst,omitempty"`
}

// DrainPlan is what a drain of a host would do.
type DrainPlan struct {
	Host  string        `json:"host"`
	Moves []PlannedMove `json:"moves"`
}
