#!/bin/bash
# The life of the .deb on a host: install, run, purge. Called by TestPackage as
# root in namespaces of its own (mounts, processes, network), which end with it.
# The host is this machine's system under an overlay, so nothing of it changes.
set -euo pipefail
deb=$1 work=$2

mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/inner" "$work/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/inner" "$work/root"
root=$work/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for dir in run tmp; do mount -t tmpfs tmpfs "$root/$dir"; done
ip link set lo up
cp "$deb" "$root/tmp/dcfs.deb"

on() { chroot "$root" "$@"; }
fail() { echo "FAIL: $*"; exit 1; }
until_ok() { # seconds, command…
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || fail "in vain: $*"
		sleep 0.1
	done
}

echo "== install"
on dpkg -i /tmp/dcfs.deb
on dcfs --version
on getent passwd dcfs || fail "no user dcfs"
[ "$(on stat -c %a:%U /run/dcfs /var/lib/dcfs | sort -u)" = 755:root ] || fail "directories of tmpfiles.d"
on dpkg --verify dcfs
grep -q why <<<"$(zcat "$root/usr/share/man/man8/dcfs.8.gz")" || fail "manual page"
on bash -n /usr/share/bash-completion/completions/dcfs

echo "== units"
if on sh -c 'command -v systemd-analyze' >/dev/null; then
	said=$(on systemd-analyze verify --man=no /lib/systemd/system/dcfs-origin.service '/lib/systemd/system/dcfs-mount@.service' 2>&1 || true)
	[ -z "$(grep -F dcfs <<<"$said" || true)" ] || fail "systemd-analyze verify: $said"
	# Exposure in tenths; a mount that others see cannot have a namespace of its own.
	on systemd-analyze security --no-pager --offline=true --threshold=20 dcfs-origin.service | tail -n 1
	on systemd-analyze security --no-pager --offline=true --threshold=60 dcfs-mount@x.service | tail -n 1
else
	echo "systemd is not installed: units are not verified"
fi

echo "== origin"
install -d -o "$(on id -u dcfs)" -g "$(on id -g dcfs)" "$root/var/lib/dcfs-origin" # StateDirectory=
start=$(sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/dcfs-origin.service")
echo token >"$root/etc/dcfs/publish.token"
DCFS_STATE=/var/lib/dcfs-origin DCFS_LISTEN=127.0.0.1:7070 DCFS_PEER_LISTEN=127.0.0.1:7071 DCFS_PUBLISH_TOKEN_FILE=/etc/dcfs/publish.token \
	chroot "$root" setpriv --reuid=dcfs --regid=dcfs --clear-groups --no-new-privs --bounding-set=-all $start >"$work/origin.log" 2>&1 &
origin=$!
until_ok 20 on dcfs ls --origin http://127.0.0.1:7070
mkdir -p "$root/root/tree/bin"
echo hello >"$root/root/tree/file"
install -m 4755 /bin/true "$root/root/tree/bin/true"
chown 12:34 "$root/root/tree/file"
on dcfs key generate /root/release
cp "$root/root/release.pub" "$root/etc/dcfs/trusted.d/"
on dcfs publish /root/tree --as web-1 --key /root/release.key --origin http://127.0.0.1:7070 --publish-token-file /etc/dcfs/publish.token

echo "== mount"
unit="$root/lib/systemd/system/dcfs-mount@.service"
caps=$(sed -n 's/^CapabilityBoundingSet=//p' "$unit" | tr 'A-Z ' 'a-z,' | sed 's/cap_//g; s/,/,+/g')
cat >"$root/etc/dcfs/mounts/web.conf" <<-'CONF'
	RELEASE=web-1
	MOUNTPOINT=/mnt/web
	DCFS_ORIGIN=http://127.0.0.1:7070
	DCFS_DEST=/srv/web-1
	DCFS_AT_END=unmount
	DCFS_LINGER=10m
CONF
mkdir -p "$root/mnt/web"
command=$(sed -n 's/^ExecStart=//p' "$unit")
chroot "$root" setpriv --no-new-privs --bounding-set="-all,+$caps" \
	sh -c "set -a; . /etc/dcfs/mounts/web.conf; exec $command" >"$work/mount.log" 2>&1 &
mounted=$!
until_ok 20 test -e "$root/srv/web-1"
for dir in mnt/web srv/web-1; do
	[ "$(cat "$root/$dir/file")" = hello ] || fail "$dir: content"
	[ "$(stat -c %u:%g "$root/$dir/file")" = 12:34 ] || fail "$dir: owner"
	[ "$(stat -c %a "$root/$dir/bin/true")" = 4755 ] || fail "$dir: mode"
done
kill $mounted
wait $mounted || fail "the mount's process ended with $?: $(cat "$work/mount.log")"
kill $origin
wait $origin || fail "the origin ended with $?: $(cat "$work/origin.log")"

echo "== purge"
on dpkg -r dcfs
[ -e "$root/etc/dcfs/dcfs.yaml" ] || fail "the configuration went with the program"
on dpkg --purge dcfs
[ -e "$root/srv/web-1/file" ] || fail "the purge took a release"
[ -e "$root/var/lib/dcfs-origin/origin/web-1" ] || fail "the purge took an origin's store"
[ -e "$root/etc/dcfs/trusted.d/release.pub" ] || fail "the purge took a key"
rm -rf "$root/var/lib/dcfs" "$root/var/lib/dcfs-origin" "$root/etc/dcfs" "$root/srv/web-1" # what is somebody's data
on userdel dcfs
left=$(find "$work/upper" -name '*dcfs*' ! -type c)
[ -z "$left" ] || fail "left behind: $left"
echo "== done"
