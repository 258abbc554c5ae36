//! What a service may use of the machine.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Reader, value::Place};
use crate::{
    syntax::cut,
    types::{BlockIo, Cpus, Resources, Ulimit},
};

const MOST: i128 = i64::MAX as i128;

impl Reader<'_> {
    pub(super) fn resources_of(&mut self, place: &Place) -> Resources {
        const CPUS: &str = "write a number like `0.5`";
        let deploy = place.get("deploy").and_then(|deploy| deploy.get("resources"));
        let limits = deploy.as_ref().and_then(|resources| resources.get("limits"));
        let reserved = deploy.and_then(|resources| resources.get("reservations"));
        let not_zero = |cpus: &Cpus| cpus.0 > 0;
        let mut resources = Resources {
            cpus: self.parsed(place, "cpus", CPUS).filter(not_zero),
            cpu_shares: self
                .number(place, "cpu_shares", 0..=262_144)
                .filter(|shares| *shares > 0),
            cpu_quota: self
                .number(place, "cpu_quota", 0..=MOST)
                .filter(|quota| *quota > 0),
            cpu_period: self
                .number(place, "cpu_period", 0..=1_000_000)
                .filter(|period| *period > 0),
            cpuset: self.parsed(place, "cpuset", "write numbers and ranges, like `0-3,5`"),
            mem_limit: self.bytes(place, "mem_limit"),
            mem_reservation: self.bytes(place, "mem_reservation"),
            memswap_limit: self
                .number(place, "memswap_limit", -1..=MOST)
                .filter(|swap| *swap != 0),
            pids_limit: self
                .number(place, "pids_limit", -1..=4_194_304)
                .filter(|pids| !matches!(pids, -1 | 0)),
            shm_size: self.bytes(place, "shm_size"),
            oom_score_adj: self
                .number(place, "oom_score_adj", -1000..=1000)
                .filter(|score| *score != 0),
            blkio_config: self.block_io(place),
            ulimits: self.ulimits(place),
            cgroup_parent: place.word("cgroup_parent"),
        };
        if let Some(limits) = limits {
            for (own, key) in [("cpus", "cpus"), ("memory", "mem_limit"), ("pids", "pids_limit")] {
                self.stands_in(&limits, own, place, key);
            }
            let cpus = self.parsed(&limits, "cpus", CPUS).filter(not_zero);
            resources.cpus = cpus.or(resources.cpus);
            resources.mem_limit = self.bytes(&limits, "memory").or(resources.mem_limit);
            let pids = self.number(&limits, "pids", -1..=4_194_304);
            resources.pids_limit = pids
                .filter(|pids| !matches!(pids, -1 | 0))
                .or(resources.pids_limit);
        }
        if let Some(reserved) = reserved {
            let memory = self.bytes(&reserved, "memory");
            resources.mem_reservation = memory.or(resources.mem_reservation);
        }
        self.consistent(place, &resources);
        resources
    }

    /// What the kernel or the Engine would refuse together.
    fn consistent(&mut self, place: &Place, resources: &Resources) {
        const LEAST: u64 = 6 << 20;
        if resources.cpus.is_some() && (resources.cpu_quota.is_some() || resources.cpu_period.is_some()) {
            let what = "`cpus` and `cpu_quota` or `cpu_period` say the same in two ways";
            self.refuse(place, what, "keep `cpus`, or the other two");
        }
        if resources.mem_limit.is_none() && resources.memswap_limit.is_some_and(|swap| swap > 0) {
            let what = "`memswap_limit` is memory and swap together, and the memory has no limit";
            self.refuse(place, what, "write `mem_limit`, too");
        }
        let Resources {
            mem_limit: Some(limit),
            ..
        } = *resources
        else {
            return;
        };
        if limit < LEAST {
            let what = format!("a memory limit of {limit} bytes is too little to start a program");
            self.refuse(place, what, "write 6 MiB or more, like `64m`");
        }
        if resources.mem_reservation.is_some_and(|reserved| reserved > limit) {
            let what = "the reserved memory is more than the memory limit";
            self.refuse(place, what, "reserve less, or raise the limit");
        }
        if resources
            .memswap_limit
            .is_some_and(|swap| swap > 0 && swap.unsigned_abs() < limit)
        {
            let what = "`memswap_limit` is memory and swap together, and less than the memory limit";
            self.refuse(place, what, "write the memory limit or more, or -1 for no limit");
        }
    }

    pub(super) fn ulimits(&mut self, place: &Place) -> BTreeMap<String, Ulimit> {
        const NAMES: [&str; 16] = [
            "as",
            "core",
            "cpu",
            "data",
            "fsize",
            "locks",
            "memlock",
            "msgqueue",
            "nice",
            "nofile",
            "nproc",
            "rss",
            "rtprio",
            "rttime",
            "sigpending",
            "stack",
        ];
        let mut ulimits = BTreeMap::new();
        for (name, _, place) in place.get("ulimits").iter().flat_map(Place::entries) {
            if !NAMES.contains(&name) {
                let what = format!("`{}` is not a limit", cut(name));
                let hint = format!("write one of {}", NAMES.join(", "));
                self.refuse(&place, what, &hint);
                continue;
            }
            let both = place.scalar().and_then(|text| text.parse::<i64>().ok());
            let limit = match both {
                Some(both) => Some((both, both)),
                None => {
                    let soft = self.number(&place, "soft", -1..=MOST);
                    soft.zip(self.number(&place, "hard", -1..=MOST))
                }
            };
            let Some((soft, hard)) = limit else {
                continue;
            };
            if soft < -1 || (hard != -1 && (soft == -1 || soft > hard)) {
                let what = format!("the soft limit {soft} is above the hard limit {hard}");
                let what = if soft < -1 {
                    format!("{soft} is not a limit")
                } else {
                    what
                };
                self.refuse(&place, what, "write a number from 0, or -1 for no limit");
                continue;
            }
            ulimits.insert(name.to_owned(), Ulimit { soft, hard });
        }
        ulimits
    }

    fn block_io(&mut self, place: &Place) -> Option<BlockIo> {
        let place = place.get("blkio_config")?;
        let block = BlockIo {
            weight: self
                .number(&place, "weight", 0..=1000)
                .filter(|weight| *weight > 0),
            weight_device: self.by_device(&place, "weight_device", "weight", 10..=1000),
            device_read_bps: self.by_device(&place, "device_read_bps", "rate", 0..=MOST),
            device_write_bps: self.by_device(&place, "device_write_bps", "rate", 0..=MOST),
            device_read_iops: self.by_device(&place, "device_read_iops", "rate", 0..=MOST),
            device_write_iops: self.by_device(&place, "device_write_iops", "rate", 0..=MOST),
        };
        if let Some(weight) = block.weight.filter(|weight| *weight < 10)
            && let Some(place) = place.get("weight")
        {
            self.refuse(
                &place,
                format!("`{weight}` is out of range"),
                "write a whole number from 10 to 1000",
            );
        }
        Some(block).filter(|block| *block != BlockIo::default())
    }

    /// The reference prints the keys of these entries with capitals.
    fn by_device<T: TryFrom<i128>>(
        &mut self,
        place: &Place,
        list: &str,
        key: &str,
        range: std::ops::RangeInclusive<i128>,
    ) -> BTreeMap<PathBuf, T> {
        let capital = |key: &str| key[..1].to_ascii_uppercase() + &key[1..];
        let mut devices = BTreeMap::new();
        for item in place.list(list) {
            let path = item
                .word("path")
                .or_else(|| item.word("Path"))
                .unwrap_or_default();
            if !path.starts_with('/') {
                let what = format!("`{}` is not the path of a device", cut(&path));
                self.refuse(&item, what, "write a path like `/dev/sda`");
                continue;
            }
            let value = match item.get(key) {
                Some(_) => self.number(&item, key, range.clone()),
                None => self.number(&item, &capital(key), range.clone()),
            };
            if let Some(value) = value {
                devices.insert(path.into(), value);
            }
        }
        devices
    }
}
