# A host that has used web-0 before; a short demo.
prepare() {
	cd "$MODULE"
	export DEMO='--nodes 2 --size 8MiB'
	command dcfs key generate /root/old
	install -D -m 0644 /root/old.pub /etc/dcfs/trusted.d/old.pub
	dcfs origin
	sample /root/build 0
	command dcfs publish /root/build --as web-0 --key /root/old.key
	command dcfs fetch web-0 /srv/releases/web-0 --origin http://origin:7070 --activate /srv/current --linger 0s
	sample build 1
}
check() {
	[ "$(readlink /srv/current)" = /srv/releases/web-0 ] || fail "the link leads to $(readlink /srv/current)"
	[ "$(/releases/web-1/bin/web)" = "this is web 1" ] || fail "the mount"
}
