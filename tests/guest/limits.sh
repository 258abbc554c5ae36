# Limits in pure cgroup v2: each acts, and what is used is counted right; devices are filtered; the container of the
# benchmark starts.
root=/state/limits
. /files/steps.sh
start_agent
make_box

# Before any group has had the controller, nobody knows of swap: a warning, and no refusal.
limited() {
    { echo services:; service box "mem_limit: 48m, memswap_limit: 64m, cpus: 0.5, cpuset: '1', pids_limit: ${1:-12}"; } >/tmp/limits.yaml
    cat /tmp/limits.yaml
}
limited >/dev/null
must_say "swap is known once" stead --root $root doctor
stead --root $root plan -f /tmp/limits.yaml >/tmp/plan 2>&1
[ $? = 2 ] && grep -q 'limits.yaml:2:.* warning: it is not known whether this host can limit swap' /tmp/plan || fail "plan: $(cat /tmp/plan)"
limited | manifest limits
until_true 30 is_converged limits
must_say "memory v2, cpu v2, cpuset v2, pids v2, io v2, swap v2, devices v2" stead --root $root doctor
stead --root $root plan -f /tmp/limits.yaml >/tmp/plan 2>&1
grep -q 'not known' /tmp/plan && fail "plan: $(cat /tmp/plan)"
group=$(payload limits box)
held=$(cd $group && cat memory.max memory.swap.max cpu.max cpuset.cpus pids.max | tr '\n' ';')
[ "$held" = "50331648;16777216;50000 100000;1;12;" ] || fail "the files are $held"
first=$(sort -n $group/cgroup.procs | head -n 1)

# The processor it may use, how much of it, and how many processes.
must_say "Cpus_allowed_list:	1" inside limits/box grep Cpus_allowed_list /proc/self/status
inside limits/box 'end=$(($(busybox cut -d. -f1 /proc/uptime) + 3)); while [ $(busybox cut -d. -f1 /proc/uptime) -lt $end ]; do :; done' || fail "a loop"
throttled=$(sed -n 's/^nr_throttled //p' $group/cpu.stat)
[ "$throttled" -gt 5 ] || fail "throttled $throttled times only"
inside limits/box 'for n in $(seq 30); do sleep 1000 & done; true' 2>/dev/null
peak=$(cat $group/pids.current)
[ "$peak" -le 12 ] || fail "$peak processes"
process_limit() { stead --root $root status limits | grep -qi 'process'; }
until_true 20 process_limit
# Another limit, the same process.
limited 40 | manifest limits
at_forty() { [ "$(cat $group/pids.max)" = 40 ]; }
until_true 20 at_forty
[ "$first" = "$(sort -n $group/cgroup.procs | head -n 1)" ] || fail "a limit restarted"
rm $root/manifests/limits.yaml
echo "ok: limits act"

# What is used, as the kernel counts it. 24 MiB in memory, one processor busy, two processes.
cat >/tmp/used.yaml <<END
services:
  busy:
    image: 'rootfs:$box'
    stop_signal: KILL
    mem_limit: 128m
    command: [sh, -c, "dd if=/dev/zero of=/dev/shm/x bs=1M count=24 2>/dev/null; sleep 10000 & while :; do :; done"]
END
manifest used </tmp/used.yaml
until_true 30 is_converged used
group=$(payload used busy)
filled() { [ "$(cat $group/memory.current)" -gt 25165824 ] && [ "$(wc -l <$group/cgroup.threads)" = 2 ]; }
until_true 20 filled
number() { sed -n "s/.*\"$1\": *\([0-9][0-9]*\).*/\1/p" /tmp/stats | head -n 1; }
counted=$(sed -n 's/^usage_usec //p' $group/cpu.stat)
stead --root $root --json stats --no-stream used/busy >/tmp/stats || fail "stats"
after=$(sed -n 's/^usage_usec //p' $group/cpu.stat)
cpu=$(number cpu_percent) usec=$(number cpu_usec) memory=$(number memory) most=$(number memory_limit) pids=$(number pids)
[ "$usec" -ge "$counted" ] && [ "$usec" -le "$after" ] || fail "cpu_usec $usec is not from $counted to $after"
[ "$cpu" -ge 30 ] && [ "$cpu" -le 130 ] || fail "cpu $cpu %"
current=$(cat $group/memory.current)
[ "$memory" -gt 25165824 ] && [ "$memory" -le "$current" ] || fail "memory $memory of $current"
[ "$most" = 134217728 ] && [ "$pids" = 2 ] || fail "limit $most, $pids processes"
grep -q '"memory_source": *"cgroup"' /tmp/stats || fail "stats: $(cat /tmp/stats)"
stead --root $root --json top used/busy | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' | sort -n >/tmp/top
sort -n $group/cgroup.procs | cmp -s - /tmp/top || fail "top: $(cat /tmp/top), and there are $(cat $group/cgroup.procs)"
stead --root $root top used/busy | grep -q 'root .*sleep 10000' || fail "top: $(stead --root $root top used/busy)"
rm $root/manifests/used.yaml
echo "ok: stats and top count what the kernel counts (cpu $cpu %, memory $memory, $pids processes)"

# What may be opened, by a filter on the cgroup; also where root inside is root of the host and sees every node.
{
    echo services:
    service given "devices: ['/dev/vda:/dev/disk:r']"
    service host "userns_mode: host, volumes: ['/dev:/nodes']"
} | manifest devices
until_true 30 is_converged devices
must_say "reads" inside devices/given '(exec 3</dev/disk) && echo reads'
must_say "not permitted" inside devices/given '(exec 3<>/dev/disk)'
must_say "not permitted" inside devices/given 'mknod /tmp/disk b 254 0'
must_say "ermi" inside devices/host '(exec 3</nodes/vda)'
inside devices/host 'mknod /tmp/disk b 254 0' 2>/dev/null
must_say "ermi" inside devices/host '(exec 3</tmp/disk) 2>&1 || (exec 3</nodes/vda)'
must_say "zero" inside devices/host '(exec 3</dev/zero) && echo zero'
rm $root/manifests/devices.yaml
echo "ok: devices are filtered"

# As tests/bench/start has it: one program, one bind, a network, and limits.
mkdir -p $root/out
cat >/tmp/bench.yaml <<END
services:
  stamp:
    image: 'rootfs:$box'
    stop_signal: KILL
    hostname: stamp
    volumes: ['$root/out:/out']
    mem_limit: 256m
    cpus: 1.5
    pids_limit: 200
    command: [sh, -c, "cat /proc/self/cgroup >/out/stamp; sleep 10000"]
END
manifest bench </tmp/bench.yaml
until_true 30 test -s $root/out/stamp
until_true 30 is_converged bench
[ "$(cat "$(payload bench stamp)/cpu.max")" = "150000 100000" ] || fail "the limits of the benchmark"
echo "ok: the container of the benchmark starts"
finish
