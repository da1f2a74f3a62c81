package placement

import (
	"fmt"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/strategy"
)

const (
	solr   = "brooklyn.entity.webapp.solr.SolrServer"
	tomcat = "brooklyn.entity.webapp.tomcat.TomcatServer"
)

// spec/clocker.md §11, Affinity: a host with {Solr(app A), Tomcat(app A)}, and
// a Tomcat of app A to be placed.
func TestAffinityVectors(t *testing.T) {
	full := Host{ID: "1", Name: "h1", Up: true, Tasks: []Task{
		{App: "A", Service: "solr", Type: solr, Title: "Solr"}, {App: "A", Service: "tomcat1", Type: tomcat, Title: "Tomcat"},
	}}
	empty := Host{ID: "1", Name: "h1", Up: true}
	strangers := Host{ID: "1", Name: "h1", Up: true, Strangers: 1}
	for _, c := range []struct {
		rule                   string
		full, empty, strangers bool
	}{
		{"NOT TYPE", false, true, true},
		{"not type", false, true, true},
		{"DIFFERENT TYPE", false, true, true},
		{"TYPE SolrServer", false, true, false},
		{"TYPE", false, true, false},
		{"SAME APPLICATION", true, true, false},
		{"APPLICATION", true, true, false},
		{"APPLICATION A", true, true, false},
		{"NOT APPLICATION", false, true, true},
		{"NOT APPLICATION x", true, true, true},
		{"NAME solr", false, true, false},
		{"NAME o", true, true, false},
		{"NOT NAME SOLR", false, true, true},
		{"ID solr", false, true, false},
		{"NOT ID", true, true, true},
		{"NOT ID solr", false, true, true},
		{"NOT ID A/solr", false, true, true},
		{"NOT ID B/solr", true, true, true},
		{"NOT TYPE " + strings.ToUpper(solr), false, true, true},
		{"EMPTY", true, true, true},
		{"NOT EMPTY", true, false, true},
		{"PREDICATE managed", true, true, false},
		{"NOT PREDICATE managed", false, true, true},
		{"PREDICATE Running", true, true, false},
		{"NAME o, NOT ID x", true, true, false},
		{"APPLICATION\nNOT ID", true, true, false},
	} {
		r := Request{App: "A", Service: "tomcat2", Type: tomcat, Title: "Tomcat", Placement: model.Placement{Affinity: []string{c.rule}}}
		for i, h := range []Host{full, empty, strangers} {
			want := []bool{c.full, c.empty, c.strangers}[i]
			d := Place([]Host{h}, []Request{r})[0]
			assert.Equal(t, d.Host != "", want, "%q on host %d: %v", c.rule, i, d.Refusals)
		}
	}
}

func TestParseAffinity(t *testing.T) {
	for text, want := range map[string]string{
		"SAME": "has no verb", "NOT": "has no verb", "NAME": "lacks what NAME is about", "PREDICATE": "lacks what PREDICATE is about",
		"TYPE a b": "goes on after its end: b", "EMPTY x": "goes on after its end: x", "FOO": "there are TYPE, NAME", "": "is empty", " , \n": "is empty",
		"NOT NOT TYPE": "no verb that is known: NOT", "PREDICATE com.example.Big": "Java classes are not run",
	} {
		_, err := ParseAffinity(text)
		assert.ErrorContains(t, err, want, "%q", text)
	}
	_, err := ParseAffinity("FOO, NOT TYPE, NAME")
	assert.ErrorContains(t, err, `affinity rule "FOO"`)
	assert.ErrorContains(t, err, `affinity rule "NAME"`)
	rules, err := ParseAffinity("not  type,, APPLICATION x\n same id ")
	assert.NilError(t, err)
	assert.DeepEqual(t, rules, []Rule{{Not: true, Verb: VerbType}, {Verb: VerbApplication, Param: "x"}, {Verb: VerbID}})
}

