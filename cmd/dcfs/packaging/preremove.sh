#!/bin/sh
# Ends what runs, unless another version takes over (deb: upgrade, rpm: 1).
set -e
case "$1" in
upgrade | 1) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl stop dcfs-origin.service 'dcfs-mount@*.service' || true
	systemctl -q --no-reload disable dcfs-origin.service dcfs-mount@.service || true # all of its instances
fi
