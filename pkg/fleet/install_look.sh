# What must be known of a machine before an engine is installed on it, as lines
# of KEY=VALUE. Nothing is changed.
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
if test -r /etc/os-release; then . /etc/os-release; fi
echo "id=${ID:-}"
echo "like=${ID_LIKE:-}"
echo "codename=${VERSION_CODENAME:-${UBUNTU_CODENAME:-}}"
echo "pretty=${PRETTY_NAME:-}"
echo "identity=$( (uname -n; cat /sys/class/net/*/address) 2>/dev/null | sort -u | cksum)"
echo "machine=$(uname -m)"
echo "kernel=$(uname -s) $(uname -r)"
echo "uid=$(id -u)"
if test "$(id -u)" = 0; then echo sudo=root
elif ! command -v sudo >/dev/null 2>&1; then echo sudo=none
elif sudo -n true >/dev/null 2>&1; then echo sudo=yes
else echo sudo=password; fi
if command -v apt-get >/dev/null 2>&1; then echo apt=yes; else echo apt=no; fi
echo "dockerd=$(command -v dockerd || true)"
if test -e /var/lib/clocker-engine/started; then echo ours=yes; else echo ours=no; fi
echo "free=$(df -Pk /var/lib 2>/dev/null | awk 'NR == 2 { print $4 }')"
echo "memory=$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo 2>/dev/null)"
for p in docker podman-docker; do
	if dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -q '^installed$'; then echo "package=$p"; fi
done
if command -v snap >/dev/null 2>&1 && snap list docker >/dev/null 2>&1; then echo package=snap; fi
