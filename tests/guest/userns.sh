# Hosts that forbid user namespaces, or whose file system cannot shift ids: refused with what to do, and never run
# with less.
root=/state/userns
. /files/steps.sh
make_box
most=/proc/sys/user/max_user_namespaces
before=$(cat $most)
echo 0 >$most
{ echo services:; service box; service host "userns_mode: host"; } >/tmp/calm.yaml
must_say "switched off" stead --root $root doctor
must_say "set the sysctl user.max_user_namespaces to 15000" stead --root $root up -d /tmp/calm.yaml
start_agent
manifest calm </tmp/calm.yaml
told() {
    says "does not let stead make a user namespace" stead --root $root status calm &&
        says "set the sysctl user.max_user_namespaces to 15000" stead --root $root status calm
}
until_true 30 told
host_runs() { stead --root $root ps calm | grep 'host' | grep -q running; }
until_true 30 host_runs
[ "$(inside calm/host 'cat /proc/self/uid_map' | tr -s ' ')" = " 0 0 4294967295" ] || fail "not the ids of the host"
stead --root $root ps calm | grep -q 'box.*running' && fail "it runs with less than is written down"
# What binds others than root is no hindrance, and doctor knows that.
echo 0 >/proc/sys/kernel/unprivileged_userns_clone || fail "Debian's own switch is not there"
# As soon as it may, it runs.
echo $before >$most
until_true 70 is_converged calm
must_say "allowed for root (kernel.unprivileged_userns_clone=0)" stead --root $root doctor
inside calm/box 'grep -q " 0  *0 " /proc/self/uid_map' && fail "no user namespace"
echo "ok: no user namespaces"
finish

# Linux 6.1 shifts no ids on a tmpfs.
root=/tmp/unshifted
log=/tmp/agent-unshifted.log
make_box
must_say "is on tmpfs" stead --root $root doctor
must_say "put the state directory on ext4" stead --root $root up -d /tmp/calm.yaml
start_agent
{ echo services:; service box; service host "userns_mode: host"; } | manifest calm
unshifted() { says "does not take id-mapped mounts" stead --root $root status calm && says "ext4" stead --root $root status calm; }
until_true 30 unshifted
until_true 30 host_runs
stead --root $root ps calm | grep -q 'box.*running' && fail "it runs with less than is written down"
echo "ok: a file system that shifts no ids"
finish
