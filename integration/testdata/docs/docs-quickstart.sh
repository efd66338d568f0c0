# A bare host, in a clone of this repository.
prepare() {
	without_dcfs
	cd "$MODULE"
}
check() {
	[ "$(/srv/current/bin/web)" = "this is version 1" ] || fail "not back"
	[ "$(/releases/web-2/bin/web)" = "this is version 2" ] || fail "the mount of web-2"
}
