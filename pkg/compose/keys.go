package compose

import (
	"slices"
	"strings"
)

// done are the keys of the compose specification that are carried out, as
// paths with "*" for a name the user chooses and "[]" for an item of a list.
var done = set(
	"version", "name", "include", "services", "services.*", "networks", "networks.*",

	"services.*.image", "services.*.command", "services.*.entrypoint",
	"services.*.environment", "services.*.env_file",
	"services.*.labels", "services.*.profiles", "services.*.extends",
	"services.*.restart", "services.*.scale", "services.*.stop_grace_period",
	"services.*.deploy", "services.*.deploy.replicas", "services.*.deploy.endpoint_mode", "services.*.deploy.mode",

	"services.*.deploy.placement", "services.*.deploy.placement.constraints",
	"services.*.deploy.placement.max_replicas_per_node",
	"services.*.deploy.placement.preferences", "services.*.deploy.placement.preferences.[].spread",

	"services.*.deploy.resources", "services.*.deploy.resources.limits", "services.*.deploy.resources.limits.cpus",
	"services.*.deploy.resources.limits.memory", "services.*.deploy.resources.limits.pids",
	"services.*.deploy.resources.reservations", "services.*.deploy.resources.reservations.cpus",
	"services.*.deploy.resources.reservations.memory", "services.*.deploy.resources.reservations.devices",
	"services.*.deploy.resources.reservations.devices.[].capabilities", "services.*.deploy.resources.reservations.devices.[].count",
	"services.*.deploy.resources.reservations.devices.[].device_ids", "services.*.deploy.resources.reservations.devices.[].driver",
	"services.*.deploy.resources.reservations.devices.[].options", "services.*.deploy.resources.reservations.generic_resources",
	"services.*.deploy.resources.reservations.generic_resources.[].discrete_resource_spec",
	"services.*.deploy.resources.reservations.generic_resources.[].discrete_resource_spec.kind",
	"services.*.deploy.resources.reservations.generic_resources.[].discrete_resource_spec.value",

	"services.*.deploy.update_config", "services.*.deploy.update_config.parallelism", "services.*.deploy.update_config.order",
	"services.*.deploy.update_config.failure_action",

	"services.*.cpus", "services.*.cpu_shares", "services.*.cpuset", "services.*.mem_limit", "services.*.mem_reservation",
	"services.*.memswap_limit", "services.*.pids_limit", "services.*.platform",
	"services.*.devices", "services.*.devices.[].source", "services.*.devices.[].target", "services.*.devices.[].permissions",
	"services.*.gpus", "services.*.gpus.[].capabilities", "services.*.gpus.[].count", "services.*.gpus.[].device_ids",
	"services.*.gpus.[].driver", "services.*.gpus.[].options",

	"services.*.depends_on", "services.*.depends_on.*",
	"services.*.depends_on.*.condition", "services.*.depends_on.*.required",

	"services.*.healthcheck", "services.*.healthcheck.disable", "services.*.healthcheck.interval",
	"services.*.healthcheck.retries", "services.*.healthcheck.start_interval",
	"services.*.healthcheck.start_period", "services.*.healthcheck.test", "services.*.healthcheck.timeout",

	"services.*.networks", "services.*.networks.*", "services.*.networks.*.aliases",
	"services.*.networks.*.gw_priority", "services.*.networks.*.ipv4_address", "services.*.networks.*.ipv6_address",
	"services.*.networks.*.mac_address", "services.*.networks.*.priority",

	"services.*.ports", "services.*.ports.[].host_ip", "services.*.ports.[].mode",
	"services.*.ports.[].protocol", "services.*.ports.[].published", "services.*.ports.[].target",

	"services.*.volumes", "services.*.volumes.[].bind", "services.*.volumes.[].bind.create_host_path",
	"services.*.volumes.[].read_only", "services.*.volumes.[].source",
	"services.*.volumes.[].target", "services.*.volumes.[].type",

	"networks.*.attachable", "networks.*.driver", "networks.*.driver_opts", "networks.*.external",
	"networks.*.internal", "networks.*.labels", "networks.*.name",
	"networks.*.ipam", "networks.*.ipam.config", "networks.*.ipam.config.[].gateway", "networks.*.ipam.config.[].subnet",
	"networks.*.ipam.config.[].aux_addresses", "networks.*.ipam.config.[].ip_range", "networks.*.enable_ipv4", "networks.*.enable_ipv6",
)

// opaque are the done keys whose content is the user's own: any key may stand
// below them.
var opaque = set(
	"include", "services.*.command", "services.*.entrypoint", "services.*.environment", "services.*.env_file",
	"services.*.labels", "services.*.profiles", "services.*.extends", "services.*.healthcheck.test",
	"services.*.networks.*.aliases", "networks.*.labels", "networks.*.driver_opts", "networks.*.external",
	"networks.*.ipam.config.[].aux_addresses",
	"services.*.deploy.placement.constraints",
	"services.*.deploy.resources.reservations.devices.[].capabilities", "services.*.deploy.resources.reservations.devices.[].device_ids",
	"services.*.deploy.resources.reservations.devices.[].options",
	"services.*.gpus.[].capabilities", "services.*.gpus.[].device_ids", "services.*.gpus.[].options",
)

func set(keys ...string) map[string]bool {
	m := map[string]bool{}
	for _, k := range keys {
		m[k] = true
	}
	return m
}

