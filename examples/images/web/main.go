// Command web is a small HTTP program that tests put in containers, to ask it
// where it is and what it can reach. It lives in the image
// clocker.io/test/web:1 of the testbed's registry.
//
//	GET /                    host name and the caller's address
//	GET /healthz             200, or 503 after POST /health?ok=false
//	GET /env                 the environment, one variable a line, sorted
//	GET /lookup?name=N       addresses of a name, one a line, sorted
//	GET /dial?addr=A&send=S  connect over TCP, send S, print what comes back
//	GET /get?url=U           fetch a page and print it
//	POST /exit?code=N        end, as a crash would
//
// Run as `web exit N` it ends with that code at once, and as `web version` it
// prints its name: the image has no shell to do such things. Each request is
// logged.
//
// It listens on PORT (flag -port; 80 without), after DELAY (-delay).
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	port := flag.String("port", env("PORT", "80"), "where to listen")
	delay := flag.String("delay", env("DELAY", "0s"), "how long to wait before listening")
	flag.Parse()
	command(flag.Args())
	wait, err := time.ParseDuration(*delay)
	if err != nil {
		log.Fatalf("web: read delay: %v", err)
	}
	// Process 1 of a container ignores signals it does not ask for.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() { log.Printf("web: %v", <-stop); os.Exit(0) }()
	time.Sleep(wait)
	srv := &http.Server{Addr: ":" + *port, Handler: logged(handler()), ReadHeaderTimeout: 10 * time.Second}
	log.Printf("web: listening on %s", srv.Addr)
	log.Fatal(srv.ListenAndServe())
}

// command carries out what the arguments ask for instead of serving.
func command(args []string) {
	switch {
	case len(args) == 0:
	case args[0] == "version":
		fmt.Println("web 1")
		os.Exit(0)
	case args[0] == "exit" && len(args) == 2:
		code, err := strconv.Atoi(args[1])
		if err != nil {
			log.Fatalf("web: read exit code: %v", err)
		}
		os.Exit(code)
	default:
		log.Fatalf("web: unknown arguments %q", args)
	}
}

func logged(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s from %s", r.Method, r.URL, r.RemoteAddr)
		h.ServeHTTP(w, r)
	})
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func handler() http.Handler {
	var sick atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprintf(w, "%s %s\n", host, r.RemoteAddr)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			http.Error(w, "sick", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("POST /health", func(_ http.ResponseWriter, r *http.Request) {
		sick.Store(r.FormValue("ok") == "false")
	})
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, _ *http.Request) { printSorted(w, os.Environ()) })
	mux.HandleFunc("GET /lookup", func(w http.ResponseWriter, r *http.Request) {
		addrs, err := net.DefaultResolver.LookupHost(r.Context(), r.FormValue("name"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		printSorted(w, addrs)
	})
	mux.HandleFunc("GET /dial", dial)
	mux.HandleFunc("GET /get", get)
	mux.HandleFunc("POST /exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	return mux
}

func printSorted(w io.Writer, lines []string) {
	slices.Sort(lines)
	fmt.Fprintln(w, strings.Join(lines, "\n"))
}

func dial(w http.ResponseWriter, r *http.Request) {
	c, err := net.DialTimeout("tcp", r.FormValue("addr"), patience(r))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer c.Close()
	fmt.Fprintf(w, "%s -> %s\n", c.LocalAddr(), c.RemoteAddr())
	send := r.FormValue("send")
	if send == "" {
		return
	}
	buf := make([]byte, 64<<10)
	n := 0
	err = c.SetDeadline(time.Now().Add(patience(r)))
	if err == nil {
		_, err = io.WriteString(c, send)
	}
	if err == nil {
		n, err = c.Read(buf)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(w, err)
	}
	w.Write(buf[:n])
}

func get(w http.ResponseWriter, r *http.Request) {
	c := &http.Client{Timeout: patience(r), Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(r.FormValue("url"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

// patience is the request's timeout=DURATION; 3 s without.
func patience(r *http.Request) time.Duration {
	if d, err := time.ParseDuration(r.FormValue("timeout")); err == nil {
		return d
	}
	return 3 * time.Second
}
