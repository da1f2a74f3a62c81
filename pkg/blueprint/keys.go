package blueprint

// serviceKey is one configuration key of a docker: service.
type serviceKey struct {
	full string
	// remedy is what to do about a key that is not built yet; empty for one
	// that is.
	remedy string
}

// structural are the keys that say what a service is rather than how it is
// configured.
var structural = []string{"type", "id", "name", "location", "brooklyn.config", "brooklyn.flags"}

// builtKeys are the short names of the configuration keys that are built.
var builtKeys = []string{"openPorts", "directPorts", "portBindings", "links", "env", "volumes", "volumesShared", "onHostLost", "fence", "network.list",
	"strategies", "affinityRules", "provisioning.properties", "memory", "cpuShares", "cpuset"}

// The configuration keys that are built, by their full names
// (spec/clocker.md §1.3).
const (
	keyOpenPorts    = "docker.container.openPorts"
	keyDirectPorts  = "docker.container.directPorts"
	keyPortBindings = "docker.container.portBindings"
	keyLinks        = "docker.container.links"
	keyEnv          = "docker.container.environment"
	keyVolumes      = "docker.container.volumes.export"
	keyShared       = "docker.container.volumes.shared"
	keyHostLost     = "docker.container.onHostLost"
	keyFence        = "docker.container.fence"
	keyNetworks     = "network.list"
	keyStrategies   = "docker.container.strategies"
	keyAffinity     = "affinity.rules"
	keyProvisioning = "provisioning.properties"
	keyMemory       = "docker.memory"
	keyCPUShares    = "docker.cpuShares"
	keyCPUSet       = "docker.cpuset"
)

// inherited are the keys that may stand in the brooklyn.config of the whole
// application, for each service that does not say it itself.
var inherited = func() []string {
	keys := []string{keyStrategies, keyAffinity, keyMemory, keyCPUShares, keyCPUSet}
	for _, c := range constraintKeys {
		keys = append(keys, c.full)
	}
	return keys
}()

// serviceKeys has every key of spec/clocker.md §1.3, §1.4 and §5.2 by its full
// and by its short name.
var serviceKeys = func() map[string]serviceKey {
	m := map[string]serviceKey{}
	add := func(remedy, full string, short ...string) {
		for _, name := range append(short, full) {
			m[name] = serviceKey{full: full, remedy: remedy}
		}
	}
	add("", keyOpenPorts, "openPorts")
	add("", keyDirectPorts, "directPorts")
	add("", keyPortBindings, "portBindings")
	add("", keyLinks, "links")
	add("", keyEnv, "env")
	add("", keyVolumes, "volumes")
	add("", keyShared, "volumesShared")
	add("", keyHostLost, "onHostLost")
	add("", keyFence, "fence")
	add("", keyNetworks)
	add("", keyStrategies, "strategies")
	add("", keyAffinity, "affinityRules")
	add("", keyProvisioning)
	add("", keyMemory, "memory")
	add("", keyCPUShares, "cpuShares")
	add("", keyCPUSet, "cpuset")
	for _, c := range constraintKeys {
		add("", c.full)
	}
	add("", "docker.container.cluster.maxSize", "maxContainers")
	add("", "docker.container.cluster.maxCpu", "maxCpuUsage")

	const (
		name     = "leave it out: containers are called APPLICATION-SERVICE-NUMBER, and the id is a name in DNS"
		image    = "write type: docker:IMAGE:TAG"
		out      = "leave it out"
		command  = "put it into the image, or use a compose file, which has command: and entrypoint:"
		limits   = "write docker.memory and docker.cpuShares"
		build    = "build the image, push it, and write type: docker:IMAGE:TAG"
		networks = "leave it out: each application has a network of its own"
		run      = "put it into the image: the service runs while its container runs"
		ports    = "list the ports themselves under openPorts or directPorts"
		tree     = "list every service under services"
		policies = "leave it out: the number of replicas is fixed until policies are there"
	)
	add(name, "docker.container.name", "containerName")
	add(name, "docker.container.nameFormat")
	add(out+": no container is privileged", "docker.container.privileged", "privileged")
	add(out+": standard input is not kept open", "docker.container.interactive", "interactive")
	add(out, "docker.container.managed", "managed")
	add(image, "docker.image.id", "imageId")
	add(image, "docker.image.name", "imageName")
	add(image, "docker.image.tag", "imageTag")
	add(command, "docker.image.entrypoint", "entrypoint")
	add(command, "docker.image.commands", "commands")
	add(limits, "docker.container.hardwareId", "hardwareId")
	add(out+": a container's host name is its own", "docker.useHostDnsName", "useHostDnsName")
	add(out+": containers are never reached by SSH", "docker.useSsh", "useSsh")
	add("bind the same path with volumes", "docker.container.volumes.import", "volumesFrom")
	add("list paths under volumes: each is bound to the same path of the host", "docker.host.volumes", "volumeMappings")
	add(out, "docker.container.entity", "entity")
	add("write affinity.rules under the service", "docker.host.affinity.rules")
	add(ports, "docker.container.openPorts.configKeys")
	add(ports, "docker.container.directPorts.configKeys")
	add(build, "docker.dockerfile.url", "dockerfileUrl")
	add(build, "docker.dockerfile.name")
	add(build, "docker.entrypoint.url")
	add(build, "docker.context.url")
	add(build, "docker.container.autoCheckpointImage")
	add("write the registry into the type: docker:registry:5000/IMAGE:TAG", "docker.registry.url")
	add(networks, "sdn.applicationNetwork.create")
	add(run, "launch.command")
	add(run, "customize.command")
	add(run, "checkRunning.command")
	add(run, "stop.command")
	add(run, "files.runtime")
	add("write the variables under env", "shell.env")
	add("link the service that this one waits for", "launch.latch")
	add("link the service that this one waits for", "start.latch")
	add(out+": deploy --wait has a limit of its own", "start.timeout")
	add(tree, "brooklyn.children")
	add(policies, "brooklyn.policies")
	add("leave it out: no sensor depends on it yet", "brooklyn.enrichers")
	add(out, "brooklyn.initializers")
	add("write the values into the file", "brooklyn.parameters")
	add(out, "brooklyn.tags")
	return m
}()
