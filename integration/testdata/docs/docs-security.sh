# An origin with a release and with certificates; those were made by the page's own
# commands, which come further down.
prepare() {
	published
	mkdir -p /etc/dcfs/tls /releases/web-1 && cd /etc/dcfs/tls
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
		-keyout /root/page/first.key -out ca.pem -subj '/CN=first' 2>/dev/null
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj /CN=origin 2>/dev/null |
		openssl x509 -req -CA ca.pem -CAkey /root/page/first.key -CAcreateserial -days 2 -out cert.pem \
			-extfile <(printf 'subjectAltName=DNS:origin\nextendedKeyUsage=serverAuth,clientAuth') 2>/dev/null
	cd /root/page
}

over_tls() { # path
	curl -fs --cacert /etc/dcfs/tls/ca.pem --cert /etc/dcfs/tls/cert.pem --key /etc/dcfs/tls/key.pem "https://origin:7070$1"
}

dcfs() {
	case $1 in
	origin)
		foreground origin "$@" || return
		case "$*" in
		*--peer-tls*) until_ok 20 over_tls /healthz ;;
		*) until_ok 20 curl -fs http://origin:7070/healthz ;;
		esac
		;;
	mount) foreground mount "$@" && lingers ;;
	*) command dcfs "$@" ;;
	esac
}

# There is no other host to copy to.
scp() { cp -r "$2" /root/page/copied; }

check() {
	cmp build/lib/own /releases/web-1/lib/own || fail "the release is not there"
	! curl -fsk https://origin:7070/healthz || fail "served without a certificate"
	openssl verify -CAfile copied/ca.pem copied/cert.pem || fail "the certificate"
}
