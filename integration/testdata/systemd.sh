#!/bin/bash
# A systemd of its own: process 1 of new namespaces (processes, mounts, cgroups,
# host name), with one unit. Called by TestUnderSystemd as root; SIGTERM ends it.
#
#   systemd.sh WORK UNIT-FILE UNIT-NAME
set -euo pipefail
work=$1 file=$2 name=$3

mkdir "$work/cgroup"
mount -t cgroup2 cgroup2 "$work/cgroup"
own=$work/cgroup/dcfs-test-$$
mkdir "$own"
tidy() {
	kill -KILL "$init" 2>/dev/null || true
	wait "$init" 2>/dev/null || true
	echo $$ >"$work/cgroup/cgroup.procs"
	until find "$own" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.1; done
	umount "$work/cgroup"
}
trap exit TERM
trap tidy EXIT
echo $$ >"$own/cgroup.procs"
unshare --mount --pid --fork --kill-child --cgroup --uts --propagation private bash -euc '
	mount -t proc proc /proc
	mount -t tmpfs tmpfs /run
	umount -R /sys/fs/cgroup 2>/dev/null || true
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	mount -t tmpfs tmpfs /etc/systemd/system
	cp "$1" "/etc/systemd/system/$2"
	printf "[Unit]\nDefaultDependencies=no\n" >/etc/systemd/system/nothing.target
	container=dcfs exec /usr/lib/systemd/systemd --system --unit=nothing.target --log-target=console --log-level=info
' boot "$file" "$name" &
init=$!
wait "$init"
