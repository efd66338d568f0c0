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
		command -v transmission-cli|transmission-cli|interoperability
		command -v opentracker|libowfat0 opentracker|interoperability
		command -v nginx|nginx|interoperability
		command -v udp-sender|udpcast|make bench-swarm
		command -v setfattr|attr|extended attributes
		command -v setcap|libcap2-bin|file capabilities
		command -v mtree|mtree-netbsd|comparing trees
		command -v setfacl|acl|access control lists
		command -v mkfs.xfs|xfsprogs|filesystems with reflinks
		command -v mkfs.btrfs|btrfs-progs|filesystems with reflinks
		command -v nft|nftables|ports that a firewall closes
		command -v dnsmasq|dnsmasq-base|origins by DNS
		command -v chromium|chromium fonts-dejavu-core|the status page
		command -v sshd|openssh-server|deploy by a real ssh
		command -v promtool && command -v prometheus|prometheus|metrics, alert rules, dashboard
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

# Of these packages only programs are wanted: they would start a service.
program() {
	case $1 in
	prometheus) echo usr/bin/promtool usr/bin/prometheus ;;
	opentracker) echo usr/bin/opentracker ;;
	nginx) echo usr/sbin/nginx ;;
	esac
}

program_only() {
	local dir
	dir=$(mktemp -d)
	chmod 0755 "$dir"
	(cd "$dir" && timeout 120 "${apt[@]}" download "$1" && dpkg-deb -x "$1"_*.deb . &&
		# shellcheck disable=SC2046 # one word for each program
		install -m 0755 $(program "$1") /usr/local/bin/)
	rm -rf "$dir"
}

install_all() {
	local package whole=()
	for package in "$@"; do
		[ -n "$(program "$package")" ] || whole+=("$package")
	done
	timeout 120 "${apt[@]}" update || return 1
	[ ${#whole[@]} = 0 ] || timeout 300 "${apt[@]}" install -y --no-install-recommends "${whole[@]}" || return 1
	for package in "$@"; do
		[ -z "$(program "$package")" ] || program_only "$package" || return 1
	done
}

packages=$(missing)
if [ -n "$packages" ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "deps: installing $packages"
		export DEBIAN_FRONTEND=noninteractive
		apt=(apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120)
		log=$(mktemp)
		# shellcheck disable=SC2086 # one word for each package
		if ! install_all $packages </dev/null >"$log" 2>&1; then
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
