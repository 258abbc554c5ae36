# What the scripts of the guest share. Sourced, after `root` is set: a root of its own for each.
log=/tmp/agent-$(basename $root).log

fail() {
    echo "FAILED: $*"
    echo "--- agent"; tail -n 40 $log
    echo "--- status"; stead --root $root status
    echo "--- ps"; stead --root $root ps -a
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
    mkdir -p $root/manifests
    NO_COLOR=1 stead --root $root agent >>$log 2>&1 &
    agent=$!
    until_true 60 stead --root $root status
}

# says TEXT COMMAND…: the command prints that somewhere
says() {
    said_text=$1; shift
    said=$("$@" 2>&1)
    case $said in *"$said_text"*) ;; *) return 1 ;; esac
}
must_say() { says "$@" || { shift; fail "$* says: $said"; }; }
inside() { target=$1; shift; stead --root $root exec "$target" -- sh -c "$*"; }
manifest() { cat >$root/manifests/.$1.new && mv $root/manifests/.$1.new $root/manifests/$1.yaml; }
is_converged() { stead --root $root status "$1" | grep -q "^$1 .*converged" && stead --root $root plan "$1"; }
payload() { echo /sys/fs/cgroup/stead-*/$1/$2-1a/payload; }

# An image of busybox alone, at $box.
make_box() {
    box=$root/box
    for directory in bin dev etc out proc sys tmp; do mkdir -p $box/$directory; done
    cp /bin/busybox $box/bin/busybox
    for applet in sh cat dd echo grep mknod nproc seq sleep touch true usleep; do ln -s busybox $box/bin/$applet; done
    echo 'root:x:0:0:root:/root:/bin/sh' >$box/etc/passwd
}
# service NAME MORE: a line of a manifest
service() { echo "  $1: { image: 'rootfs:$box', stop_signal: KILL, ${2:+$2, }command: [sleep, '100000'] }"; }

# Everything goes, and nothing stays.
finish() {
    rm -f $root/manifests/*.yaml
    # What is left is listed: `ls` also fails when one of two goes between its name and the look. An agent that is
    # ended in the middle of a removal leaves the rest of it to the next.
    none_left() { [ -z "$(ls -d /sys/fs/cgroup/stead-*/*/ | grep -v '/idle/$')" ]; }
    until_true 30 none_left
    kill -TERM $agent; wait $agent || fail "the agent ended with $?"
    gone() { [ -z "$(find /sys/fs/cgroup -name 'stead-*' 2>/dev/null)" ] && ! grep -q " $root/" /proc/mounts; }
    until_true 10 gone
    echo "$(basename $root): everything held, nothing is left ($(cut -d. -f1 /proc/uptime) s after boot)"
}
