package strategy

import (
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/pkg/model"
)

func TestNames(t *testing.T) {
	for text, want := range map[string]string{
		"breadth-first": BreadthFirst,
		"Breadth-First": BreadthFirst,
		"brooklyn.location.docker.strategy.BreadthFirstPlacementStrategy":         BreadthFirst,
		"clocker.docker.location.strategy.basic.LowestCpuUsagePlacementStrategy":  LowestCPU,
		"clocker.docker.location.strategy.LabelPlacementStrategy":                 Label,
		"clocker.docker.location.strategy.affinity.DockerAffinityRuleStrategy":    Affinity,
		"brooklyn.location.docker.strategy.affinity.DockerAffinityRuleStrategy":   Affinity,
		"MaxCpuUsagePlacementStrategy":                                            MaxCPU,
		"brooklyn.location.docker.strategy.ProvisioningFlagsPlacementStrategy":    ProvisioningFlags,
		"clocker.docker.location.strategy.basic.LeastContainersPlacementStrategy": LeastContainers,
	} {
		got, _, ok := Name(text)
		assert.Assert(t, ok, text)
		assert.Equal(t, got, want)
	}
	for text, want := range map[string]string{
		"bredth-first":           `did you mean "breadth-first"?`,
		"com.example.MyStrategy": "the strategies are ",
		"clocker.docker.location.strategy.basic.LabelPlacementStrateg": `did you mean "LabelPlacementStrategy"?`,
		"clocker.docker.location.strategy.label":                       `did you mean "label"?`,
		"":                                                             "the strategies are ",
	} {
		_, remedy, ok := Name(text)
		assert.Assert(t, !ok, text)
		assert.Assert(t, strings.Contains(remedy, want), "%q: %s", text, remedy)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]model.Strategy{
		"depth-first":                    {Name: DepthFirst},
		"max-containers":                 {Name: MaxContainers, Containers: 8},
		"max-containers=20":              {Name: MaxContainers, Containers: 20},
		"max-cpu":                        {Name: MaxCPU, CPU: 0.5},
		"max-cpu=80%":                    {Name: MaxCPU, CPU: 0.8},
		"soft:label=ssd,zone=a":          {Name: Label, Soft: true, Labels: []string{"ssd", "zone=a"}},
		"hostname=web-{1,2}":             {Name: Hostname, Hostname: "web-{1,2}"},
		"group":                          {Name: Group, Timeout: 20 * time.Minute},
		"group=exclusive,timeout=300000": {Name: Group, Exclusive: true, Timeout: 5 * time.Minute},
		"affinity=NOT TYPE, APPLICATION": {Name: Affinity, Rules: []string{"NOT TYPE", "APPLICATION"}},
		"provisioning-flags=minRam=2048,minCores=2": {Name: ProvisioningFlags, Cores: 2, MemoryBytes: 2 << 30},
		"provisioning-flags=minRam=2g":              {Name: ProvisioningFlags, MemoryBytes: 2 << 30},
		"zone-spread":                               {Name: ZoneSpread, Labels: []string{"zone"}},
		"zone-spread=rack":                          {Name: ZoneSpread, Labels: []string{"rack"}},
		"max-replicas-per-host=2":                   {Name: MaxPerHost, Containers: 2},
	} {
		got, err := Parse(text)
		assert.NilError(t, err, text)
		assert.DeepEqual(t, got, want)
	}
	for text, want := range map[string]string{
		"max-containers=0":             "is no number of containers",
		"max-containers=many":          "is no number of containers",
		"max-cpu=1.5":                  "is no share of CPU",
		"max-cpu=NaN":                  "is no share of CPU",
		"hostname":                     "lacks a regular expression",
		"hostname=(":                   "is no regular expression",
		"affinity":                     "lacks rules",
		"max-replicas-per-host":        "lacks a number of replicas",
		"random=x":                     `strategy random has no option "x"`,
		"group=excusive":               `did you mean "exclusive"?`,
		"group=timeout=long":           "is no duration",
		"provisioning-flags=minRam=-1": "is no amount of memory",
		"zone-spread=a=b":              "is no label to spread over",
		"label=,x":                     "is no label",
		"soft:bogus":                   "unknown strategy",
	} {
		_, err := Parse(text)
		assert.ErrorContains(t, err, want)
	}
}

// What is shown can be given back, and means the same.
func TestStringIsWhatParseReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(Names()).Draw(t, "name")
		o := Options{}
		if rapid.Bool().Draw(t, "soft") {
			o["soft"] = []string{"true"}
		}
		switch name {
		case MaxContainers, MaxPerHost:
			o["containers"] = []string{rapid.StringMatching(`[1-9][0-9]{0,3}`).Draw(t, "n")}
		case MaxCPU:
			o["cpu"] = []string{rapid.StringMatching(`0\.[1-9][0-9]{0,3}|[1-9][0-9]?%`).Draw(t, "cpu")}
		case Hostname:
			o["hostname"] = []string{rapid.StringMatching(`[a-z.*,=]+x`).Draw(t, "re")}
		case Label:
			o["labels"] = rapid.SliceOfN(rapid.StringMatching(`[a-z]+(=[a-z]+)?`), 1, 3).Draw(t, "labels")
		case Affinity:
			o["rules"] = rapid.SliceOfN(rapid.StringMatching(`[A-Z]+ [a-z]+`), 1, 3).Draw(t, "rules")
		case Group:
			o["exclusive"] = []string{rapid.SampledFrom([]string{"true", "false"}).Draw(t, "exclusive")}
			o["timeout"] = []string{rapid.StringMatching(`[1-9][0-9]?m`).Draw(t, "timeout")}
		case ProvisioningFlags:
			o["minCores"] = []string{rapid.StringMatching(`[1-9](\.5)?`).Draw(t, "cores")}
			o["minRam"] = []string{rapid.StringMatching(`[1-9][0-9]{0,4}`).Draw(t, "ram")}
		}
		s, problems := New(name, o)
		if len(problems) > 0 && name == Hostname {
			return // not every such text is an expression
		}
		assert.Equal(t, len(problems), 0, problems)
		again, err := Parse(String(s))
		assert.NilError(t, err)
		assert.DeepEqual(t, again, s)
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"max-cpu=80%", "soft:label=ssd", "group=exclusive=true,timeout=5m", "affinity=NOT TYPE"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err == nil {
			_, err = Parse(String(s))
			assert.NilError(t, err)
		}
	})
}
