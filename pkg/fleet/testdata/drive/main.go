package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"clocker.io/clocker/pkg/engine/connect"
	"clocker.io/clocker/pkg/fleet"
	"github.com/moby/moby/client"
)

var start = time.Now()

func say(p fleet.Progress) {
	fmt.Printf("%6.2f %-18s %-12s %-6s %s\n", time.Since(start).Seconds(), p.Subject, p.Step, p.State, p.Text)
}

func die(err error) {
	if err != nil {
		fmt.Printf("%6.2f ERROR %v\n", time.Since(start).Seconds(), err)
		os.Exit(1)
	}
}

func main() {
	ctx := context.Background()
	dir := os.Getenv("DRIVE_DIR")
	kit, err := fleet.NewKit(fleet.Build{Version: "0.1.0-test", Executable: os.Getenv("DRIVE_EXE"), Plugin: os.Getenv("DRIVE_PLUGIN")})
	die(err)
	ep := os.Args[2]
	conn, err := connect.Open(ctx, ep, connect.Options{KnownHosts: os.Getenv("DRIVE_KH"), Identity: os.Getenv("DRIVE_ID")})
	die(err)
	fmt.Printf("%6.2f connected %s api %s\n", time.Since(start).Seconds(), conn.Endpoint, conn.Client.ClientVersion())
	switch os.Args[1] {
	case "init":
		_, err := fleet.Init(ctx, fleet.InitOptions{Dir: dir, Name: os.Getenv("DRIVE_FLEET"), Engine: conn.Client, Endpoint: ep, Kit: kit}, say)
		die(err)
	case "add":
		p, err := fleet.Open(dir, os.Getenv("DRIVE_FLEET"))
		die(err)
		c, err := p.Client()
		die(err)
		_, err = fleet.AddHost(ctx, fleet.AddOptions{Controller: c, Fleet: p.Name, CA: p.CA, Engine: conn.Client, Endpoint: ep, Kit: kit}, say)
		die(err)
	case "rm":
		p, err := fleet.Open(dir, os.Getenv("DRIVE_FLEET"))
		die(err)
		c, err := p.Client()
		die(err)
		die(fleet.RemoveHost(ctx, fleet.RemoveOptions{Controller: c, Fleet: p.Name, Engine: conn.Client, Name: os.Args[3], Kit: kit, Force: len(os.Args) > 4}, say))
	case "destroy":
		p, err := fleet.Open(dir, os.Getenv("DRIVE_FLEET"))
		die(err)
		c, err := p.Client()
		die(err)
		die(fleet.Destroy(ctx, fleet.DestroyOptions{Dir: dir, Profile: p, Controller: c, Engine: conn.Client, Kit: kit, Force: len(os.Args) > 3, Engines: func(name, ep string) (*client.Client, error) {
			conn, err := connect.Open(ctx, ep, connect.Options{KnownHosts: os.Getenv("DRIVE_KH"), Identity: os.Getenv("DRIVE_ID")})
			if err != nil {
				return nil, err
			}
			return conn.Client, nil
		}}, say))
	}
}
