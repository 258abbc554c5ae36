//! What somebody can break by hand of processes, cgroups, mounts and files.

use super::{Damage, damage};

/// A line that takes several tries leaves the agent time: a repair that is undone five times at once waits.
pub const GROUND: &[Damage] = {
    use super::{
        Reach::{Host as Everybody, Network, Service},
        Where::{Host, Mounts},
    };
    &[
        damage("process killed", Host, Service, "kill -9 {pid}").fatal(),
        damage(
            "memory limit changed",
            Host,
            Service,
            "echo 99999744 > {memory}/{memory-limit}",
        ),
        damage("volume unmounted", Mounts, Service, "/data"),
        damage("network record deleted", Host, Network, "rm {records}/network/{project}%*"),
        damage("supervisor killed", Host, Service, "kill -9 {shim}").fatal(),
        damage(
            "processor limit changed",
            Host,
            Service,
            "echo 50000 > {cpu}/{cpu-limit}",
        ),
        damage("bind unmounted", Mounts, Service, "/given"),
        damage(
            "network record torn",
            Host,
            Network,
            "for file in {records}/network/{project}%*; do truncate -s 40 $file; done",
        ),
        damage(
            "supervisor and process killed",
            Host,
            Service,
            "kill -9 {shim} {pid}",
        )
        .fatal(),
        damage(
            "limit of processes lifted",
            Host,
            Service,
            "echo max > {pids}/pids.max",
        ),
        damage("/etc/hosts unmounted", Mounts, Service, "/etc/hosts"),
        damage("volume record deleted", Host, Network, "rm {records}/volume/{project}%*"),
        damage("cgroup killed", Host, Service, "echo 1 > {cgroup}/cgroup.kill").fatal(),
        damage(
            "process in another cgroup",
            Host,
            Service,
            "echo {pid} > {cgroup}/shim/cgroup.procs",
        ),
        damage("tmpfs unmounted", Mounts, Service, "/scratch").fatal(),
        damage(
            "volume record torn",
            Host,
            Network,
            "for file in {records}/volume/{project}%*; do truncate -s 40 $file; done",
        ),
        damage(
            "upper directory deleted",
            Host,
            Service,
            "rm -r {container}/upper",
        )
        .fatal(),
        damage(
            "process outside its limits",
            Host,
            Service,
            "echo {pid} > {memory-top}/cgroup.procs",
        ),
        damage("root unmounted", Mounts, Service, "/").fatal(),
        damage(
            "record of ids deleted",
            Host,
            Network,
            "rm {records}/id-base/{project}.json",
        ),
        damage(
            "payload cgroup killed",
            Host,
            Service,
            "echo 1 > {cgroup}/payload/cgroup.kill",
        )
        .fatal(),
        damage(
            "payload cgroup removed",
            Host,
            Service,
            "until echo {pid} > {top}/cgroup.procs && rmdir {cgroup}/payload 2> /dev/null; do sleep 0.3; done",
        ),
        damage("/proc unmounted", Mounts, Service, "/proc").fatal(),
        damage(
            "record of ids torn",
            Host,
            Network,
            "truncate -s 40 {records}/id-base/{project}.json",
        ),
        damage(
            "upper directory replaced",
            Host,
            Service,
            "cp -a {container}/upper {container}/.upper; rm -r {container}/upper; mv {container}/.upper {container}/upper",
        )
        .fatal(),
        damage(
            "limits' cgroup removed",
            Host,
            Service,
            "until echo {pid} > {memory-top}/cgroup.procs && rmdir {memory} 2> /dev/null; do sleep 0.3; done",
        ),
        damage("hosts file deleted", Host, Service, "rm {container}/hosts"),
        damage(
            "records deleted",
            Host,
            Everybody,
            "until rm -r {records} 2> /dev/null; do :; done",
        ),
        damage(
            "supervisor in another cgroup",
            Host,
            Service,
            "echo {shim} > {top}/cgroup.procs",
        ),
        damage("process frozen", Host, Service, "echo 1 > {cgroup}/payload/cgroup.freeze"),
        damage(
            "process and supervisor frozen",
            Host,
            Service,
            "echo 1 > {cgroup}/cgroup.freeze",
        ),
        damage("socket of the agent deleted", Host, Everybody, "rm {run}/stead.sock"),
        damage(
            "run directory emptied",
            Host,
            Everybody,
            "find {run} ! -type d -delete",
        ),
    ]
};