// Rules of the service, of the host and of the fleet are joined.
func TestAffinityOfServiceHostAndFleet(t *testing.T) {
	hs := hosts(4)
	hs[0].Affinity = []string{"NOT APPLICATION b"}
	hs[0].Tasks = []Task{{App: "b", Service: "x"}}
	hs[1].Tasks = []Task{{App: "c", Service: "y"}}
	hs[2].Tasks = []Task{{App: "d", Service: "z"}}
	hs[3].Cordoned = true
	f := NewFleet(Policy{Affinity: []string{"NOT NAME y"}}, hs)
	d := f.Place([]Request{{App: "a", Service: "web", Placement: model.Placement{Affinity: []string{"NOT ID d/z"}}}})[0]
	for _, want := range []string{
		"h1: the host's own rule NOT APPLICATION b: b/x is on it", "h2: rule NOT NAME y: c/y is on it", "h3: rule NOT ID d/z: d/z is on it", "h4: it is cordoned",
	} {
		assert.ErrorContains(t, d.Err(), want)
	}
}

// spec/clocker.md §11, Group placement.
func TestGroupVectors(t *testing.T) {
	fleet := func(exclusive bool, more ...Task) *Fleet {
		hs := hosts(3)
		hs[0].Tasks = []Task{{App: "A", Service: "web1", Parent: "P1"}}
		hs[1].Tasks = append([]Task{{App: "B", Service: "b", Parent: "P9"}}, more...)
		if len(more) > 0 {
			hs[2].Tasks = more
		}
		return NewFleet(Policy{Strategies: []model.Strategy{{Name: strategy.Group, Exclusive: exclusive}}}, hs)
	}
	names := func(f *Fleet, parent string) string {
		var out []string
		for _, v := range f.Explain(Request{App: "A", Service: "n", Parent: parent}) {
			if v.Rank > 0 {
				out = append(out, v.Host)
			}
		}
		return strings.Join(out, " ")
	}
	assert.Equal(t, names(fleet(false), "P1"), "h1")
	assert.Equal(t, names(fleet(false), "P2"), "h3 h2")
	assert.Equal(t, names(fleet(true), "P2"), "h3")
	assert.Equal(t, names(fleet(true), "P1"), "h1")
	all := fleet(false, Task{App: "A", Service: "other", Parent: "P3"})
	assert.Equal(t, names(all, "P2"), "")
	d := all.Place([]Request{{App: "A", Service: "db", Slot: 1, Parent: "P2"}})[0]
	assert.ErrorContains(t, d.Err(), "another group of application A is there")
	// A new host is taken if the chain lets it pass, and not otherwise.
	all.PutHost(Host{ID: "id4", Name: "h4", Up: true, Strangers: 1})
	assert.Equal(t, names(all, "P2"), "h4")
	// Replicas of one group that are placed in one call stay together.
	ds := fleet(false).Place([]Request{{App: "A", Service: "db", Parent: "P2"}, {App: "A", Service: "db2", Parent: "P2"}, {App: "A", Service: "db", Parent: "P2"}})
	assert.Equal(t, fmt.Sprint(ds[0].Host, ds[1].Host, ds[2].Host), "id3id3id3")
}

// Filters before group in the chain narrow what it chooses from, those after
// it do not (spec/clocker.md §2.1).
func TestGroupAndTheOrderOfTheChain(t *testing.T) {
	hs := hosts(2)
	hs[0].Tasks = []Task{{App: "A", Service: "x", Parent: "P1"}}
	full := model.Strategy{Name: strategy.MaxContainers, Containers: 1}
	group := model.Strategy{Name: strategy.Group}
	r := Request{App: "A", Service: "y", Parent: "P1"}
	d := NewFleet(Policy{Strategies: []model.Strategy{group, full}}, hs).Place([]Request{r})[0]
	assert.ErrorContains(t, d.Err(), "h1: it has all the containers that it may have, 1")
	assert.ErrorContains(t, d.Err(), "h2: its group is on host h1")
	assert.Equal(t, NewFleet(Policy{Strategies: []model.Strategy{full, group}}, hs).Place([]Request{r})[0].Host, "id2")
}

