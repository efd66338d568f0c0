#!/bin/sh
# A purge takes away what dcfs wrote for itself. Releases, an origin's store and
# keys are somebody's data: they stay, and are named.
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
[ "$1" = purge ] || exit 0
rm -rf /var/lib/dcfs/receipts /var/lib/dcfs/metainfo /var/lib/dcfs/links /var/lib/dcfs/log
rmdir /run/dcfs /etc/dcfs/mounts /etc/dcfs/trusted.d /etc/dcfs 2>/dev/null || true
rmdir /var/lib/dcfs/origin /var/lib/dcfs/releases /var/lib/dcfs 2>/dev/null || true
for dir in /var/lib/dcfs /etc/dcfs; do
	[ ! -e "$dir" ] || echo "dcfs: $dir holds data and is left" >&2
done
