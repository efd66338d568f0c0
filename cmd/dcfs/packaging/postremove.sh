#!/bin/sh
# A purge takes away what dcfs wrote for itself. Releases, an origin's store and
# keys are somebody's data: they stay, and are named.
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
[ "$1" = purge ] || exit 0
for state in /var/lib/dcfs /var/lib/dcfs-origin; do
	rm -rf $state/receipts $state/metainfo $state/links $state/log
	rmdir $state/origin $state/releases $state 2>/dev/null || true
done
rmdir /run/dcfs /etc/dcfs/mounts /etc/dcfs/trusted.d /etc/dcfs 2>/dev/null || true
for dir in /var/lib/dcfs /var/lib/dcfs-origin /etc/dcfs; do
	[ ! -e "$dir" ] || echo "dcfs: $dir holds data and is left" >&2
done
