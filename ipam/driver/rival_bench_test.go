package driver

import (
	"fmt"
	"testing"

	"gotest.tools/v3/assert"
)

// What it would be to ask etcd for each address: a transaction that takes it if
// nobody has it, and one that gives it back.
func BenchmarkAddressByEtcd(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			f := newFleet(b)
			measure(b, callers, func(k int) {
				key := fmt.Sprintf("/rival/10.1.%d.%d", k>>8&255, k&255)
				_, err := f.st.Txn().Absent(key).Put(key, "a").Commit(b.Context())
				assert.NilError(b, err)
				_, err = f.st.Txn().Exists(key).Delete(key).Commit(b.Context())
				assert.NilError(b, err)
			})
		})
	}
}
