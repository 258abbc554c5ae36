# The hello example in the guest: up, answered, looked at, planned, taken down, nothing left.
root=/state/r

fail() {
    echo "FAILED: $*"
    echo "--- agent"; tail -n 40 /tmp/agent.log
    echo "--- status"; stead --root $root status
    exit 1
}

# until SECONDS COMMAND…: again every tenth of a second
until_true() {
    limit=$(($1 * 10)); shift
    while ! "$@" >/dev/null 2>&1; do
        limit=$((limit - 1))
        [ $limit -gt 0 ] || fail "waited in vain for: $*"
        usleep 100000
    done
}

echo "kernel $(uname -r), $(stead version)"
mkdir -p $root/manifests
stead --root $root doctor
NO_COLOR=1 stead --root $root agent >/tmp/agent.log 2>&1 &
agent=$!
until_true 60 stead --root $root status
cp /files/compose.yaml $root/manifests/hello.yaml
until_true 120 wget -q -T 5 -O /tmp/page http://127.0.0.1:8080/
cat /tmp/page
grep -q '^visits: ' /tmp/page || fail "the page has no counter"
client_called() { stead --root $root logs hello client | grep -q visits; }
until_true 120 client_called
stead --root $root ps || fail "ps"
until_true 60 stead --root $root plan

# The agent dies, the service does not notice.
kill -9 $agent; wait $agent 2>/dev/null
wget -q -T 5 -O /dev/null http://127.0.0.1:8080/ || fail "the page went with the agent"
stead --root $root agent >>/tmp/agent.log 2>&1 &
agent=$!
until_true 60 stead --root $root plan

stead --root $root down hello || fail "down"
kill -TERM $agent; wait $agent || fail "the agent ended with $?"
left() {
    ip -o link | grep -E 'st[bv][0-9a-f]{12}'
    find /sys/fs/cgroup -name 'stead-*'
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
