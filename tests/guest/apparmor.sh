# AppArmor: a profile that the host has loaded holds for a service, its probes and `exec`; others are refused.
root=/state/apparmor
. /files/steps.sh
make_box
security=/sys/kernel/security
[ "$(cat /sys/module/apparmor/parameters/enabled)" = Y ] || fail "this kernel has no AppArmor"
confined() {
    cat <<END
services:
  box:
    image: 'rootfs:$box'
    stop_signal: KILL
    restart: always
    command: [sleep, '100000']
    security_opt:
      - no-new-privileges:true
      - apparmor=${1:-stead-guest}
    healthcheck: { test: [CMD, sh, -c, "cat /proc/self/attr/current >/tmp/probe"], interval: 1s }
END
}
confined >/tmp/box.yaml
start_agent

# Where the profiles cannot be seen, nothing is known, and nothing refused.
must_say "not known: securityfs is not mounted" stead --root $root doctor
stead --root $root plan -f /tmp/box.yaml >/tmp/plan 2>&1
[ $? = 2 ] && grep -q 'box.yaml:9:9: warning: it is not known' /tmp/plan || fail "plan: $(cat /tmp/plan)"
mount -t securityfs securityfs $security
must_say "on, 0 profiles loaded" stead --root $root doctor

# Not loaded: refused at its line, with and without an agent, and named by one that runs.
for arguments in "$root plan" "$root apply" "/state/none plan"; do
    stead --root $arguments -f /tmp/box.yaml >/tmp/plan 2>&1
    [ $? = 1 ] && grep -q 'box.yaml:9:9: error: this host has loaded no AppArmor profile `stead-guest`' /tmp/plan &&
        grep -q 'hint: load it with apparmor_parser' /tmp/plan || fail "$arguments: $(cat /tmp/plan)"
done
confined | manifest box
until_true 20 says "no AppArmor profile" stead --root $root status box
must_say degraded stead --root $root status box

# Loaded: used, without any order.
cat /files/apparmor.policy >$security/apparmor/.replace || fail "the policy cannot be loaded"
grep -qx 'stead-guest (enforce)' $security/apparmor/profiles || fail "$(cat $security/apparmor/profiles)"
until_true 30 is_converged box
must_say "on, 1 profiles loaded" stead --root $root doctor
echo secret >$box/etc/forbidden
for what in /proc/1/attr/current /proc/self/attr/current; do
    [ "$(inside box/box "cat $what")" = "stead-guest (enforce)" ] || fail "$what: $(inside box/box "cat $what")"
done
probed() { [ "$(inside box/box "cat /tmp/probe")" = "stead-guest (enforce)" ]; }
until_true 20 probed
must_say "Permission denied" inside box/box 'cat /etc/forbidden'
must_say "Permission denied" inside box/box 'echo x >/etc/forbidden'

# Another one: in place of it, and nothing without it. A privileged one, and one that asks for nothing, have none.
confined unconfined | manifest box
free() { [ "$(inside box/box 'cat /proc/self/attr/current')" = unconfined ]; }
until_true 30 free
must_say secret inside box/box 'cat /etc/forbidden'
{ echo services:; service plain; service all "privileged: true, security_opt: ['apparmor=stead-guest']"; } | manifest plain
until_true 30 is_converged plain
for name in plain all; do
    [ "$(inside plain/$name 'cat /proc/1/attr/current')" = unconfined ] || fail "$name: $(inside plain/$name 'cat /proc/1/attr/current')"
done

# A profile that goes while services have it takes none of them away; the next look tells.
confined | manifest box
until_true 30 is_converged box
pid=$(sort -n "$(payload box box)/cgroup.procs" | head -n 1)
printf 'stead-guest' >$security/apparmor/.remove
kill -HUP $agent
until_true 20 says "no AppArmor profile" stead --root $root status box
[ "$pid" = "$(sort -n "$(payload box box)/cgroup.procs" | head -n 1)" ] || fail "it was restarted"
# What ends then does not start without it, and starts with it.
kill -9 "$pid"
until_true 30 says "failed" stead --root $root ps box
must_say "has loaded no AppArmor profile stead-guest" stead --root $root status box
cat /files/apparmor.policy >$security/apparmor/.replace
is_confined() { [ "$(inside box/box 'cat /proc/1/attr/current')" = "stead-guest (enforce)" ]; }
until_true 70 is_confined
finish
