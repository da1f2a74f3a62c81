package e2e

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

const balanced = `
services:
  caller:
    image: clocker.io/test/web:1
    ports: ["18060:80"]
  web:
    image: clocker.io/test/web:1
    deploy: {replicas: 3}
    ports:
      - {target: 80, published: "18061", mode: ingress}
  plain:
    image: clocker.io/test/web:1
    deploy: {replicas: 2, endpoint_mode: dnsrr}
`

// A service of several replicas must have one address, which spreads
// connections over all of them wherever they run, follows them as they come
// and go, and is given back with the service; a port of every host likewise.
func TestServiceMustBeBalanced(t *testing.T) {
	f := shared
	f.deploy(t, "vip", "compose.yaml", balanced)
	tasks := f.tasks(t, "vip")
	caller := "http://" + tasks["vip-caller-1"].HostAddress + ":18060"
	ask := func(query string) (string, error) {
		body, _, err := get(t.Context(), caller+query)
		return strings.TrimSpace(body), err
	}
	lookup := func(name string, want int) []string {
		t.Helper()
		var found []string
		await(t, 5*time.Second, fmt.Sprintf("%s has %d addresses", name, want), func() error {
			body, err := ask("/lookup?name=" + name)
			if found = strings.Fields(body); err != nil || len(found) != want {
				return fmt.Errorf("%v: %w", found, err)
			}
			return nil
		})
		return found
	}
	vip := lookup("web", 1)[0]
	lookup("tasks.web", 3)
	lookup("plain", 2)
	web := "/get?timeout=1s&url=" + url.QueryEscape("http://web/")

	// answering counts who answers.
	answering := func(n int, one func() (string, error)) (map[string]int, error) {
		seen := map[string]int{}
		for range n {
			body, err := one()
			if err != nil {
				return nil, err
			}
			name, _, _ := strings.Cut(body, " ")
			seen[name]++
		}
		return seen, nil
	}
	spread := func(what string, replicas int, one func() (string, error)) {
		t.Helper()
		await(t, 10*time.Second, fmt.Sprintf("%s is spread over %d replicas", what, replicas), func() error {
			seen, err := answering(60, one)
			if err != nil || len(seen) != replicas {
				return fmt.Errorf("%v: %w", seen, err)
			}
			for name, n := range seen {
				if n < 60/replicas/4 { // by chance once in ten thousand times
					return fmt.Errorf("%s answers %d of 60", name, n)
				}
			}
			return nil
		})
	}
	spread("the service", 3, func() (string, error) { return ask(web) })
	for _, h := range f.bed.Hosts() {
		spread("port 18061 of "+h.Name, 3, func() (string, error) {
			body, _, err := get(t.Context(), "http://"+h.Address+":18061/")
			return body, err
		})
	}

	// Another application may not have the port, nor one that a program has.
	f.removeAfter(t, "vip2")
	f.refused(t, 5, []string{"18061", "application vip"}, "deploy", writeFile(t, "compose.yaml", balanced), "--app", "vip2")

	// A replica that is killed under load gets nothing new after a second.
	var mu sync.Mutex
	var failed []time.Time
	var last string
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				started := time.Now()
				if _, err := ask(web); err != nil {
					mu.Lock()
					failed, last = append(failed, started), err.Error()
					mu.Unlock()
				}
			}
		})
	}
	victim := tasks["vip-web-2"]
	killed := time.Now()
	if _, err := f.bed.Host(victim.Host).Exec(t.Context(), "docker", "kill", victim.Name); err != nil {
		t.Fatal(err)
	}
	dead := time.Now()
	spread("the service without one replica", 2, func() (string, error) { return ask(web) })
	await(t, 5*time.Second, "two seconds without a failure", func() error {
		mu.Lock()
		defer mu.Unlock()
		at := dead
		if len(failed) > 0 && failed[len(failed)-1].After(dead) {
			at = failed[len(failed)-1]
		}
		if quiet := time.Since(at); quiet < 2*time.Second {
			return fmt.Errorf("%s since the last: %s", quiet, last)
		}
		return nil
	})
	close(stop)
	load.Wait()
	worst := time.Duration(0)
	for _, at := range failed {
		worst = max(worst, at.Sub(dead))
	}
	t.Logf("killed in %s, %d requests failed, the last %s after the replica was dead", dead.Sub(killed), len(failed), worst)
	if worst > 10*time.Second {
		t.Errorf("a request failed %s after its replica was dead: %s", worst, last)
	}

	// It is used again once it is back; more replicas, the same address.
	if _, err := f.bed.Host(victim.Host).Exec(t.Context(), "docker", "start", victim.Name); err != nil {
		t.Fatal(err)
	}
	spread("the service with the replica back", 3, func() (string, error) { return ask(web) })
	f.clocker(t, "deploy", writeFile(t, "compose.yaml", strings.Replace(balanced, "replicas: 3", "replicas: 5", 1)), "--app", "vip")
	if again := lookup("web", 1)[0]; again != vip {
		t.Errorf("the service's address was %s and is %s", vip, again)
	}
	spread("the service with more replicas", 5, func() (string, error) { return ask(web) })
	f.clocker(t, "rm", "vip")
	for _, h := range f.bed.Hosts() {
		await(t, 5*time.Second, "port 18061 is free on "+h.Name, func() error {
			out, err := h.Exec(t.Context(), "nft", "list", "table", "inet", "clocker-lb")
			if err == nil && strings.Contains(out, "18061") {
				return fmt.Errorf("it is there: %s", out)
			}
			return nil
		})
	}
}

const bridgedServices = `
services:
  caller:
    image: clocker.io/test/web:1
    ports: ["18062:80"]
  web:
    image: clocker.io/test/web:1
    restart: "no"
    deploy: {replicas: 3}
    ports:
      - {target: 80, published: "18063", mode: ingress}
networks:
  default:
    driver_opts: {clocker.segment: bridged}
`

// On a bridged network services have addresses, and every host answers for
// their ports, as on a routed one. A deploy must start a replica again that has
// failed and that nothing else starts.
func TestServiceOnABridgedNetworkMustBeBalanced(t *testing.T) {
	f := shared
	f.deploy(t, "flat", "compose.yaml", bridgedServices)
	tasks := f.tasks(t, "flat")
	caller := "http://" + tasks["flat-caller-1"].HostAddress + ":18062"
	body, _, err := get(t.Context(), caller+"/lookup?name=web")
	if err != nil || len(strings.Fields(body)) != 1 {
		t.Fatalf("web has the addresses %q, want one: %v", body, err)
	}
	answering := func(url string, want int) {
		t.Helper()
		await(t, 10*time.Second, fmt.Sprintf("%d replicas answer %s", want, url), func() error {
			seen := map[string]bool{}
			for range 40 {
				body, _, err := get(t.Context(), url)
				if err != nil {
					return err
				}
				name, _, _ := strings.Cut(strings.TrimSpace(body), " ")
				seen[name] = true
			}
			if len(seen) != want {
				return fmt.Errorf("%v answer", seen)
			}
			return nil
		})
	}
	web := caller + "/get?timeout=1s&url=" + url.QueryEscape("http://web/")
	answering(web, 3)
	for _, h := range f.bed.Hosts() {
		answering("http://"+h.Address+":18063/", 3)
	}
	victim := tasks["flat-web-2"]
	if _, err := f.bed.Host(victim.Host).Exec(t.Context(), "docker", "kill", victim.Name); err != nil {
		t.Fatal(err)
	}
	answering(web, 2)
	f.clocker(t, "deploy", writeFile(t, "compose.yaml", bridgedServices), "--app", "flat")
	answering(web, 3)
}
