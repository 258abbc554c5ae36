# The hello example in the guest: up, answered, its agent killed, its links destroyed, down, nothing left.
root=/state/r

fail() {
    echo "FAILED: $*"
    echo "--- agent"; tail -n 40 /tmp/agent.log
    echo "--- limits: $found"
    echo "--- status"; stead --root $root status
    echo "--- links"; ip -o link
    exit 1
}

# until_true SECONDS COMMAND…: again every tenth of a second
until_true() {
    limit=$(($1 * 10)); shift
    while ! "$@" >/dev/null 2>&1; do
        limit=$((limit - 1))
        [ $limit -gt 0 ] || fail "waited in vain for: $*"
        usleep 100000
    done
}

start_agent() {
    NO_COLOR=1 stead --root $root agent >>/tmp/agent.log 2>&1 &
    agent=$!
}

# By nc, for a static busybox may crash when it looks up names.
page() { printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 127.0.0.1 8080 >/tmp/page && grep -q '^visits: ' /tmp/page; }
# How often the client has called `web` by its name.
calls() { stead --root $root logs hello client | grep -c visits; }
more_calls() { [ "$(calls)" -gt "$before" ]; }
names_work() { before=$(calls); until_true 30 more_calls; }

# The first processes of the services, as the kernel has them. Probes are not first in their namespace.
processes() {
    for pid in $(cat /sys/fs/cgroup/stead-*/hello/${1:-*}/payload/cgroup.procs); do
        [ "$(sed -n 's/^NSpid:.*[[:space:]]//p' /proc/$pid/status 2>/dev/null)" = 1 ] && echo $pid
    done | sort -n
}
link() { ip -o link | sed -n "s/^[0-9]*: \($1[0-9a-f]*\).*/\1/p" | head -n 1; }

works() {
    until_true 30 page
    until_true 30 stead --root $root plan
    names_work
    [ "$(processes)" = "$all" ] || fail "$1 restarted something: $all, now $(processes)"
    echo "ok: $1"
}

echo "kernel $(uname -r), $(stead version)"
mkdir -p $root/manifests
stead --root $root doctor
start_agent
until_true 60 stead --root $root status
cp /files/compose.yaml $root/manifests/hello.yaml
until_true 60 page
cat /tmp/page
until_true 60 stead --root $root plan
stead --root $root ps || fail "ps"
all=$(processes)
works "the first start"

kill -9 $agent; wait $agent 2>/dev/null
page || fail "the page went with the agent"
start_agent
until_true 30 stead --root $root status
works "the death of the agent"

ip link del "$(link stb)"
works "the deletion of the bridge"
ip link del "$(link stv)"
works "the deletion of a veth"

kill -9 $agent; wait $agent 2>/dev/null
ip link del "$(link stb)"
ip link del "$(link stv)"
start_agent
until_true 30 stead --root $root status
works "damage while no agent ran"

# A shim dies: its service is back, once.
shim=$(cat /sys/fs/cgroup/stead-*/hello/web-1a/shim/cgroup.procs)
kill -9 "$shim"
one_anew() { new=$(processes 'web-*'); [ "$(echo "$new" | wc -w)" = 1 ] && ! echo "$all" | grep -qx "$new"; }
until_true 30 one_anew
all=$(processes)
works "the death of a shim"

# Every limit, in the files of cgroup v2; then others, with the same process.
limited() {
    cat >$root/manifests/limits.yaml <<END
services:
  box: { image: 'builtin:hello', pids_limit: 50, $1 }
END
}
held() {
    box=$(echo /sys/fs/cgroup/stead-*/limits/box-1a/payload)
    found=$(for file in memory.max memory.swap.max memory.low cpu.max cpu.weight cpuset.cpus pids.max; do
        printf '%s;' "$(cat "$box/$file")"
    done)
    [ "$found" = "$1" ]
}
limited "mem_limit: 64m, memswap_limit: 96m, mem_reservation: 32m, cpus: 0.5, cpu_shares: 512, cpuset: '0'"
until_true 30 held '67108864;33554432;33554432;50000 100000;20;0;50;'
# What waits to be the container is limited, too.
until_true 30 stead --root $root plan
first() { sort -n /sys/fs/cgroup/stead-*/limits/box-1a/payload/cgroup.procs | head -n 1; }
box_pid=$(first)
limited "mem_limit: 96m, cpu_quota: 5000, cpu_period: 20000"
until_true 30 held "100663296;100663296;0;5000 20000;100;$(cat /sys/fs/cgroup/cpuset.cpus.effective);50;"
[ "$box_pid" = "$(first)" ] || fail "a limit restarted"
# The disk that a path lies on.
number=$(stat -c %d /state)
numbers=$((number >> 8)):$((number & 255))
line() { [ "$(cat "$(echo /sys/fs/cgroup/stead-*/limits/box-1a/payload/io.max)")" = "$1" ]; }
limited "blkio_config: { device_write_bps: [{ path: /state, rate: 1mb }], device_read_iops: [{ path: /state/r, rate: 50 }] }"
until_true 30 line "$numbers rbps=max wbps=1048576 riops=50 wiops=max"
limited "mem_limit: 96m"
until_true 30 line ""
[ "$box_pid" = "$(first)" ] || fail "a limit of a disk restarted"
rm $root/manifests/limits.yaml
gone() { ! ls -d /sys/fs/cgroup/stead-*/limits 2>/dev/null; }
until_true 30 gone
echo "ok: limits"

# Memory that is out ends all of a service, also where its first process would live on, and is named.
for directory in bin dev etc proc sys tmp; do mkdir -p $root/box/$directory; done
cp /proc/$$/exe $root/box/bin/busybox
cat >$root/manifests/memory.yaml <<END
services:
  hog:
    image: "rootfs:$root/box"
    mem_limit: 32m
    memswap_limit: 32m
    command: [/bin/busybox, sh, -c, "/bin/busybox tail /dev/zero & while :; do /bin/busybox sleep 1; done"]
END
memory_named() { stead --root $root status memory | grep -q 'hog/1a: killed: out of memory, limit 32 MiB, peak 3'; }
until_true 30 memory_named
stead --root $root ps -a memory | grep -q 'exited (137), out-of-memory' || fail "ps does not name it"
[ "$(cat /sys/fs/cgroup/stead-*/memory/hog-1a/payload/memory.oom.group)" = 1 ] || fail "it does not die as one"
rm $root/manifests/memory.yaml
memory_gone() { ! ls -d /sys/fs/cgroup/stead-*/memory 2>/dev/null; }
until_true 30 memory_gone
works "memory that is out"

stead --root $root down hello || fail "down"
links() { ip -o link | grep -E 'st[bv][0-9a-f]{12}'; }
down() { [ -z "$(links)" ] && ! ls -d /sys/fs/cgroup/stead-*/hello 2>/dev/null; }
until_true 10 down
kill -TERM $agent; wait $agent || fail "the agent ended with $?"
left() {
    links
    find /sys/fs/cgroup -name 'stead-*' 2>/dev/null
    grep "$root" /proc/mounts
    ls -d /proc/[0-9]*/exe 2>/dev/null | while read -r exe; do
        case $(readlink "$exe") in */stead | */hello) echo "$exe $(tr '\0' ' ' <"${exe%/exe}/cmdline")" ;; esac
    done
}
nothing_left() { [ -z "$(left)" ]; }
limit=100
while ! nothing_left; do
    limit=$((limit - 1))
    [ $limit -gt 0 ] || { left; fail "left behind"; }
    usleep 100000
done
echo "hello: everything ran, nothing is left"
