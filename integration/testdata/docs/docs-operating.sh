# A bare host with systemd, the package, and something to publish. The keys are made
# before the package comes, as on a page one reads from the top.
prepare() {
	cp /machine/*.deb .
	sample build 1
}
apt() {
	rm -f /usr/bin/dcfs # it was this test's
	command apt -y "$@"
}
check() {
	[ "$(/releases/web-1/bin/web)" = "this is web 1" ] || fail "the mount"
	[ "$(/srv/web-1/bin/web)" = "this is web 1" ] || fail "the copy"
	dpkg --verify dcfs || fail "the package's files"
}
