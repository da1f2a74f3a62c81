package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"clocker.io/clocker/pkg/fleet/controllerconfig"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// revisionBump is how far a restored etcd's revisions lie after those of the
// snapshot: no revision that somebody still remembers comes again.
const revisionBump = 1_000_000_000

// prepareEtcd does what a restore or a recovery has left for the start. Each
// step can be repeated: what tells of it goes last.
func prepareEtcd(ctx context.Context, cfg *controllerconfig.Config, o Options) error {
	file := filepath.Join(o.DataDir, controllerconfig.RestoreFile)
	order, err := readOrder(file)
	if err != nil {
		return err
	}
	if order != nil {
		if err := restoreData(cfg, o, *order); err != nil {
			return err
		}
		return carryOut(ctx, cfg, o, file, *order, memberMode{private: true})
	}
	file = filepath.Join(o.DataDir, controllerconfig.RecoverFile)
	if order, err = readOrder(file); err != nil || order == nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(etcdDir(o), "member")); err != nil {
		return fmt.Errorf("recover etcd: this controller has no data to go on with: restore a backup instead: %w", err)
	}
	return carryOut(ctx, cfg, o, file, *order, memberMode{private: true, alone: true})
}

func readOrder(file string) (*controllerconfig.Restore, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("restore etcd: %w", err)
	}
	r := &controllerconfig.Restore{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("restore etcd: read %s: %w", file, err)
	}
	return r, nil
}

// restoreData makes a data directory of the snapshot, unless that is done. It
// is another cluster than the one that was lost: whoever remembers that one's
// id, as network plugins do, sees that etcd was restored.
func restoreData(cfg *controllerconfig.Config, o Options, order controllerconfig.Restore) error {
	if _, err := os.Stat(etcdDir(o)); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restore etcd: %w", err)
	}
	half := etcdDir(o) + ".new"
	if err := os.RemoveAll(half); err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	peer := etcdURL(cfg.Advertise, cfg.EtcdPeerPort)
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: filepath.Join(o.DataDir, controllerconfig.SnapshotFile),
		Name:         cfg.Name, OutputDataDir: half,
		PeerURLs: []string{peer.String()}, InitialCluster: cfg.Name + "=" + peer.String(),
		InitialClusterToken: clusterToken(cfg.Fleet) + "-" + order.ID,
		RevisionBump:        revisionBump, MarkCompacted: true,
	})
	if err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	if err := os.Rename(half, etcdDir(o)); err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	o.Log.Info("etcd is restored from a snapshot", "id", order.ID, "taken", order.Snapshot)
	return nil
}

// carryOut starts the member for this process alone and tells every host, in
// etcd, that it is of an older state, before any of them can read it.
func carryOut(ctx context.Context, cfg *controllerconfig.Config, o Options, file string, order controllerconfig.Restore, mode memberMode) error {
	// A wiped directory is not what is restored or recovered.
	if err := os.Remove(filepath.Join(o.ConfigDir, controllerconfig.MemberFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restore etcd: %w", err)
	}
	m, err := startMember(ctx, cfg, o, mode)
	if err != nil {
		return err
	}
	err = tellHosts(ctx, store.New(m.client, cfg.Fleet), order)
	m.client.Close() //nolint:errcheck // it ends here
	m.server.Close() // to its end: the data is opened again
	if err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	if err := os.Remove(filepath.Join(o.DataDir, controllerconfig.SnapshotFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restore etcd: %w", err)
	}
	if err := os.Remove(file); err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	o.Log.Warn("this controller goes on alone: add others with docker clocker controller add", "id", order.ID)
	return nil
}

// tellHosts marks every host and forgets the controllers of before.
func tellHosts(ctx context.Context, s *store.Store, order controllerconfig.Restore) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	hosts, _, err := store.List[json.RawMessage](ctx, s, s.Keys.Hosts())
	if err != nil {
		return err
	}
	mark := record.Restored{ID: order.ID, At: order.At, Snapshot: order.Snapshot}
	for _, h := range hosts {
		id, found := strings.CutSuffix(strings.TrimPrefix(h.Key, s.Keys.Hosts()), "/spec")
		if !found {
			continue
		}
		if _, err := s.Txn().Put(s.Keys.HostRestored(id), mark).Commit(ctx); err != nil {
			return err
		}
	}
	if _, err := s.Txn().DeletePrefix(s.Keys.Controllers()).Commit(ctx); err != nil {
		return err
	}
	// The elections of controllers that are gone would be waited for.
	_, err = s.Client().Delete(ctx, s.Keys.Election(), clientv3.WithPrefix())
	return err
}

// checkData refuses to begin anew where a member's data has been: a member of
// a cluster that has forgotten its own votes may break it, and a cluster that
// begins anew would tell every host that nothing is wanted.
func checkData(o Options) error {
	if _, err := os.Stat(filepath.Join(etcdDir(o), "member")); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("start etcd: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(o.ConfigDir, controllerconfig.MemberFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	return fmt.Errorf("start etcd: the data of member %s is gone from %s: it is never begun anew in its place. If other controllers live, docker clocker controller rm --force this one and add it again; else docker clocker restore a backup",
		strings.TrimSpace(string(b)), etcdDir(o))
}

// noteMember writes down whose data the data directory holds.
func noteMember(o Options, id uint64) error {
	text := strconv.FormatUint(id, 16) + "\n"
	file := filepath.Join(o.ConfigDir, controllerconfig.MemberFile)
	if b, err := os.ReadFile(file); err == nil && string(b) == text {
		return nil
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return fmt.Errorf("note etcd member: %w", err)
	}
	return nil
}
