package testbed

// recipe says what an image is made of. It is data only, so that its printed
// form is part of the key the result is cached under.
type recipe struct {
	Names   []string // repository:tag, as the registry has it
	Paths   []string // from the tools tree; programs bring their libraries
	Shell   bool     // with busybox and its applets
	Program string   // directory of examples/images, built as /NAME
	Files   []textFile
	Dirs    []string // made with mode 1777

	Entrypoint, Cmd, Volumes, Ports []string
	WorkingDir, StopSignal          string
}

type textFile struct {
	Path, Text string
	Mode       int64
}

const redisEntrypoint = `#!/bin/sh
# As the official image: options alone are redis-server's.
case "${1:-}" in
"" | -*) set -- redis-server "$@" ;;
*.conf) set -- redis-server "$@" ;;
esac
[ "$1" = redis-server ] || exec "$@"
shift
case "${1:-}" in
*.conf) exec redis-server "$@" ;;
esac
exec redis-server --protected-mode no --bind '*' '-::*' "$@"
`

const nginxConfig = `worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 512; }
http {
	include /etc/nginx/mime.types;
	default_type application/octet-stream;
	access_log /dev/stdout;
	sendfile on;
	include /etc/nginx/conf.d/*.conf;
}
`

const nginxSite = `server {
	listen 80;
	root /usr/share/nginx/html;
	index index.html;
}
`

const nginxPage = `<!doctype html>
<html><head><title>Welcome to nginx!</title></head>
<body><h1>Welcome to nginx!</h1></body></html>
`

// recipes are the images every testbed's registry has. Official images are
// under library/, which is how an engine asks a mirror for them.
var recipes = []recipe{
	{
		Names: []string{"library/busybox:latest", "library/busybox:1"},
		Shell: true,
		Cmd:   []string{"sh"},
	},
	{
		Names:      []string{"library/redis:3", "library/redis:latest", "library/redis:7"},
		Paths:      []string{"/usr/bin/redis-server", "/usr/bin/redis-cli"},
		Shell:      true,
		Files:      []textFile{{"/usr/local/bin/docker-entrypoint.sh", redisEntrypoint, 0o755}},
		Dirs:       []string{"/data"},
		Entrypoint: []string{"docker-entrypoint.sh"},
		Cmd:        []string{"redis-server"},
		Volumes:    []string{"/data"},
		Ports:      []string{"6379/tcp"},
		WorkingDir: "/data",
	},
	{
		Names: []string{"library/nginx:latest", "library/nginx:1"},
		Paths: []string{"/usr/sbin/nginx", "/etc/nginx/mime.types"},
		Shell: true,
		Files: []textFile{
			{"/etc/nginx/nginx.conf", nginxConfig, 0o644},
			{"/etc/nginx/conf.d/default.conf", nginxSite, 0o644},
			{"/usr/share/nginx/html/index.html", nginxPage, 0o644},
		},
		Dirs:       []string{"/var/lib/nginx", "/var/log/nginx"},
		Cmd:        []string{"nginx", "-g", "daemon off;"},
		Ports:      []string{"80/tcp"},
		StopSignal: "SIGQUIT",
	},
	{
		Names:      []string{"amouat/dnmonster:1.0", "amouat/dnmonster:latest"},
		Program:    "dnmonster",
		Entrypoint: []string{"/dnmonster"},
		Ports:      []string{"8080/tcp"},
	},
	{
		Names:      []string{"amouat/identidock:1.0", "amouat/identidock:latest"},
		Program:    "identidock",
		Entrypoint: []string{"/identidock"},
		Ports:      []string{"9090/tcp"},
	},
	{
		Names:      []string{"test/web:1", "test/web:latest"}, // clocker.io/test/web:1
		Program:    "web",
		Entrypoint: []string{"/web"},
		Ports:      []string{"80/tcp"},
	},
	{
		Names:      []string{"test/netbench:1", "test/netbench:latest"}, // clocker.io/test/netbench:1
		Program:    "netbench",
		Entrypoint: []string{"/netbench"},
		Cmd:        []string{"serve"},
	},
}
