#!/bin/sh
# Makes user and directories. It starts nothing: most hosts are no origin.
set -e
if command -v systemd-sysusers >/dev/null; then systemd-sysusers dcfs.conf; fi
if command -v systemd-tmpfiles >/dev/null; then systemd-tmpfiles --create dcfs.conf; fi
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
