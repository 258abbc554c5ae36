//! How much a container may read and write on block devices: rates, and weights against others.
//!
//! Unlike the other limits these have a line for each device, and a device is known by its numbers.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use reconciler::spec::BlockIo;
use rustix::fs::{major, minor};

use super::{Controllers, LimitError, processes};

/// As the other controllers are called. The v2 tree has it under another name.
pub const CONTROLLER: &str = "blkio";
pub const CONTROLLER_V2: &str = "io";
pub const WHAT: &str = "block devices";
pub const WEIGHT: &str = "the weight on block devices";

pub const MAX: &str = "io.max";
/// Of the scheduler BFQ, and of the cost model that works with any. A kernel may have one, both or none.
pub const WEIGHTS: [&str; 2] = ["io.bfq.weight", "io.weight"];
pub const WEIGHT_V1: &str = "blkio.bfq.weight";
const WEIGHT_DEVICE_V1: &str = "blkio.bfq.weight_device";
pub const READ_BPS: &str = "blkio.throttle.read_bps_device";
const WRITE_BPS: &str = "blkio.throttle.write_bps_device";
const READ_IOPS: &str = "blkio.throttle.read_iops_device";
const WRITE_IOPS: &str = "blkio.throttle.write_iops_device";

/// The line of a weight that holds for all devices.
const ALL: &str = "default";
const USUAL_WEIGHT: &str = "100";

/// File to device to what is written of it.
type Lines = BTreeMap<&'static str, BTreeMap<String, String>>;

/// The numbers of the whole disk that `path` is or lies on.
fn disk(path: &Path) -> Result<String, LimitError> {
    let find = || -> io::Result<String> {
        let found = fs::metadata(path)?;
        let number = match found.file_type().is_block_device() {
            true => found.rdev(),
            false => found.dev(),
        };
        let device = Path::new("/sys/dev/block").join(format!("{}:{}", major(number), minor(number)));
        let device = fs::canonicalize(device)?;
        // The kernel throttles disks: a partition is a directory of its disk.
        let whole = match device.join("partition").exists() {
            true => device.parent().unwrap_or(&device),
            false => &device,
        };
        Ok(fs::read_to_string(whole.join("dev"))?.trim().to_owned())
    };
    find().map_err(|source| LimitError::NoDevice {
        path: path.to_owned(),
        source,
    })
}

/// One value for each disk: of two paths on the same one, the lower.
fn by_disk<N: Copy + Ord>(
    devices: &BTreeMap<PathBuf, N>,
    disk: impl Fn(&Path) -> Result<String, LimitError>,
) -> Result<BTreeMap<String, N>, LimitError> {
    let mut found = BTreeMap::new();
    for (path, value) in devices {
        let least = found.entry(disk(path)?).or_insert(*value);
        *least = (*least).min(*value);
    }
    Ok(found)
}

/// What the files shall say. `has`: whether there is such a file.
fn wanted(
    block: &BlockIo,
    v2: bool,
    disk: impl Fn(&Path) -> Result<String, LimitError> + Copy,
    has: impl Fn(&str) -> bool,
) -> Result<Lines, LimitError> {
    let mut lines = Lines::new();
    let rates = [
        (READ_BPS, "rbps", &block.device_read_bps),
        (WRITE_BPS, "wbps", &block.device_write_bps),
        (READ_IOPS, "riops", &block.device_read_iops),
        (WRITE_IOPS, "wiops", &block.device_write_iops),
    ];
    let mut together: BTreeMap<String, [String; 4]> = BTreeMap::new();
    for (place, (file, word, rates)) in rates.into_iter().enumerate() {
        for (device, rate) in by_disk(rates, disk)? {
            // Docker takes 0 for no limit.
            if rate == 0 {
                continue;
            }
            match v2 {
                true => {
                    let none = || ["rbps", "wbps", "riops", "wiops"].map(|word| format!("{word}=max"));
                    together.entry(device).or_insert_with(none)[place] = format!("{word}={rate}");
                }
                false => {
                    let file = lines.entry(file).or_default();
                    file.insert(device, rate.to_string());
                }
            }
        }
    }
    if !together.is_empty() {
        let rows = together.into_iter();
        let rows = rows.map(|(device, words)| (device, words.join(" ")));
        lines.insert(MAX, rows.collect());
    }
    let file = WEIGHTS.into_iter().find(|file| has(file)).unwrap_or(WEIGHTS[0]);
    let scaled = |weight: u16| match v2 && file == WEIGHTS[1] {
        true => (1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990).to_string(),
        false => weight.to_string(),
    };
    if let Some(weight) = block.weight {
        let (file, key) = if v2 { (file, ALL) } else { (WEIGHT_V1, "") };
        let row = (key.to_owned(), scaled(weight));
        lines.entry(file).or_default().extend([row]);
    }
    for (device, weight) in by_disk(&block.weight_device, disk)? {
        let file = if v2 { file } else { WEIGHT_DEVICE_V1 };
        lines.entry(file).or_default().insert(device, scaled(weight));
    }
    Ok(lines)
}

