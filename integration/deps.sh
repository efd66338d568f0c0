#!/usr/bin/env bash
# Installs what the tests need and the machine lacks. Only apt is known, only
# root uses it, and only what is missing is installed. What stays missing is
# said aloud; the tests that need it then skip, with the reason, or fail when
# CI=true.
set -euo pipefail

# check|package|what it is for
wants() {
	cat <<-'EOF'
		command -v ip && command -v tc|iproute2|hosts as network namespaces
		command -v nsenter && command -v setpriv|util-linux|hosts as network namespaces
		command -v rsync|rsync|comparing trees
		command -v find|findutils|comparing trees
		command -v git|git|the version in the binary
		command -v gcc && test -e /usr/include/stdlib.h|gcc libc6-dev|the race detector
		command -v minisign|minisign|signatures both ways
		command -v aria2c|aria2|interoperability
		command -v mktorrent|mktorrent|comparing the speed of publish
		/usr/bin/python3 -c 'import libtorrent'|python3-libtorrent|interoperability
		command -v udp-sender|udpcast|make bench-swarm
		command -v setfattr|attr|extended attributes
		command -v setcap|libcap2-bin|file capabilities
		command -v mtree|mtree-netbsd|comparing trees
		command -v setfacl|acl|access control lists
		command -v mkfs.xfs|xfsprogs|filesystems with reflinks
		command -v mkfs.btrfs|btrfs-progs|filesystems with reflinks
		command -v chromium|chromium fonts-dejavu-core|the status page
		command -v sshd|openssh-server|deploy by a real ssh
		command -v promtool|prometheus|metrics, alert rules, dashboard
		command -v rpm && command -v cpio|rpm cpio|the .rpm
		command -v jq && command -v curl && command -v openssl && command -v nft|jq curl openssl nftables|the commands of the pages
		/usr/bin/python3 -c 'import hcl, yaml'|python3-pyhcl python3-yaml|the recipes of docs/plugs.md
		command -v cap|capistrano|the plugin of docs/plugs
		command -v ansible-playbook|ansible-core|the module of docs/plugs
	EOF
}

missing() {
	while IFS='|' read -r check package _; do
		bash -c "$check" </dev/null >/dev/null 2>&1 || printf '%s ' $package
	done < <(wants)
}

# Of Prometheus only promtool is wanted: the package itself starts a service.
promtool_only() {
	local dir
	dir=$(mktemp -d)
	chmod 0755 "$dir"
	(cd "$dir" && timeout 120 "${apt[@]}" download prometheus && dpkg-deb -x prometheus_*.deb . &&
		install -m 0755 usr/bin/promtool /usr/local/bin/promtool)
	rm -rf "$dir"
}

packages=$(missing)
if [ -n "$packages" ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "deps: installing $packages"
		export DEBIAN_FRONTEND=noninteractive
		apt=(apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120)
		log=$(mktemp)
		# shellcheck disable=SC2086 # one word for each package
		if ! { timeout 120 "${apt[@]}" update && timeout 300 "${apt[@]}" install -y --no-install-recommends ${packages//prometheus /} &&
			case $packages in *prometheus*) promtool_only ;; esac; } </dev/null >"$log" 2>&1; then
			echo "deps: apt-get failed:"
			tail -n 5 "$log"
		fi
		rm -f "$log"
	else
		echo "deps: not root, or no apt-get: cannot install $packages"
	fi
fi

while IFS='|' read -r check package purpose; do
	bash -c "$check" </dev/null >/dev/null 2>&1 || echo "deps: MISSING $package ($purpose): what needs it is skipped"
done < <(wants)
[ "$(id -u)" = 0 ] || echo "deps: not root: tests with namespaces and mounts are skipped"
[ -c /dev/fuse ] || echo "deps: no /dev/fuse: tests that mount are skipped"
