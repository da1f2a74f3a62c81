package compose

import (
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
)

// TestEveryKeyOfTheSpecificationIsDoneOrRefused walks compose-go's own schema:
// a key that a new version adds fails here until it is in the table.
func TestEveryKeyOfTheSpecificationIsDoneOrRefused(t *testing.T) {
	inSchema := map[string]bool{}
	for _, p := range schema.AttributePaths() {
		key := string(p)
		inSchema[key] = true
		if !covered(key) {
			t.Errorf("%s is neither done nor refused", key)
		}
	}
	if len(inSchema) < 500 {
		t.Fatalf("the schema has only %d keys", len(inSchema))
	}
	for _, table := range []map[string]bool{done, opaque, refusedSet} {
		for key := range table {
			if !inSchema[key] {
				t.Errorf("%s is in the table but not in the specification", key)
			}
		}
	}
	for key := range done {
		if refusedSet[key] {
			t.Errorf("%s is both done and refused", key)
		}
	}
	for key := range opaque {
		if !done[key] {
			t.Errorf("%s is opaque but not done", key)
		}
	}
	for key, remedy := range refused {
		if remedy == "" {
			t.Errorf("%s is refused without a remedy", key)
		}
	}
}

// covered reports whether the table decides a key: by itself, or by a key
// above it that is refused or the user's own.
func covered(key string) bool {
	if done[key] || refusedSet[key] {
		return true
	}
	parts := strings.Split(key, ".")
	for i := 1; i < len(parts); i++ {
		above := strings.Join(parts[:i], ".")
		if refusedSet[above] || opaque[above] {
			return true
		}
	}
	return false
}

// TestTheTableCoversNothingByAccident breaks the table in the way that the
// test above must notice.
func TestTheTableCoversNothingByAccident(t *testing.T) {
	for _, key := range []string{"services.*.new", "networks.*.new", "services.*.deploy.new", "new", "services.*.ports.[].new"} {
		if covered(key) {
			t.Errorf("%s counts as covered", key)
		}
	}
}
