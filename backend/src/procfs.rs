//! Writes below /proc, and to nothing that only looks like it.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Writes one value to a file of procfs.
///
/// # Errors
/// As open(2) and write(2); something else is mounted there.
pub fn write(path: impl AsRef<Path>, value: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    if rustix::fs::fstatfs(&file)?.f_type as i64 != PROC_SUPER_MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no file of procfs; unmount what covers /proc",
        ));
    }
    file.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEC-06
    #[test]
    fn a_file_that_only_looks_like_one_of_proc_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let fake = directory.path().join("oom_score_adj");
        std::fs::write(&fake, "0").unwrap();
        assert_eq!(
            write(&fake, "500").unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(std::fs::read_to_string(&fake).unwrap(), "0");
        // As it is already: no right is needed for that.
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        write("/proc/self/oom_score_adj", own.trim()).unwrap();
    }
}
