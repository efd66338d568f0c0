# What every page of docs/ finds on the machine on which its commands run: see
# TestDocs. A person has a terminal for what stays in the foreground, or goes on
# when it is ready; here that is a function.
set -euo pipefail
shopt -s inherit_errexit

until_ok() { # seconds, command…
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || { echo "in vain: $*"; return 1; }
		sleep 0.1
	done
}

fail() { echo "FAIL: $*"; exit 1; }

dcfs() {
	case " $* " in
	*" --help "* | *" --detach-after "*) command dcfs "$@" ;;
	*" --watch "*) timeout 2 dcfs "$@" || [ $? = 124 ] ;;
	" origin "*) foreground origin "$@" && until_ok 20 curl -fs http://origin:7070/healthz ;;
	" mount "* | " fetch "*) foreground mount "$@" && lingers ;;
	*) command dcfs "$@" ;;
	esac
}

# foreground runs a command that stays; another of its kind gives way.
declare -A running=()
foreground() { # kind, arguments…
	local kind=$1
	shift
	if [ "$kind" = origin ] && [ -n "${running[origin]-}" ]; then
		kill "${running[origin]}" && wait "${running[origin]}" || true
	fi
	command dcfs "$@" &
	running[$kind]=$!
}

# lingers waits until what was started has all it came for, or has ended.
lingers() {
	local pid=${running[mount]} state
	while kill -0 "$pid" 2>/dev/null; do
		state=$(command dcfs status --json 2>/dev/null | jq -r ".processes[] | select(.pid == $pid) | .state" || true)
		case $state in lingering | done) return ;; esac
		sleep 0.1
	done
	wait "$pid"
}

# sample makes a small application in a directory.
sample() { # directory, version
	mkdir -p "$1"/{bin,lib}
	printf '#!/bin/sh\necho this is web %s\n' "$2" >"$1/bin/web"
	chmod 0755 "$1/bin/web"
	head -c 700000 /dev/zero | openssl enc -aes-128-ctr -nosalt -k "lib" 2>/dev/null >"$1/lib/same"
	head -c 300000 /dev/zero | openssl enc -aes-128-ctr -nosalt -k "$2" 2>/dev/null >"$1/lib/own"
	ln -sfn lib/same "$1/link"
}

# published starts an origin that has web-1, with ./build, the keys and the token
# in the working directory.
published() {
	command dcfs key generate release
	mkdir -p /etc/dcfs/trusted.d && cp release.pub /etc/dcfs/trusted.d/
	echo let-me-publish >token
	dcfs origin --publish-token-file token
	sample build 1
	command dcfs publish ./build --as web-1 --key release.key --origin http://origin:7070 --publish-token-file token
}

# There is a dcfs on the machine, unless the page installs it.
without_dcfs() { rm /usr/bin/dcfs; }
install -m 0755 /machine/bin/dcfs /usr/bin/dcfs

prepare() { :; } # before the page's first command
check() { :; }   # after its last
