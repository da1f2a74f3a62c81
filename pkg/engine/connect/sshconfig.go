package connect

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/kevinburke/ssh_config"
)

// sshTarget is where an ssh:// endpoint leads once ~/.ssh/config has had its
// say.
type sshTarget struct {
	// alias is the host as the user wrote it, host what is connected to.
	alias, host, port, user string
	// identityFiles and knownHosts come from ~/.ssh/config; may be empty.
	identityFiles []string
	knownHosts    []string
	// identitiesOnly keeps the agent's other keys out.
	identitiesOnly bool
}

// command is what follows `ssh` to reach the same place by hand.
func (t sshTarget) command() string {
	s := t.user + "@" + t.alias
	if t.port != "22" {
		s = "-p " + t.port + " " + s
	}
	return s
}

// readSSHConfig combines the endpoint with ~/.ssh/config: what the endpoint
// says wins.
func readSSHConfig(name string, u *url.URL, o Options) (sshTarget, *Error) {
	t := sshTarget{alias: u.Hostname(), host: u.Hostname(), port: u.Port(), user: u.User.Username()}
	var cfg *ssh_config.Config
	var err error
	if len(o.Signers) == 0 {
		cfg, err = userSSHConfig(o.Home)
	}
	if err != nil && o.Identity == "" {
		return t, &Error{
			Kind: Credentials, Endpoint: name, Err: err,
			Text:   "~/.ssh/config cannot be read: " + err.Error(),
			Remedy: "correct it, or name a key with --ssh-identity: the file is then left out",
		}
	}
	get := func(key string) string {
		if err != nil || cfg == nil {
			return ""
		}
		v, gerr := cfg.Get(t.alias, key)
		if gerr != nil {
			return ""
		}
		return strings.Trim(v, `"`)
	}
	for _, k := range []string{"ProxyJump", "ProxyCommand"} {
		if v := get(k); v != "" && !strings.EqualFold(v, "none") {
			return t, &Error{
				Kind: Invalid, Endpoint: name,
				Text:   "~/.ssh/config reaches " + t.alias + " with " + k + ", which is not supported",
				Remedy: "forward a port with  ssh -L  and use ssh://USER@127.0.0.1:PORT",
			}
		}
	}
	if v := get("HostName"); v != "" {
		t.host = strings.ReplaceAll(v, "%h", t.alias)
	}
	if t.port == "" {
		t.port = get("Port")
	}
	if t.port == "" {
		t.port = "22"
	}
	if t.user == "" {
		t.user = get("User")
	}
	if t.user == "" {
		t.user = loginName(o)
	}
	t.identitiesOnly = strings.EqualFold(get("IdentitiesOnly"), "yes")
	if err == nil && cfg != nil {
		files, gerr := cfg.GetAll(t.alias, "IdentityFile")
		if gerr == nil {
			for _, f := range files {
				if f = strings.Trim(f, `"`); !strings.EqualFold(f, "none") {
					t.identityFiles = append(t.identityFiles, t.expand(f, o.Home))
				}
			}
		}
	}
	for _, f := range strings.Fields(get("UserKnownHostsFile")) {
		t.knownHosts = append(t.knownHosts, t.expand(f, o.Home))
	}
	return t, nil
}

func userSSHConfig(home string) (*ssh_config.Config, error) {
	f, err := os.Open(filepath.Join(home, ".ssh", "config"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	return ssh_config.Decode(f)
}

func loginName(o Options) string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	if n := o.Getenv("USER"); n != "" {
		return n
	}
	return "root"
}

// expand replaces the tokens that ssh_config(5) allows in file names.
func (t sshTarget) expand(path, home string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		path = filepath.Join(home, rest)
	}
	path = strings.NewReplacer("%%", "%", "%d", home, "%h", t.host, "%n", t.alias, "%r", t.user, "%p", t.port).Replace(path)
	if !filepath.IsAbs(path) {
		path = filepath.Join(home, ".ssh", path)
	}
	return path
}
