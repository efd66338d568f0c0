# Two hosts, by a real ssh, which are this machine; they use web-1, and say that
# they are well.
prepare() {
	published
	command dcfs fetch web-1 /srv/releases/web-1 --origin http://origin:7070 --activate /srv/current --linger 0s
	sample build 2
	mkdir -p /run/sshd /root/.ssh
	ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
	ssh-keygen -q -t ed25519 -N '' -f /root/host_key
	cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys
	chmod 0700 /root/.ssh
	printf '%s\n' 'HostKey /root/host_key' 'UsePAM no' 'StrictModes no' 'PermitRootLogin yes' 'PidFile none' >/root/sshd_config
	/usr/sbin/sshd -f /root/sshd_config
	printf 'Host *\nStrictHostKeyChecking no\nLogLevel ERROR\n' >/root/.ssh/config
	echo 'web1   # the only one' >hosts.txt
	mkdir /root/www && echo ok >/root/www/healthz
	python3 -m http.server 8080 --bind 127.0.0.1 --directory /root/www 2>/dev/null &
	until_ok 10 curl -fs http://localhost:8080/healthz
}
check() {
	[ "$(/srv/current/bin/web)" = "this is web 2" ] || fail "the link leads to $(readlink /srv/current)"
}
