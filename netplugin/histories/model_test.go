package histories

import (
	"fmt"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"gotest.tools/v3/assert"
)

// operation is what an engine asked for; the address of one that asked for
// any is that of the answer.
type operation struct {
	take bool
	// who is the host and the caller there.
	who     string
	address string
}

// answer is what it was told. Operations whose answer is not known have none
// and never end.
type answer struct{ refused, unknown bool }

// model is one address of an allocator with one memory: nobody has it (""), or
// one caller of one host has. An address is given when nobody has it. Giving
// back what another has changes nothing.
func model() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			by := map[string][]porcupine.Operation{}
			for _, o := range history {
				a := o.Input.(operation).address
				by[a] = append(by[a], o)
			}
			var parts [][]porcupine.Operation
			for _, p := range by {
				parts = append(parts, p)
			}
			return parts
		},
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			holder, o, a := state.(string), input.(operation), output.(answer)
			switch {
			case a.refused:
				return true, holder
			case !o.take && holder == o.who:
				return true, ""
			case !o.take:
				return true, holder
			case holder == "":
				return true, o.who
			case a.unknown:
				// It may have been refused.
				return true, holder
			}
			return false, holder
		},
		DescribeOperation: func(input, output any) string {
			o, a := input.(operation), output.(answer)
			verb := map[bool]string{true: "take", false: "give back"}[o.take]
			return fmt.Sprintf("%s: %s %s %+v", o.who, verb, o.address, a)
		},
		DescribeState: func(state any) string { return fmt.Sprintf("held by %q", state) },
	}
}

// forever is when an operation ends whose answer never came.
const forever = int64(1) << 60

// The checker must find what it is there for.
func TestModelFindsAnAddressHeldTwice(t *testing.T) {
	op := func(client int, from, to int64, o operation, a answer) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: o, Output: a, Call: from, Return: to}
	}
	take := func(host string) operation { return operation{take: true, who: host, address: "10.0.0.5"} }
	give := func(host string) operation { return operation{who: host, address: "10.0.0.5"} }
	for name, c := range map[string]struct {
		history []porcupine.Operation
		right   bool
	}{
		"one after the other": {[]porcupine.Operation{
			op(1, 0, 1, take("a"), answer{}), op(1, 2, 3, give("a"), answer{}), op(2, 4, 5, take("b"), answer{})}, true},
		"overlapping with the release": {[]porcupine.Operation{
			op(1, 0, 1, take("a"), answer{}), op(1, 2, 9, give("a"), answer{}), op(2, 4, 5, take("b"), answer{})}, true},
		"a release that never ended": {[]porcupine.Operation{
			op(1, 0, 1, take("a"), answer{}), op(1, 2, forever, give("a"), answer{unknown: true}), op(2, 4, 5, take("b"), answer{})}, true},
		"twice": {[]porcupine.Operation{
			op(1, 0, 1, take("a"), answer{}), op(2, 2, 3, take("b"), answer{})}, false},
		"twice on one host": {[]porcupine.Operation{
			op(1, 0, 1, take("a"), answer{}), op(2, 2, 3, take("a"), answer{})}, false},
		"another's release": {[]porcupine.Operation{
			op(1, 0, 1, take("a"), answer{}), op(2, 2, 3, give("b"), answer{}), op(2, 4, 5, take("b"), answer{})}, false},
		"refused": {[]porcupine.Operation{
			op(1, 0, 1, take("a"), answer{}), op(2, 2, 3, take("b"), answer{refused: true})}, true},
	} {
		got := porcupine.CheckOperationsTimeout(model(), c.history, time.Minute)
		assert.Equal(t, got == porcupine.Ok, c.right, name)
	}
}
