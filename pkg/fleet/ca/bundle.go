package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// ParseBundle reads every certificate of a PEM text, in order; there is at
// least one.
func ParseBundle(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("parse certificates: %s is not a certificate", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificates: %w", err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("parse certificates: no PEM certificate")
	}
	return out, nil
}

// Fingerprints are those of the certificates of a bundle, in order.
func Fingerprints(bundle []byte) ([]string, error) {
	all, err := ParseBundle(bundle)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, c := range all {
		sum := sha256.Sum256(c.Raw)
		out = append(out, hex.EncodeToString(sum[:]))
	}
	return out, nil
}

// Trust says in one word what a bundle trusts, and which certificate of it
// signs: two who have the same bundle have the same word.
func Trust(bundle []byte) (string, error) {
	all, err := Fingerprints(bundle)
	if err != nil {
		return "", err
	}
	return strings.Join(all, "+"), nil
}

// Signer returns the fingerprint of the certificate of a bundle that has signed
// another certificate; empty when none of them has.
func Signer(bundle, cert []byte) (string, error) {
	c, err := ParseCertificate(cert)
	if err != nil {
		return "", err
	}
	all, err := ParseBundle(bundle)
	if err != nil {
		return "", err
	}
	for _, a := range all {
		if c.CheckSignatureFrom(a) == nil {
			sum := sha256.Sum256(a.Raw)
			return hex.EncodeToString(sum[:]), nil
		}
	}
	return "", nil
}
