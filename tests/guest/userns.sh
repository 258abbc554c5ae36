# Hosts that forbid user namespaces, or whose file system cannot shift ids: refused with what to do, and never run
# with less.
root=/state/userns
. /files/steps.sh
make_box
most=/proc/sys/user/max_user_namespaces
before=$(cat $most)
both() { echo services:; service box "hostname: $1"; service host "userns_mode: host"; }
both first >/tmp/calm.yaml
runs_as() { [ "$(inside calm/box 'cat /proc/sys/kernel/hostname')" = $1 ]; }
host_runs() { stead --root $root ps calm | grep 'host' | grep -q running; }
ids() { inside calm/$1 'cat /proc/self/uid_map' | tr -s ' '; }
forbidden="this host does not let stead make a user namespace: user.max_user_namespaces is 0"

echo 0 >$most
must_say "switched off" stead --root $root doctor
must_say "/tmp/calm.yaml:2:3: error: $forbidden" stead --root $root plan -f /tmp/calm.yaml
start_agent
for command in "plan -f" "up -d"; do
    must_say "/tmp/calm.yaml:2:3: error: $forbidden" stead --root $root $command /tmp/calm.yaml
    must_say "set that sysctl to 15000 or more, or write \`userns_mode: host\`" stead --root $root $command /tmp/calm.yaml
done
manifest calm </tmp/calm.yaml
told() { says "calm.yaml:2:3: error: $forbidden" stead --root $root status calm; }
until_true 30 told
stead --root $root ps calm | grep -q running && fail "it runs with less than is written down"
# Who does without runs all the same.
{ echo services:; service host "userns_mode: host"; } | manifest calm
until_true 30 is_converged calm
[ "$(ids host)" = " 0 0 4294967295" ] || fail "not the ids of the host"
echo "ok: no user namespaces, and a plan says so at the line"

# As soon as it may, it runs, without a change of the file.
manifest calm </tmp/calm.yaml
until_true 30 told
echo $before >$most
until_true 70 is_converged calm
case $(ids box) in " 0 0 "*) fail "no user namespace" ;; esac

# Forbidden again: what runs goes on, and the change is not made.
running() { stead --root $root ps calm --json | grep '"pid"'; }
processes=$(running)
echo 0 >$most
both second | manifest calm
until_true 30 told
must_say "calm.yaml:2:3: error: $forbidden" stead --root $root plan calm
runs_as first || fail "the change was made"
[ "$(running)" = "$processes" ] || fail "what ran does not run on"
echo $before >$most
until_true 70 is_converged calm
until_true 30 runs_as second
echo "ok: what runs goes on while they are forbidden"

# What binds others than root is no hindrance, and doctor knows that.
echo 0 >/proc/sys/kernel/unprivileged_userns_clone || fail "Debian's own switch is not there"
must_say "allowed for root (kernel.unprivileged_userns_clone=0)" stead --root $root doctor
both third | manifest calm
until_true 30 runs_as third
echo "ok: user namespaces for root alone"
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
