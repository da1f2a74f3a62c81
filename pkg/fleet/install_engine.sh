# Installs a Docker Engine and starts it. What does it runs apart from the
# connection that asked for it, so that a connection that breaks leaves no
# package half unpacked; another run waits for it. The machine remembers in
# /var/lib/clocker-engine that the engine is being installed by us: only then
# is one that does not run started.
export LC_ALL=C DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin:/sbin"
state=/var/lib/clocker-engine
log=/var/log/clocker-engine.log
mkdir -p "$state" || exit 1
cat >"$state/key.$$" || exit 1
cat >"$state/run.$$" <<'CLOCKER_END_OF_RUN'
say() { echo "clocker: $*"; }
die() { echo "$*"; exit 1; }

# Runs a command until no other apt or dpkg is at work.
patiently() {
	waited=0
	while :; do
		{ "$@" </dev/null 2>&1 9>&-; echo $? >"$state/code"; } | tee "$state/out"
		code=$(cat "$state/code")
		test "$code" = 0 && return 0
		grep -qiE 'could not get lock|is locked by another process|unable to lock|unable to acquire the dpkg' "$state/out" || return "$code"
		test "$waited" -ge 600 && die "another apt or dpkg has been at work for 10 minutes: see what it does, then add the host again"
		test "$waited" = 0 && say "waiting for another apt or dpkg to end"
		sleep 2
		waited=$((waited + 2))
	done
}

get() { patiently apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=60 -o Acquire::Retries=3 -o Dpkg::Options::=--force-confold "$@"; }

candidate() { apt-cache policy "$1" 2>/dev/null | grep -q '^  Candidate: [^(]'; }

answers() {
	test -S /var/run/docker.sock || return 1
	for pid in $(cat /var/run/docker.pid 2>/dev/null); do kill -0 "$pid" 2>/dev/null && return 0; done
	return 1
}

# Whoever asked may be gone: this cleans up after itself. finished
# says that nothing must be remembered.
finished=no
cleanup() {
	rm -f "$key" "$0" "$state/out" "$state/code"
	test "$finished" = no || rm -rf "$state"
}
trap cleanup EXIT

# Lets the user who asked use the engine that was installed for them.
admit() {
	test -n "$user" || return 0
	if id -nG "$user" | tr ' ' '\n' | grep -qx docker; then return 0; fi
	usermod -aG docker "$user" || die "user $user does not become a member of the group docker"
	say "user $user is a member of the group docker"
}

exec 9>"$state/lock"
flock -n 9 || { say "waiting for an installation that is under way"; flock -w 1800 9 || die "an installation is under way and does not end: see $log"; }
if answers; then
	say "an engine runs already"
	if test -e "$state/started"; then admit; fi
	finished=yes
	exit 0
fi
if command -v dockerd >/dev/null 2>&1 && ! test -e "$state/started"; then
	die "a Docker Engine is installed and does not run: start it (systemctl start docker)"
fi
: >"$state/started"
if dpkg --audit 2>/dev/null | grep -q .; then
	say "finishing what an interrupted dpkg left"
	patiently dpkg --configure -a || die "dpkg --configure -a does not succeed: put that right there"
fi
if test -n "$repository"; then
	options="$repository"
	if test -s "$key"; then
		mkdir -p /etc/apt/keyrings
		if grep -q 'BEGIN PGP' "$key"; then file=/etc/apt/keyrings/clocker-docker.asc; else file=/etc/apt/keyrings/clocker-docker.gpg; fi
		install -m 0644 "$key" "$file"
		case $repository in
		*signed-by=*) ;;
		"deb ["*) options="deb [signed-by=$file ${repository#deb [}" ;;
		*) options="deb [signed-by=$file] ${repository#deb }" ;;
		esac
	fi
	echo "$options" >/etc/apt/sources.list.d/clocker-docker.list
fi
say "fetching the lists of packages"
get update || die "apt-get update does not succeed: can the machine reach its package sources?"
packages=docker.io
if test -n "$repository" && candidate docker-ce; then packages="docker-ce docker-ce-cli containerd.io"; fi
for p in $packages; do
	candidate "$p" || die "no package source of the machine has $p: give a repository with --install-engine=REPOSITORY"
done
say "installing $packages"
get --no-install-recommends install $packages iptables || die "apt-get install does not succeed"
if test -d /run/systemd/system; then
	systemctl is-active --quiet docker || { say "starting the engine"; systemctl enable --now docker </dev/null; }
elif ! answers; then
	say "starting the engine"
	service docker start </dev/null 9>&- || die "service docker start does not succeed"
fi
waited=0
until answers; do
	test "$waited" -ge 60 && die "the engine is installed and does not start: look at its log (journalctl -u docker, or /var/log/docker.log)"
	sleep 1
	waited=$((waited + 1))
done
admit
finished=yes
CLOCKER_END_OF_RUN
: >"$log"
state=$state log=$log key="$state/key.$$" repository=$repository user=$user setsid sh "$state/run.$$" >>"$log" 2>&1 </dev/null &
run=$!
tail -n +1 -f -s 0.2 --pid="$run" "$log"
wait "$run"