/// The lines of a file by device; a number alone has the empty name.
fn read(path: &Path) -> io::Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path)?;
    let rows = text.lines().map(|line| match line.split_once(' ') {
        Some((device, value)) => (device.to_owned(), value.trim().to_owned()),
        None => (String::new(), line.trim().to_owned()),
    });
    Ok(rows.collect())
}

/// What takes a line back; `None`: there is nothing to take back.
fn unlimited(file: &str, device: &str, value: &str) -> Option<String> {
    match file {
        MAX => Some("rbps=max wbps=max riops=max wiops=max".to_owned()),
        WEIGHT_DEVICE_V1 if device == ALL => None,
        WEIGHT_V1 => (value != USUAL_WEIGHT).then(|| USUAL_WEIGHT.to_owned()),
        _ if device == ALL => (value != USUAL_WEIGHT).then(|| USUAL_WEIGHT.to_owned()),
        file if WEIGHTS.contains(&file) || file == WEIGHT_DEVICE_V1 => Some(ALL.to_owned()),
        _ => Some("0".to_owned()),
    }
}

fn files(v2: bool) -> &'static [&'static str] {
    match v2 {
        true => &[MAX, WEIGHTS[0], WEIGHTS[1]],
        false => &[
            READ_BPS,
            WRITE_BPS,
            READ_IOPS,
            WRITE_IOPS,
            WEIGHT_V1,
            WEIGHT_DEVICE_V1,
        ],
    }
}

/// What is to be written: device and value.
fn changes(
    file: &str,
    have: &BTreeMap<String, String>,
    want: Option<&BTreeMap<String, String>>,
) -> Vec<(String, String)> {
    let none = BTreeMap::new();
    let want = want.unwrap_or(&none);
    let mut changes: Vec<(String, String)> = have
        .iter()
        .filter(|(device, _)| !want.contains_key(*device))
        .filter_map(|(device, value)| Some((device.clone(), unlimited(file, device, value)?)))
        .collect();
    let new = want
        .iter()
        .filter(|(device, value)| have.get(*device) != Some(value));
    changes.extend(new.map(|(device, value)| (device.clone(), value.clone())));
    changes
}

impl Controllers {
    /// Where the lines are, and whether that is the v2 tree.
    fn block(&self, instance: &Path) -> Option<(PathBuf, bool)> {
        match self.has_v2(CONTROLLER) {
            true => Some((instance.join("payload"), true)),
            false => Some((self.v1(instance, CONTROLLER)?, false)),
        }
    }

    /// As [`Controllers::apply`], for block devices.
    pub(super) fn apply_block(&self, instance: &Path, block: Option<&BlockIo>) -> Result<(), LimitError> {
        let Some((directory, v2)) = self.block(instance) else {
            return match block {
                None => Ok(()),
                Some(_) => Err(LimitError::NoController {
                    what: WHAT,
                    controller: CONTROLLER_V2,
                }),
            };
        };
        let telling = directory.join(files(v2)[0]);
        if block.is_some() && !telling.exists() {
            match v2 {
                true => self.delegate(instance, CONTROLLER_V2)?,
                false => self.make_v1(&directory, CONTROLLER)?,
            }
        }
        let has = |file: &str| directory.join(file).exists();
        let lines = match block {
            Some(block) => wanted(block, v2, disk, has)?,
            None => Lines::new(),
        };
        for file in files(v2) {
            let path = directory.join(file);
            let want = lines.get(file);
            let have = match read(&path) {
                Ok(have) => have,
                Err(_) if want.is_none() => continue,
                Err(_) => {
                    let what = if file.contains("weight") { WEIGHT } else { WHAT };
                    return Err(LimitError::NoFile { what, file });
                }
            };
            for (device, value) in changes(file, &have, want) {
                let line = format!("{device} {value}");
                fs::write(&path, line.trim()).map_err(|source| match source.raw_os_error() {
                    Some(libc::EOPNOTSUPP) => LimitError::NoWeights { device },
                    _ => LimitError::Write {
                        what: WHAT,
                        value: line.trim().to_owned(),
                        path: path.clone(),
                        source,
                    },
                })?;
            }
        }
        Ok(())
    }

