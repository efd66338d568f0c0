# web-1 in use, web-2 published; mounts whose work is done end at once.
export DCFS_LINGER=0s
prepare() {
	published
	export DCFS_ORIGIN=http://origin:7070
	sample build 2
	command dcfs publish ./build --as web-2 --key release.key --origin http://origin:7070 --publish-token-file token
	mkdir -p /releases/web-{1,2}
	DCFS_LINGER=10m command dcfs mount web-1 /releases/web-1 --dest /srv/releases/web-1 --activate /srv/current --detach-after materialised
}
lingers() { wait "${running[mount]}"; }
check() {
	[ "$(/srv/current/bin/web)" = "this is web 1" ] || fail "the copy of web-1"
	[ "$(/releases/web-2/bin/web)" = "this is web 2" ] || fail "the mount of web-2"
}
# By the time that somebody has such a mountpoint, its process has long ended.
umount() {
	command dcfs status --json | jq '.processes[].pid' | xargs -r kill
	until_ok 20 sh -c '[ "$(dcfs status --json | jq ".processes | length")" = 0 ]'
	command umount "$@"
}
