// Command plugin is the smallest volume plugin that shows whether managed
// plugins work on a testbed's hosts. It needs what Clocker's own plugins need:
// the host's network, CAP_NET_ADMIN and CAP_SYS_ADMIN, a mount that propagates
// to the host, and the host's /run/docker/plugins to be found under a plain
// name too. Every volume is a tmpfs with one file, which lists the host's
// links as the plugin sees them.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	for _, socket := range []string{"/run/docker/plugins/tb.sock", "/host/plugins/tbplain.sock"} {
		_ = os.Remove(socket)
		l, err := net.Listen("unix", socket)
		if err != nil {
			log.Fatal(err)
		}
		go func() { log.Fatal(http.Serve(l, handler())) }()
	}
	select {}
}

func handler() http.Handler {
	mux := http.NewServeMux()
	answers := map[string]func(name string) (map[string]any, error){
		"/Plugin.Activate": func(string) (map[string]any, error) {
			return map[string]any{"Implements": []string{"VolumeDriver"}}, nil
		},
		"/VolumeDriver.Create":  func(string) (map[string]any, error) { return nil, nil },
		"/VolumeDriver.Mount":   mount,
		"/VolumeDriver.Unmount": unmount,
		"/VolumeDriver.Remove":  unmount,
		"/VolumeDriver.Path": func(name string) (map[string]any, error) {
			return map[string]any{"Mountpoint": path(name)}, nil
		},
		"/VolumeDriver.Get": func(name string) (map[string]any, error) {
			return map[string]any{"Volume": map[string]string{"Name": name, "Mountpoint": path(name)}}, nil
		},
		"/VolumeDriver.List": func(string) (map[string]any, error) { return nil, nil },
		"/VolumeDriver.Capabilities": func(string) (map[string]any, error) {
			return map[string]any{"Capabilities": map[string]string{"Scope": "local"}}, nil
		},
	}
	for call, f := range answers {
		mux.HandleFunc(call, func(w http.ResponseWriter, r *http.Request) {
			var req struct{ Name string }
			_ = json.NewDecoder(r.Body).Decode(&req)
			out, err := f(req.Name)
			if err != nil {
				out = map[string]any{"Err": err.Error()}
			}
			if out == nil {
				out = map[string]any{}
			}
			_ = json.NewEncoder(w).Encode(out)
		})
	}
	return mux
}

func path(name string) string { return filepath.Join("/data", name) }

func mount(name string) (map[string]any, error) {
	at := path(name)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return nil, err
	}
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Name)
	}
	err = os.WriteFile(filepath.Join(at, "links"), []byte(strings.Join(names, " ")+"\n"), 0o644)
	return map[string]any{"Mountpoint": at}, err
}

func unmount(name string) (map[string]any, error) {
	_ = syscall.Unmount(path(name), 0)
	return nil, nil
}
