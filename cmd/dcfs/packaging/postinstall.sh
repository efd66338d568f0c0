#!/bin/sh
# Makes user and directories. It starts nothing: most hosts are no origin. After
# an upgrade what runs goes on with the new program: mounts stay, with everything
# that uses them, and hosts wait for an origin that is away for a moment.
set -e
if command -v systemd-sysusers >/dev/null; then systemd-sysusers dcfs.conf; fi
if command -v systemd-tmpfiles >/dev/null; then systemd-tmpfiles --create dcfs.conf; fi
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
case "$1:${2-}" in
configure:?* | 2:*) # deb: the version before; rpm: how many versions are here
	systemctl reload 'dcfs-mount@*.service' || true
	systemctl try-restart dcfs-origin.service || true
	;;
esac
