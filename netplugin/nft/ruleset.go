package nft

// Family is a family of tables, as nft(8) names it.
type Family string

// The families in use.
const (
	INet   Family = "inet"
	Bridge Family = "bridge"
)

// Ruleset is one table and its content.
type Ruleset struct {
	Family Family
	Table  string
	Sets   []Set
	Chains []Chain
}

// Set is a named set or map with its elements.
type Set struct {
	Name string
	// Key and Data are the names of nftables' types; Data is empty for a
	// set, and "verdict" for a verdict map.
	Key, Data []string
	// Interval sets hold prefixes, all others single values.
	Interval bool
	Elements []Element
}

// Element is one element, in nftables' notation: a field for each type of the
// key, and of the data.
type Element struct {
	Set       string
	Key, Data []string
}

// Chain is a chain of rules. Base chains have a hook.
type Chain struct {
	Name string
	// Type and Hook are empty for chains that others jump to.
	Type, Hook string
	Priority   int
	Rules      []Rule
}

// Rule is a list of statements; see statement.go.
type Rule []Statement