// spec/clocker.md §11, MaxContainers and ProvisioningFlags.
func TestMaxContainersVector(t *testing.T) {
	hs := hosts(3)
	hs[0].Tasks = []Task{{App: "a", Service: "x"}}
	hs[0].Strangers = 1
	hs[1].Tasks = []Task{{App: "a", Service: "x"}}
	f := NewFleet(Policy{Strategies: []model.Strategy{{Name: strategy.MaxContainers, Containers: 2}}}, hs)
	vs := f.Explain(Request{App: "b", Service: "y"})
	assert.Equal(t, vs[0].Host+vs[1].Host+vs[2].Host, "h3h2h1")
	assert.Equal(t, vs[2].Filter, strategy.MaxContainers)
	// The fleet's own value overrides the strategy's.
	f.SetPolicy(Policy{MaxContainers: 3, Strategies: []model.Strategy{{Name: strategy.MaxContainers, Containers: 2}}})
	assert.Equal(t, f.Explain(Request{App: "b", Service: "y"})[2].Rank, 3)
	assert.Equal(t, f.Room(Request{App: "b", Service: "y"}), 1+2+3)
}

func TestProvisioningVector(t *testing.T) {
	h := Host{ID: "1", Name: "h1", Up: true, Capacity: model.Amounts{NanoCPUs: 4e9, MemoryBytes: 8192 << 20}}
	h.Tasks = []Task{{App: "a", Service: "x", Reserve: model.Amounts{NanoCPUs: 2e9, MemoryBytes: 4096 << 20}}}
	needs := func(cores float64, mib int64) Request {
		return Request{App: "a", Service: "y", Placement: model.Placement{MinCores: cores, MinMemory: mib << 20}}
	}
	exact := model.Strategy{Name: strategy.ProvisioningFlags, Cores: 2, MemoryBytes: 4096 << 20}
	f := NewFleet(Policy{Strategies: []model.Strategy{exact}}, []Host{h})
	ds := f.Place([]Request{needs(1, 0), needs(0, 0)})
	assert.NilError(t, ds[0].Err()) // an exact fit fits
	assert.ErrorContains(t, ds[1].Err(), "not enough cpu: 2 asked, 0 free")
	d := NewFleet(Policy{Reserve: model.Amounts{MemoryBytes: 512 << 20}}, []Host{h}).Place([]Request{needs(2, 4096)})[0]
	assert.ErrorContains(t, d.Err(), "not enough memory: 4GiB asked, 3.5GiB free")
	d = Place(hosts(1), []Request{needs(0, 1)})[0]
	assert.ErrorContains(t, d.Err(), "how much memory it has is not known, 1MiB is asked")
}

// What cannot be read refuses; it is never left out.
func TestUnreadableRulesRefuse(t *testing.T) {
	hs := hosts(2)
	hs[0].Affinity = []string{"NEAR x"}
	r := Request{App: "a", Service: "x"}
	f := NewFleet(Policy{}, hs)
	assert.Equal(t, where(f, r, 2), "h2 h2")
	assert.Assert(t, strings.Contains(f.Explain(r)[1].Reason, "the host's own rules cannot be read"), f.Explain(r)[1].Reason)
	hs[0].Affinity = nil
	f.UpdateHost(hs[0])
	assert.Equal(t, where(f, r, 1), "h1")
	for _, p := range []model.Placement{
		{Affinity: []string{"NEAR x"}}, {Constraints: []string{"node.ip == 1"}},
		{Strategies: []model.Strategy{{Name: strategy.Hostname, Hostname: "("}}}, {Strategies: []model.Strategy{{Name: strategy.Affinity, Rules: []string{"FOO"}}}},
	} {
		r.Placement = p
		assert.Equal(t, where(f, r, 1), "-", "%+v", p)
	}
}
