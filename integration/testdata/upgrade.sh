#!/bin/bash
# The packages under a real systemd, on a machine of its own (machine.sh): an
# in-place copy by the unit, an upgrade of the .deb under use, and the life of the
# .rpm. Called by TestPackagesUnderSystemd with the two files in /machine.
set -euo pipefail
fail() {
	echo "FAIL: $*"
	systemctl --no-pager status dcfs-origin 'dcfs-mount@*' || true
	exit 1
}
until_ok() { # seconds, command…
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || fail "in vain: $*"
		sleep 0.1
	done
}
state() { dcfs status --json | jq -er ".processes[] | select(.version == \"$1\") | .state"; }
is() { [ "$(state "$1")" = "$2" ]; }
main() { systemctl show --value -p MainPID "$1"; }
child() { pgrep -P "$(main "$1")"; }
serves() { [ "$(readlink "/proc/$(child "$1")/exe")" = /usr/bin/dcfs ]; } # and not "… (deleted)"

echo "== the older .deb"
dpkg-deb -R /machine/*.deb /tmp/old
sed -i 's/^Version: .*/Version: 0.0.0~aaa/' /tmp/old/DEBIAN/control
dpkg-deb -b -Znone /tmp/old /tmp/old.deb >/dev/null
dpkg -i /tmp/old.deb

echo "== origin, and two releases"
echo token >/etc/dcfs/publish.token
echo DCFS_PUBLISH_TOKEN_FILE=/etc/dcfs/publish.token >/etc/default/dcfs-origin
systemctl start dcfs-origin
dcfs key generate release
cp release.pub /etc/dcfs/trusted.d/
mkdir -p build/bin
echo one >build/file
head -c 3000000 /dev/urandom >build/big
cp /bin/sleep build/bin/
for v in web-1 web-2; do
	echo $v >build/name
	dcfs publish ./build --as $v --key release.key --origin http://origin:7070 --publish-token-file /etc/dcfs/publish.token
done

echo "== in place: the copy takes the mountpoint's place"
printf '%s\n' RELEASE=web-1 MOUNTPOINT=/srv/web DCFS_ORIGIN=http://origin:7070 DCFS_DEST=/srv/web DCFS_LINGER=0s >/etc/dcfs/mounts/web.conf
mkdir -p /srv/web
systemctl start dcfs-mount@web
until_ok 20 sh -c '! systemctl -q is-active dcfs-mount@web'
[ "$(systemctl show --value -p Result dcfs-mount@web)" = success ] || fail "the unit failed"
umount /srv/web
cmp build/big /srv/web/big || fail "the copy in place"

echo "== an upgrade, while the mount is used"
printf '%s\n' RELEASE=web-2 MOUNTPOINT=/mnt/web DCFS_ORIGIN=http://origin:7070 DCFS_LINGER=10m DCFS_AT_END=keep DCFS_DOWN=1MiB DCFS_REUSE=/var/empty >/etc/dcfs/mounts/v.conf
mkdir -p /mnt/web /var/empty
systemctl start dcfs-mount@v
/mnt/web/bin/sleep 60 &
sleeper=$!
exec 7</mnt/web/big
head -c 1000 <&7 >/tmp/read
before=$(main dcfs-mount@v) old=$(child dcfs-mount@v) origin=$(main dcfs-origin)
stat -c %d /mnt/web/file >/tmp/device
dpkg -i /machine/*.deb
until_ok 20 serves dcfs-mount@v
[ "$(main dcfs-mount@v)" = "$before" ] || fail "the mount was restarted"
[ "$(child dcfs-mount@v)" != "$old" ] || fail "the mount goes on with the old program"
[ "$(main dcfs-origin)" != "$origin" ] || fail "the origin goes on with the old program"
systemctl -q is-active dcfs-origin || fail "no origin"
cat <&7 >>/tmp/read # the file that was open all the time
cmp /tmp/read build/big || fail "what was read across the upgrade"
[ "$(stat -c %d /mnt/web/file)" = "$(cat /tmp/device)" ] || fail "another mount"
kill -0 $sleeper || fail "the program that ran from the mount is gone"
kill $sleeper
exec 7<&-
systemctl stop dcfs-mount@v
systemctl -q enable dcfs-mount@v
dpkg -P dcfs
! systemctl -q is-active dcfs-origin || fail "the purge leaves the origin running"
! ls -d /etc/systemd/system/*.wants/dcfs* 2>/dev/null || fail "the purge leaves a unit enabled"

if ! command -v rpm >/dev/null; then
	echo "rpm is not installed: the .rpm is not tried"
	echo "$SECONDS s"
echo "== done"
	exit 0
fi
echo "== the .rpm"
rpm -qlp /machine/*.rpm >/tmp/list
for file in /usr/bin/dcfs /usr/lib/systemd/system/dcfs-{origin,mount@}.service /usr/lib/sysusers.d/dcfs.conf \
	/usr/share/man/man8/dcfs.8.gz /usr/share/bash-completion/completions/dcfs /etc/dcfs/dcfs.yaml /etc/dcfs/mounts; do
	grep -qx "$file" /tmp/list || fail "the .rpm has no $file"
done
[ "$(rpm -qp --configfiles /machine/*.rpm)" = /etc/dcfs/dcfs.yaml ] || fail "its configuration files"
mkdir /tmp/cpio
rpm -K /machine/*.rpm
rpm2cpio /machine/*.rpm >/tmp/payload || true # it ends with 1 and says nothing
(cd /tmp/cpio && cpio -idm --quiet --no-absolute-filenames 2>/dev/null </tmp/payload)
cmp /tmp/cpio/usr/bin/dcfs <(dpkg-deb --fsys-tarfile /machine/*.deb | tar -xO ./usr/bin/dcfs) || fail "another program than in the .deb"
cp -a /etc/default/dcfs-origin /tmp/
rpm --nodeps -i /machine/*.rpm 2>/dev/null # Debian's rpm says that there is dpkg
rpm -V --nodeps dcfs || fail "rpm -V"
cp /tmp/dcfs-origin /etc/default/
systemctl start dcfs-origin
dcfs ls --origin http://origin:7070 | grep web-2 || fail "the origin of the .rpm has not the releases of before"
origin=$(main dcfs-origin)
echo "# mine" >/etc/dcfs/dcfs.yaml
rpm --nodeps -U --force /machine/*.rpm 2>/dev/null # another version of it is not at hand
grep -q mine /etc/dcfs/dcfs.yaml || fail "an upgrade took the configuration"
systemctl -q is-active dcfs-origin || fail "an upgrade ended the origin"
rpm -e dcfs 2>/dev/null
! systemctl -q is-active dcfs-origin || fail "the removal leaves the origin running"
[ ! -e /usr/bin/dcfs ] || fail "the program is left"
[ -d /var/lib/dcfs-origin/origin/web-2 ] || fail "the removal took an origin's store"
echo "== done"
