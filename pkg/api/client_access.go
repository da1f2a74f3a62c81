package api

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"clocker.io/clocker/pkg/fleet/token"
	"clocker.io/clocker/pkg/record"
)

// ErrAuthority means that a controller does not show the authority that a
// token pins: it is another fleet's, or somebody is in between.
var ErrAuthority = errors.New("controller is not of the fleet that the token is for")

// JoinHost registers the machine that has a host's token. The controller is
// verified by the authority that the token pins. Sent again by the same machine
// with the same key, it gives the same id.
func JoinHost(ctx context.Context, t token.Token, r HostRequest) (HostCredentials, error) {
	var out HostCredentials
	if t.Kind != record.TokenHost {
		return out, fmt.Errorf("join fleet %s: this token is for a person: use it with docker clocker fleet join", t.Fleet)
	}
	err := join(ctx, t, "/join/host", HostJoin{Token: proof(t), Host: r}, &out)
	return out, err
}

// JoinUser asks for the certificate of the user that a token is for; csr is PEM.
func JoinUser(ctx context.Context, t token.Token, csr []byte) (UserCredentials, error) {
	var out UserCredentials
	if t.Kind != record.TokenUser {
		return out, fmt.Errorf("join fleet %s: this token is for a host: use it there with docker clocker host join", t.Fleet)
	}
	err := join(ctx, t, "/join/user", UserJoin{Token: proof(t), CSR: string(csr)}, &out)
	return out, err
}

func proof(t token.Token) TokenProof {
	return TokenProof{ID: t.ID, Secret: t.Secret, Fingerprint: t.CAFingerprint}
}

func join(ctx context.Context, t token.Token, path string, body, out any) error {
	c := NewClient(t.Controllers, &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The chain is verified below, against the one certificate that the
		// token pins.
		InsecureSkipVerify: true, //nolint:gosec // see VerifyConnection
	})
	c.pin = t.CAFingerprint
	defer c.Close()
	if err := c.unary(ctx, call{method: http.MethodPost, path: path, body: body, repeat: true}, out); err != nil {
		return fmt.Errorf("join fleet %s: %w", t.Fleet, err)
	}
	return nil
}

// pinned returns a check that the peer at addr shows a certificate of the
// authority with the fingerprint, which it sends along.
func pinned(fingerprint, addr string) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		found := false
		for _, c := range s.PeerCertificates[1:] {
			if sum := sha256.Sum256(c.Raw); hex.EncodeToString(sum[:]) == fingerprint {
				roots.AddCert(c)
				found = true
			}
		}
		if !found {
			return ErrAuthority
		}
		if _, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			return fmt.Errorf("%w: %w", ErrAuthority, err)
		}
		return nil
	}
}

// Renew asks for another certificate for the key of a request, for whoever
// calls.
func (c *Client) Renew(ctx context.Context, csr []byte) (Renewal, error) {
	var out Renewal
	err := c.unary(ctx, call{method: http.MethodPost, path: "/renew", body: RenewRequest{CSR: string(csr)}, repeat: true}, &out)
	return out, err
}

// CreateToken makes a token.
func (c *Client) CreateToken(ctx context.Context, r TokenRequest) (IssuedToken, error) {
	var out IssuedToken
	err := c.unary(ctx, call{method: http.MethodPost, path: "/tokens", body: r}, &out)
	return out, err
}

// Tokens lists the tokens that are kept, without their hashes.
func (c *Client) Tokens(ctx context.Context) ([]record.Token, error) {
	var out []record.Token
	err := c.get(ctx, "/tokens", nil, &out)
	return out, err
}

// RemoveToken makes a token worthless; [ErrNotFound] when there is none.
func (c *Client) RemoveToken(ctx context.Context, id string) error {
	return c.unary(ctx, call{method: http.MethodDelete, path: "/tokens/" + url.PathEscape(id)}, nil)
}

// Users lists who may call the API, by name.
func (c *Client) Users(ctx context.Context) ([]record.User, error) {
	var out []record.User
	err := c.get(ctx, "/users", nil, &out)
	return out, err
}

// User describes one user; [ErrNotFound] when there is none.
func (c *Client) User(ctx context.Context, name string) (record.User, error) {
	var out record.User
	err := c.get(ctx, "/users/"+url.PathEscape(name), nil, &out)
	return out, err
}

// RemoveUser takes a user's rights away at once.
func (c *Client) RemoveUser(ctx context.Context, name string) error {
	return c.unary(ctx, call{method: http.MethodDelete, path: "/users/" + url.PathEscape(name)}, nil)
}

// AuditQuery says which entries of the audit log are asked for. Since is a time
// in RFC 3339 form or empty.
type AuditQuery struct {
	Follow      bool
	Since, User string
}

// Audit calls f with the entries of the audit log, oldest first.
func (c *Client) Audit(ctx context.Context, q AuditQuery, f func(record.AuditEntry) error) error {
	v := url.Values{}
	if q.Follow {
		v.Set("follow", "1")
	}
	if q.Since != "" {
		v.Set("since", q.Since)
	}
	if q.User != "" {
		v.Set("user", q.User)
	}
	err := readLines(ctx, c, call{method: http.MethodGet, path: "/audit", query: v, stream: true}, func(e record.AuditEntry) error {
		if e.ID == "" { // shows only that the stream lives
			return nil
		}
		return f(e)
	})
	if err == nil && q.Follow {
		return fmt.Errorf("%w: the stream of the audit log ends", ErrLost)
	}
	return err
}
