# Traces are written when the mount has ended.
export DCFS_ORIGIN=http://origin:7070 DCFS_PUBLISH_TOKEN_FILE=token DCFS_LINGER=0s
prepare() {
	published
	mkdir -p /releases/web-1
	sample build 2
}
lingers() { wait "${running[mount]}"; }
check() {
	[ -s web-1.trace ] || fail "no trace"
	grep -q web-2 <<<"$(command dcfs ls)" || fail "web-2 is not published"
}