    /// As [`Controllers::drift`], for block devices. A device that cannot be found is no drift: nothing could be
    /// mended.
    pub(super) fn drift_block(
        &self,
        instance: &Path,
        block: Option<&BlockIo>,
        pid: u32,
        drift: &mut Vec<String>,
    ) {
        let Some((directory, v2)) = self.block(instance) else {
            return;
        };
        let has = |file: &str| directory.join(file).exists();
        let Ok(lines) = block.map_or(Ok(Lines::new()), |block| wanted(block, v2, disk, has)) else {
            return;
        };
        for file in files(v2) {
            let want = lines.get(file);
            let have = match read(&directory.join(file)) {
                Ok(have) => have,
                Err(_) if want.is_none() => continue,
                Err(_) => {
                    drift.push(format!("{file} is not there"));
                    continue;
                }
            };
            for (device, value) in changes(file, &have, want) {
                let found = have.get(&device).map_or("not there", String::as_str);
                drift.push(format!("{file} of {device} is {found} instead of {value}"));
            }
        }
        if !lines.is_empty() && !v2 && !processes(&directory).contains(&pid) {
            drift.push(format!("process {pid} is outside the limit of {WHAT}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> BlockIo {
        let of = |path: &str, rate| BTreeMap::from([(PathBuf::from(path), rate)]);
        BlockIo {
            weight: Some(1000),
            weight_device: BTreeMap::from([("/dev/b".into(), 10)]),
            device_read_bps: of("/dev/a1", 1_048_576),
            device_write_bps: BTreeMap::from([("/dev/a1".into(), 300), ("/dev/a2".into(), 200)]),
            device_read_iops: BTreeMap::new(),
            device_write_iops: of("/dev/b", 5),
        }
    }

    fn text(v2: bool, has: &str) -> Vec<String> {
        // What is on `a` is on one disk.
        let disk = |path: &Path| {
            let first = path.to_string_lossy().starts_with("/dev/a");
            Ok(if first { "8:0" } else { "8:16" }.to_owned())
        };
        let lines = wanted(&block(), v2, disk, |file| file == has).unwrap();
        let rows = lines.into_iter().flat_map(|(file, rows)| {
            rows.into_iter()
                .map(move |(device, value)| format!("{file}: {device} {value}"))
        });
        rows.collect()
    }

    #[test]
    fn rates_and_weights_are_written_as_each_tree_has_them() {
        assert_eq!(
            text(true, "io.bfq.weight"),
            [
                "io.bfq.weight: 8:16 10",
                "io.bfq.weight: default 1000",
                "io.max: 8:0 rbps=1048576 wbps=200 riops=max wiops=max",
                "io.max: 8:16 rbps=max wbps=max riops=max wiops=5",
            ]
        );
        let other = text(true, "io.weight");
        assert_eq!(other[2..], ["io.weight: 8:16 1", "io.weight: default 10000"]);
        assert_eq!(
            text(false, ""),
            [
                "blkio.bfq.weight:  1000",
                "blkio.bfq.weight_device: 8:16 10",
                "blkio.throttle.read_bps_device: 8:0 1048576",
                "blkio.throttle.write_bps_device: 8:0 200",
                "blkio.throttle.write_iops_device: 8:16 5",
            ]
        );
    }

    #[test]
    fn only_what_differs_is_written_and_the_rest_is_taken_back() {
        let rows = |rows: &[(&str, &str)]| -> BTreeMap<String, String> {
            let own = |(device, value): &(&str, &str)| ((*device).to_owned(), (*value).to_owned());
            rows.iter().map(own).collect()
        };
        let max = "rbps=max wbps=max riops=max wiops=max";
        for (file, have, want, expected) in [
            (
                MAX,
                rows(&[("8:0", "a"), ("8:16", "b")]),
                rows(&[("8:0", "a")]),
                &[("8:16", max)][..],
            ),
            (MAX, rows(&[("8:0", "a")]), rows(&[("8:0", "b")]), &[("8:0", "b")]),
            (READ_BPS, rows(&[("8:0", "5")]), rows(&[]), &[("8:0", "0")]),
            (WEIGHTS[0], rows(&[(ALL, "100")]), rows(&[]), &[]),
            (
                WEIGHTS[0],
                rows(&[(ALL, "7"), ("8:0", "9")]),
                rows(&[]),
                &[("8:0", ALL), (ALL, "100")],
            ),
            (WEIGHT_V1, rows(&[("", "7")]), rows(&[]), &[("", "100")]),
            (
                WEIGHT_DEVICE_V1,
                rows(&[(ALL, "7"), ("8:0", "9")]),
                rows(&[]),
                &[("8:0", ALL)],
            ),
        ] {
            let found = changes(file, &have, Some(&want));
            let found: Vec<_> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!(found, expected, "{file}");
        }
    }

    #[test]
    fn a_path_leads_to_the_disk_it_is_on() {
        let error = disk(Path::new("/proc/self/status")).unwrap_err().to_string();
        assert!(error.contains("no block device"), "{error}");
        let error = disk(Path::new("/dev/nothing-here")).unwrap_err().to_string();
        assert!(error.contains("/dev/nothing-here"), "{error}");
        // Each partition this host has, if any, and each disk.
        for entry in fs::read_dir("/sys/class/block").unwrap().flatten() {
            let node = Path::new("/dev").join(entry.file_name());
            if !node.exists() {
                continue;
            }
            let found = disk(&node).unwrap();
            let whole = Path::new("/sys/dev/block").join(&found);
            assert!(!whole.join("partition").exists(), "{}: {found}", node.display());
        }
    }
}
