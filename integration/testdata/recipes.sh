#!/bin/bash
# The command lines of the recipes for Nomad and Kubernetes in docs/plugs.md, run
# as these would run them: on the host, and in a directory that has the program
# and nothing else. Called by TestRecipes on a machine of its own.
. /machine/module/integration/testdata/docs/prelude.sh
mkdir /root/page && cd /root/page
words=$(/usr/bin/python3 /machine/module/integration/testdata/recipes.py /machine/block-*.hcl /machine/kubernetes.yaml)
eval "$words"
published
sample build 2
command dcfs publish ./build --as web-2 --key release.key --origin http://origin:7070 --publish-token-file token

echo "== Nomad: ${nomad[*]}"
"${nomad[@]}" # a prestart task: the next starts when this has ended
[ "$("${nomad_web[@]}")" = "this is web 2" ] || fail "the application does not start"
command dcfs status --json | jq -r '.processes[].pid' | xargs kill
until_ok 20 sh -c '[ "$(dcfs status --json | jq ".processes | length")" = 0 ]'
command dcfs gc /srv/releases --keep 0
[ ! -e /srv/releases/web-2 ] || fail "the release is left"

echo "== Kubernetes: ${kubernetes[*]}"
mkdir -p /container/{srv,proc,etc/dcfs/trusted.d}
cp /usr/bin/dcfs /container/dcfs
cp /etc/hosts /container/etc/ # as the kubelet does
mount --bind /srv /container/srv
mount --bind /etc/dcfs/trusted.d /container/etc/dcfs/trusted.d
mount -t proc proc /container/proc
inside=(env -i "${kubernetes_env[@]}" "$(command -v chroot)" /container)
! "${inside[@]}" "${kubernetes_probe[@]}" || fail "ready before there is a copy"
"${inside[@]}" /dcfs "${kubernetes[@]}" &
pod=$!
until_ok 20 "${inside[@]}" "${kubernetes_probe[@]}"
[ "$(/srv/releases/web-2/bin/web)" = "this is web 2" ] || fail "the copy"
kill -0 $pod || fail "the container has ended, and would be started again and again"
kill $pod
wait $pod || fail "the container ends with $?"
"${inside[@]}" /dcfs "${kubernetes[@]}" & # the pod is replaced
pod=$!
until_ok 20 sh -c '[ "$(DCFS_RUN=/srv/dcfs/run dcfs status --json | jq -r ".processes[].state")" = lingering ]'
"${inside[@]}" "${kubernetes_probe[@]}" || fail "not ready again"
kill $pod
wait $pod || fail "the container ends with $?"
echo "== done"
