package controller

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"clocker.io/clocker/pkg/fleet/controllerconfig"
)

// externalEtcd reaches a cluster of the user's own. Hosts get the same
// credentials the controller was given: the cluster's users are not ours to
// manage.
func externalEtcd(ctx context.Context, cfg *controllerconfig.Config, o Options) (etcdAccess, func(), error) {
	a := etcdAccess{kind: "external", urls: cfg.Etcd}
	var t *tls.Config
	pick := func(option, name string) string {
		if option != "" {
			return option
		}
		return filepath.Join(o.ConfigDir, name)
	}
	if cfg.EtcdTLS || o.EtcdCA != "" {
		caFile := pick(o.EtcdCA, controllerconfig.EtcdCAFile)
		pool, err := controllerconfig.Pool(caFile)
		if err != nil {
			return a, nil, err
		}
		t = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		if a.hostCA, err = readPEM(caFile); err != nil {
			return a, nil, err
		}
	}
	if cfg.EtcdClientCert || o.EtcdCert != "" {
		certFile, keyFile := pick(o.EtcdCert, controllerconfig.EtcdCertFile), pick(o.EtcdKey, controllerconfig.EtcdKeyFile)
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return a, nil, fmt.Errorf("read etcd certificate: %w", err)
		}
		if t == nil {
			t = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		t.Certificates = []tls.Certificate{pair}
		if a.hostCert, err = readPEM(certFile); err != nil {
			return a, nil, err
		}
		if a.hostKey, err = readPEM(keyFile); err != nil {
			return a, nil, err
		}
	}
	client, err := dialEtcd(cfg.Etcd, t)
	if err != nil {
		return a, nil, err
	}
	a.client = client
	checkCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := client.Get(checkCtx, "/clocker/"); err != nil {
		client.Close() //nolint:errcheck // the other error counts
		return a, nil, fmt.Errorf("reach etcd at %v: %w", cfg.Etcd, err)
	}
	return a, func() { client.Close() }, nil //nolint:errcheck // it ends here
}

func readPEM(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read etcd certificate: %w", err)
	}
	return string(b), nil
}
