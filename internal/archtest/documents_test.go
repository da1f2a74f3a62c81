package archtest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// blueprints are the nine files that the examples hold byte for byte.
var blueprints = map[string]string{
	"01-redis-service.yaml":         "b69a08fc740806dc27eddbcc2ef6a04d3b538470a6f5f65ac45d7f3a90528742",
	"02-redis-cluster.yaml":         "adaa1d378f0b5091906aa707369437af956af4e44d1039835d934fd759f76668",
	"03-appserver-with-policy.yaml": "aafd1b04a543da87134db04e3b71513c54db05254f330c0263dbc36857e0cdb2",
	"04-virtual-networks.yaml":      "37bc95b6ad6f3430549675297d089c8b509452ae3edc46358773d3f04ef1ac7f",
	"05-application-1-docker.yaml":  "95b37f80642b0d0247b079ef64bbb4f01209b625bf8ca95a8332adc311b20da2",
	"06-application-2-entity.yaml":  "176937358a9278780b0649558ca0f2e2675c64d12010023a5dfcd4f402f8be1e",
	"07-application-3-split.yaml":   "945def84ac02e547a8c1128272a25cd09604e35835e54dae6baca1e9fef9ccaa",
	"08-application-4-cloud.yaml":   "fbe64894e795f1d509e1aaa4defbf351706abf289b7d91f99ced812d4272d172",
	"09-application-5-mesos.yaml":   "603f9b10842a6584842576793cfc4d6bb3f9a9a6aa3bb37148ea3dc070fd9ba5",
}

func TestBlueprintsAreUnchanged(t *testing.T) {
	dir := filepath.Join(moduleRoot(t), "examples", "blueprints")
	for name, want := range blueprints {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		sum := sha256.Sum256(b)
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("examples/blueprints/%s has SHA-256 %s, want %s", name, got, want)
		}
	}
}

func TestDesignPagesNamedInCodeExist(t *testing.T) {
	dir := moduleRoot(t)
	page := regexp.MustCompile(`docs/[a-z/-]+\.md`)
	for _, p := range packages(t) {
		for _, f := range p.files() {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range page.FindAllString(string(b), -1) {
				if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
					t.Errorf("%s names %s, which is not there", f, name)
				}
			}
		}
	}
}

// Links between the repository's documents lead somewhere.
func TestDocumentsLinkToWhatExists(t *testing.T) {
	dir := moduleRoot(t)
	link := regexp.MustCompile(`\]\(([^)\s]+)\)|<img [^>]*src="([^"]+)"`)
	fence := regexp.MustCompile("(?s)```.*?```")
	seen := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "out" || d.Name() == "bin" || path != dir && strings.HasPrefix(d.Name(), ".")) {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		seen++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(string(b), ""), -1) {
			to := m[1] + m[2]
			to, _, _ = strings.Cut(to, "#")
			if to == "" || strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), to)); errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s links to %s, which is not there", path, to)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Error("no document found")
	}
}