// refused says what to do in the place of each key of the specification that
// is not carried out yet. What stands below such a key is refused with it.
var refused = func() map[string]string {
	m := map[string]string{
		"volumes": "bind a path of the host, as in /var/lib/data:/data: volumes of the fleet come later",
		"secrets": "use environment: or mount a file of the host: secrets come later",
		"configs": "put the file into the image, or mount a file of the host: configs come later",
		"models":  "leave it out",
		"jobs":    "make it a service with restart: no: jobs come later",

		"services.*.container_name":         "leave it out: replicas are called APPLICATION-SERVICE-NUMBER, and the service's name resolves in DNS",
		"services.*.hostname":               "leave it out: the service's name resolves in DNS; for more names use aliases under networks",
		"services.*.domainname":             "leave it out: the service's name resolves in DNS",
		"services.*.build":                  "build the image, push it, and name it with image:",
		"services.*.links":                  "leave it out: the service's name resolves in DNS; for another name use aliases under networks, for the order depends_on",
		"services.*.external_links":         "join the other application's network with external: true",
		"services.*.network_mode":           "leave it out, or name networks: a container joins networks of the fleet",
		"services.*.expose":                 "leave it out: every port is open to the containers of the same network",
		"services.*.secrets":                "use environment: or mount a file of the host: secrets come later",
		"services.*.configs":                "put the file into the image, or mount a file of the host: configs come later",
		"services.*.tmpfs":                  "leave it out: tmpfs comes later",
		"services.*.volumes_from":           "bind the same path of the host in both services",
		"services.*.label_file":             "write the labels under labels:",
		"services.*.logging":                "leave it out: docker clocker logs shows what containers write",
		"services.*.privileged":             "leave it out: containers run without privileges",
		"services.*.use_api_socket":         "leave it out",
		"services.*.pull_policy":            "leave it out: an image is pulled where it is missing",
		"services.*.develop":                "leave it out: it is for docker compose watch",
		"services.*.attach":                 "leave it out: it is for docker compose up",
		"services.*.dns":                    "write x-clocker: {dns: [...]} under the network: containers ask the fleet's DNS, and that asks those servers",
		"services.*.dns_search":             "write x-clocker: {dns_search: [...]} under the network",
		"services.*.mac_address":            "write mac_address under the service's network",
		"services.*.extra_hosts":            "leave it out: the names of services resolve in DNS",
		"services.*.stdin_open":             "leave it out: use docker clocker exec",
		"services.*.tty":                    "leave it out: use docker clocker exec",
		"services.*.pre_start":              "put it into the image's entrypoint",
		"services.*.post_start":             "put it into the image's entrypoint",
		"services.*.pre_stop":               "let the program end on its stop signal",
		"services.*.user":                   "set USER in the image",
		"services.*.working_dir":            "set WORKDIR in the image",
		"services.*.stop_signal":            "set STOPSIGNAL in the image",
		"services.*.deploy.labels":          "write them under the service's labels:",
		"services.*.deploy.rollback_config": "leave it out: a deploy that fails is taken back as a whole",

		"services.*.deploy.update_config.delay":             "leave it out: the next replica moves when the one before is up",
		"services.*.deploy.update_config.monitor":           "leave it out: write a healthcheck: and deploy with --wait",
		"services.*.deploy.update_config.max_failure_ratio": "leave it out: a deploy is taken back when any replica of it fails",

		"services.*.deploy.restart_policy": "use the service's restart:, such as restart: on-failure:3",

		"services.*.depends_on.*.restart": "leave it out: restart both with docker clocker restart",

		"services.*.networks.*.use_service_name_alias": "leave it out: the service's name always resolves",
		"services.*.ports.[].name":                     "leave it out",
		"services.*.ports.[].app_protocol":             "leave it out",
		"services.*.volumes.[].tmpfs":                  "bind a path of the host: type: bind",
		"services.*.volumes.[].volume":                 "bind a path of the host: type: bind",
		"services.*.volumes.[].image":                  "bind a path of the host: type: bind",

		"networks.*.ipam.driver":  "leave it out: the fleet gives addresses",
		"networks.*.ipam.options": "leave it out: the fleet gives addresses",
	}
	const other = "leave it out: it comes later"
	for prefix, keys := range map[string]string{
		"services.*.": "annotations blkio_config cap_add cap_drop cgroup cgroup_parent cpu_count cpu_percent cpu_period " +
			"cpu_quota cpu_rt_period cpu_rt_runtime credential_spec device_cgroup_rules " +
			"dns_opt group_add init ipc isolation mem_swappiness " +
			"models oom_kill_disable oom_score_adj pid provider pull_refresh_after " +
			"read_only runtime security_opt shm_size storage_opt sysctls ulimits umask userns_mode uts",
		"services.*.networks.*.":      "driver_opts interface_name link_local_ips",
		"services.*.volumes.[].":      "consistency",
		"services.*.volumes.[].bind.": "propagation recursive selinux",
	} {
		for _, k := range strings.Fields(keys) {
			m[prefix+k] = other
		}
	}
	return m
}()

// siblings are the keys that may stand in the map at a path.
func siblings(parent string) []string {
	var out []string
	prefix := parent + "."
	if parent == "" {
		prefix = ""
	}
	for _, m := range []map[string]bool{done, refusedSet} {
		for k := range m {
			rest, ok := strings.CutPrefix(k, prefix)
			if ok && rest != "" && rest != "*" && !strings.Contains(rest, ".") {
				out = append(out, rest)
			}
		}
	}
	slices.Sort(out)
	return out
}

var refusedSet = func() map[string]bool {
	m := map[string]bool{}
	for k := range refused {
		m[k] = true
	}
	return m
}()
