#!/bin/bash
# A machine to try things on as root: this one's system under an overlay, in
# namespaces of its own (mounts, processes, network, host name), so that nothing
# of what is done there stays. It is called origin, and has a loopback only.
#
#   machine.sh DIR INIT PROGRAM [ARG…]
#
# DIR is a directory that is /machine inside, where a directory DIR/module has the
# files of this module, for which the same holds; DIR.work and DIR.cgroup beside it are
# used and removed. INIT is bash: PROGRAM alone runs; or systemd: that is process 1,
# and PROGRAM runs as a service. The output is PROGRAM's, the exit code, too.
set -euo pipefail

if [ "${1-}" != --inside ]; then
	dir=$1 work=$1.work init=$2
	own= kid=
	mkdir "$work"
	tidy() {
		[ -z "$kid" ] || kill -KILL "$kid" 2>/dev/null || true
		wait 2>/dev/null || true
		rmdir "$work"
		[ -n "$own" ] || return 0
		echo $$ >"$dir.cgroup/cgroup.procs"
		until find "$own" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.05; done
		umount "$dir.cgroup" && rmdir "$dir.cgroup"
	}
	trap tidy EXIT
	trap 'exit 143' TERM INT
	if [ "$init" = systemd ]; then # which wants a tree of control groups
		mkdir "$dir.cgroup"
		mount -t cgroup2 cgroup2 "$dir.cgroup"
		own=$dir.cgroup/dcfs-machine-$$
		mkdir "$own"
		echo $$ >"$own/cgroup.procs"
		more=--cgroup
	fi
	: >"$dir/out"
	unshare --mount --pid --net --uts --fork --kill-child --propagation private ${more-} bash "$0" --inside "$@" &
	kid=$!
	code=0
	wait "$kid" || code=$?
	kid=
	[ "$init" != systemd ] || cat "$dir/out"
	exit $code
fi
shift
dir=$1 work=$1.work init=$2
shift 2

module=$(cd "$(dirname "$0")/../.." && pwd)
hostname origin
ip link set lo up
mount -t tmpfs tmpfs "$work"
mkdir "$work"/{upper,inner,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/inner" "$work/root"
cd "$work/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
printf '127.0.0.1 localhost origin web1 web2 web3\n' >etc/hosts
mkdir machine
mount --bind "$dir" machine
if [ -d machine/module ]; then
	mkdir "$work"/module-{upper,inner}
	mount -t overlay overlay -o "lowerdir=$module,upperdir=$work/module-upper,workdir=$work/module-inner" machine/module
fi
export HOME=/root
unset ${!DCFS_@}
if [ "$init" != systemd ]; then
	exec chroot . "$@"
fi
mount --rbind /sys sys
umount -R sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 sys/fs/cgroup
# Of this system's own services none starts: some set up the kernel.
rm -rf etc/systemd/system/* {etc,usr/lib}/systemd/system/*.wants
echo origin >etc/hostname
cat >etc/systemd/system/machine.target <<-'UNIT'
	[Unit]
	Requires=machine.service
	Wants=systemd-journald.service dbus.socket
UNIT
cat >etc/systemd/system/machine.service <<-UNIT
	[Unit]
	SuccessAction=exit
	FailureAction=exit
	[Service]
	Type=oneshot
	Environment=HOME=/root
	WorkingDirectory=/root
	StandardOutput=file:/machine/out
	StandardError=inherit
	ExecStart=$(printf '"%s" ' "$@")
UNIT
pivot_root . mnt && umount -l /mnt
container=dcfs exec /usr/lib/systemd/systemd --system --unit=machine.target --log-target=console --log-level=warning
