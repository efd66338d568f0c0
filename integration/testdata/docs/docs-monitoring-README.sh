# A host that reports.
prepare() {
	published
	sample build 2
	command dcfs publish ./build --as web-2 --key release.key --origin http://origin:7070 --publish-token-file token
	dcfs fetch web-2 /srv/releases/web-2 --origin http://origin:7070
}
check() {
	curl -s 'http://origin:7070/v1/hosts?release=web-2' | jq -e '.hosts | length == 1' >/dev/null || fail "no host is listed"
}
