package source

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"clocker.io/clocker/pkg/model"
)

// fetchTimeout bounds a whole download.
const fetchTimeout = 30 * time.Second

// readURL downloads a file.
func readURL(ctx context.Context, ref string) ([]File, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	shown, u, err := cleanURL(ref)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ref, nil)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", shown, err)
	}
	client := &http.Client{CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errors.New("redirected more than 10 times")
		}
		if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return fmt.Errorf("redirected from https:// to %s://", req.URL.Scheme)
		}
		return nil
	}}
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL is in the message already
		}
		return nil, fmt.Errorf("read %s: %w", shown, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read %s: the server answers %s", shown, resp.Status)
	}
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t == "text/html" {
		return nil, fmt.Errorf("read %s: this is a web page: use the address of the file itself", shown)
	}
	content, err := readAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", shown, err)
	}
	base := path.Base(u.Path)
	return []File{{
		Name: shown, Content: content, Remote: true,
		DefaultName: model.Slug(strings.TrimSuffix(base, path.Ext(base))),
	}}, nil
}

// cleanURL is a URL as it may be shown: without a password and without the
// query, which may hold a token.
func cleanURL(ref string) (string, *url.URL, error) {
	u, err := url.Parse(ref)
	if err != nil || u.Host == "" {
		return "", nil, fmt.Errorf("read %q: not a URL", ref)
	}
	shown := *u
	shown.User, shown.RawQuery, shown.Fragment = nil, "", ""
	return shown.String(), u, nil
}
