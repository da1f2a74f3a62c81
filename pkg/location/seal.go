package location

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// Credentials are how a provider's machines let us in. They are secret: they
// reach etcd only as [Credentials.Seal] makes them.
type Credentials struct {
	// SSHKey is a private key without a passphrase, as PEM.
	SSHKey string `json:"sshKey,omitempty"`
	// CA, Cert and Key are PEM, for engines over TLS.
	CA   string `json:"ca,omitempty"`
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
}

// String hides the secret from whoever prints it.
func (Credentials) String() string { return "(credentials)" }

// GoString does as String.
func (c Credentials) GoString() string { return c.String() }

// ErrSealed means that credentials were sealed to another identity.
var ErrSealed = errors.New("its credentials were sealed to an identity that this controller does not have: add the provider again")

// Seal encrypts the credentials to the fleet's own identity (age, X25519), so
// that etcd's data alone does not give them away. The empty credentials are
// the empty text.
func (c Credentials) Seal(identity []byte) (string, error) {
	if c == (Credentials{}) {
		return "", nil
	}
	ids, err := age.ParseIdentities(bytes.NewReader(identity))
	if err != nil {
		return "", fmt.Errorf("seal credentials: read identity: %w", err)
	}
	var to []age.Recipient
	for _, id := range ids {
		if x, ok := id.(*age.X25519Identity); ok {
			to = append(to, x.Recipient())
		}
	}
	plain, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("seal credentials: %w", err)
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, to...)
	if err != nil {
		return "", fmt.Errorf("seal credentials: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return "", fmt.Errorf("seal credentials: %w", err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("seal credentials: %w", err)
	}
	return base64.StdEncoding.EncodeToString(sealed.Bytes()), nil
}

// Unseal opens what Seal made. The error matches [ErrSealed] when the identity
// is another one; it never holds any of the secret.
func Unseal(sealed string, identity []byte) (Credentials, error) {
	var c Credentials
	if sealed == "" {
		return c, nil
	}
	ids, err := age.ParseIdentities(bytes.NewReader(identity))
	if err != nil {
		return c, fmt.Errorf("open credentials: read identity: %w", err)
	}
	b, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return c, errors.New("open credentials: they are damaged")
	}
	r, err := age.Decrypt(bytes.NewReader(b), ids...)
	if err != nil {
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) {
			return c, fmt.Errorf("open credentials: %w", ErrSealed)
		}
		return c, errors.New("open credentials: they are damaged")
	}
	plain, err := io.ReadAll(r)
	if err != nil || json.Unmarshal(plain, &c) != nil {
		return Credentials{}, errors.New("open credentials: they are damaged")
	}
	return c, nil
}
