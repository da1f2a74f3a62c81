package blueprint

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// What to do in the place of a type that is not built yet.
const (
	remedyFleet   = "make a fleet with docker clocker init and docker clocker host add"
	remedyNetwork = "leave it out: each application has a network of its own; type: brooklyn.networking.VirtualNetwork makes another"
	remedyMesos   = "put the hosts in a fleet, and use type: docker:IMAGE"
	remedyImage   = "use type: docker:IMAGE"
	remedyCluster = "use type: docker:IMAGE; clusters come later"
)

// knownTypes maps the types of the old dialect, by simple class name or
// catalog id, to what to do instead (spec/clocker.md §1.4, §4.1, §6.5 to
// §6.9, §8).
var knownTypes = func() map[string]string {
	m := map[string]string{}
	add := func(remedy string, names ...string) {
		for _, n := range names {
			m[n] = remedy
		}
	}
	use := func(image string, port int) string {
		return fmt.Sprintf("use type: docker:%s with openPorts: %d", image, port)
	}
	add(use("redis:VERSION", 6379), "RedisStore")
	add(use("redis:VERSION", 6379)+"; clusters come later", "RedisCluster", "RedisSlave", "RedisShard")
	add(use("mysql:VERSION", 3306), "MySqlNode")
	add(use("mariadb:VERSION", 3306), "MariaDbNode")
	add(use("postgres:VERSION", 5432), "PostgreSqlNode")
	add(use("tomcat:VERSION", 8080), "Tomcat8Server", "Tomcat7Server", "TomcatServer")
	add(use("jboss/wildfly:VERSION", 8080), "JBoss7Server", "JBoss6Server")
	add(use("jetty:VERSION", 8080), "Jetty6Server")
	add(use("node:VERSION", 3000), "NodeJsWebAppService")
	add(use("nginx:VERSION", 80), "NginxController")
	add(use("haproxy:VERSION", 80), "HAProxyController", "haproxy-controller", "haproxy-load-balancer")
	add(use("couchbase:VERSION", 8091), "CouchbaseCluster", "CouchbaseNode")
	add(remedyImage, "RiakCluster", "RiakNode", "EtcdCluster", "EtcdNode", "EtcdProxy", "SolrServer", "MongoDBServer",
		"MongoDBReplicaSet", "CassandraDatacenter", "CassandraNode", "ElasticSearchNode", "ElasticSearchCluster",
		"RabbitBroker", "KafkaCluster", "ZooKeeperNode", "VanillaSoftwareProcess", "EmptySoftwareProcess",
		"VanillaDockerApplication", "MicroserviceImage", "MicroserviceDockerfile", "BindDnsServer")
	add(remedyCluster, "DynamicCluster", "DynamicFabric", "DynamicWebAppCluster", "ControlledDynamicWebAppCluster",
		"BasicApplication", "BasicEntity", "BasicGroup")
	add(remedyNetwork, "OpenStackVirtualNetwork", "CalicoNetwork", "CalicoNode", "WeaveNetwork",
		"WeaveRouter", "OverlayNetwork", "OverlayPlugin", "SdnProvider", "SdnAgent", "calico-network", "calico-node",
		"weave-network", "weave-router", "overlay-network", "overlay-plugin")
	add(remedyFleet, "DockerInfrastructure", "DockerHost", "DockerContainer", "docker-infrastructure", "docker-host",
		"docker-container", "docker-cloud", "docker-cloud-single", "docker-cloud-calico", "docker-cloud-weave",
		"docker-cloud-overlay", "docker-engine", "docker-engine-tls", "docker-engine-container", "docker-swarm",
		"docker-swarm-cluster", "swarm-node", "swarm-manager", "kubernetes")
	add("use type: docker:registry:2", "DockerRegistry", "docker-registry")
	add(remedyMesos, "MesosCluster", "MesosSlave", "MesosFramework", "MarathonFramework", "MarathonTask", "mesos-cluster",
		"marathon-framework", "external-mesos-cluster")
	return m
}()

// typePrefixes are spellings that Brooklyn strips from a type.
var typePrefixes = []string{"brooklyn:", "java:", "cp:"}

// refuseType says why a type makes no service and what to write instead.
func (r *reader) refuseType(n *yaml.Node, path, typ string, entries []entry) {
	name := typ
	for _, p := range typePrefixes {
		name = strings.TrimPrefix(name, p)
	}
	if image, ok := strings.CutPrefix(name, "marathon:"); ok {
		r.add(n, path, "put the hosts in a fleet, and use type: docker:"+image, "%q: Marathon is known from the old dialect but not built yet", typ)
		return
	}
	simple := name[strings.LastIndexByte(name, '.')+1:]
	id, _, _ := strings.Cut(simple, ":") // a catalog id may have a version
	if remedy, ok := knownTypes[id]; ok {
		r.add(n, path, strings.ReplaceAll(remedy, "VERSION", version(entries)), "type %q is known from the old dialect but not built yet", typ)
		return
	}
	remedy := remedyImage
	if near := model.Nearest(id, keysOf(knownTypes)); near != "" {
		remedy = fmt.Sprintf("did you mean %q? It is not built yet either: %s", near, strings.ReplaceAll(knownTypes[near], "VERSION", "TAG"))
	} else if scheme, rest, ok := strings.Cut(name, ":"); ok && model.Nearest(scheme, []string{"docker"}) != "" {
		remedy = "did you mean docker:" + rest + "?"
	} else if _, err := model.ParseImage(name); err == nil && !strings.Contains(name, "org.") {
		remedy = "an image is written docker:" + name
	}
	r.add(n, path, remedy, "unknown type %q", typ)
}

// version is the version that an entity of the old dialect asks for.
func version(entries []entry) string {
	for _, e := range entries {
		if (e.key == "install.version" || e.key == "version") && e.value != nil && e.value.Kind == yaml.ScalarNode && !document.Null(e.value) {
			return e.value.Value
		}
	}
	return "TAG"
}

// specType refuses the type inside an entitySpec.
func (r *reader) specType(n *yaml.Node, path string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	entries := r.mapping(n, path, 0)
	for _, e := range entries {
		if e.key == "type" && e.value != nil && e.value.Kind == yaml.ScalarNode && !strings.HasPrefix(e.value.Value, "docker:") {
			r.refuseType(e.value, e.path, e.value.Value, entries)
		}
	}
}
