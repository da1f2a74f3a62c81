// Command docker-clocker is docker clocker: a plugin of the Docker CLI, and,
// run by its own name, the controller and the agent of a fleet.
package main

import (
	"fmt"
	"os"

	"github.com/docker/cli/cli-plugins/metadata"
	"github.com/docker/cli/cli-plugins/plugin"
	dockercommand "github.com/docker/cli/cli/command"

	"clocker.io/clocker/cli-plugin/command"
	"clocker.io/clocker/pkg/version"
)

func main() {
	// Run by its own name, the program is what comes after `docker`.
	if plugin.RunningStandalone() {
		os.Args = append([]string{"docker", "clocker"}, os.Args[1:]...)
	}
	docker, err := dockercommand.NewDockerCli()
	if err == nil {
		err = plugin.RunPlugin(docker, command.New(docker), metadata.Metadata{
			SchemaVersion:    "0.1.0",
			Vendor:           "Clocker",
			Version:          version.Get().Version,
			ShortDescription: "Deploy applications across a fleet of Docker hosts",
			URL:              "https://clocker.io",
		})
	}
	code, text := command.Exit(err)
	if text != "" {
		fmt.Fprintln(os.Stderr, text)
	}
	os.Exit(code)
}
