package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/pkg/fleet/ca"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"gotest.tools/v3/assert"
)

// A learner must be promoted by a controller whose own member of etcd does not
// lead raft, too.
func TestALearnerIsPromotedFromAnyMember(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	a, err := ca.Create("f", time.Now)
	assert.NilError(t, err)
	var members []*member
	var cluster []string
	for i := range 3 {
		name := fmt.Sprintf("c%d", i+1)
		cfg, o := homeUnder(t, a, name)
		peer := "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.EtcdPeerPort))
		cluster = append(cluster, name+"="+peer)
		if i > 0 {
			await(t, func() bool {
				_, err = members[0].client.MemberAddAsLearner(ctx, []string{peer})
				return err == nil
			})
			cfg.Cluster = strings.Join(cluster, ",")
		}
		assert.NilError(t, prepareEtcd(ctx, cfg, o))
		m, err := startMember(ctx, cfg, o, memberMode{})
		assert.NilError(t, err)
		t.Cleanup(m.close)
		if i == 0 {
			assert.NilError(t, enableAuth(ctx, m.client))
		}
		members = append(members, m)
		if i == 0 {
			continue
		}
		asks := members[i-1] // the second of two voters the second time
		if i == 2 {
			s, err := asks.client.Status(ctx, asks.client.Endpoints()[0])
			assert.NilError(t, err)
			assert.Assert(t, s.Leader != s.Header.MemberId, "the member that is asked leads raft: this shows nothing")
		}
		await(t, func() bool {
			list, err := asks.client.MemberList(ctx)
			if err == nil {
				err = promoteMember(ctx, asks.client, list.Members, uint64(m.server.Server.MemberID()))
			}
			return err == nil || errors.Is(err, rpctypes.ErrMemberNotLearner) // then an answer was lost
		})
		assert.NilError(t, m.awaitVote(ctx, o.Log))
	}
}
