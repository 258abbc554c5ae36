//! The visit counter, kept in `$DATA/visits`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

static LAST: Mutex<Option<u64>> = Mutex::new(None);

/// Counts one more visit. Also says why the count is not kept, if it is not.
pub(super) fn count() -> (u64, Option<String>) {
    let file = env::var_os("DATA").map(|data| PathBuf::from(data).join("visits"));
    // One visit at a time: the file is read and replaced.
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let (visits, kept) = match &file {
        Some(file) => next(file, *last),
        None => (last.unwrap_or(0) + 1, Err("DATA is not set".to_owned())),
    };
    *last = Some(visits);
    (visits, kept.err())
}

/// The file is the truth, so that a second instance on the same volume counts on; what this process
/// remembers bridges a file that cannot be read.
fn next(file: &Path, last: Option<u64>) -> (u64, Result<(), String>) {
    let stored = fs::read_to_string(file)
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    let visits = stored.or(last).unwrap_or(0).saturating_add(1);
    let temporary = file.with_extension(format!("{}.tmp", std::process::id()));
    let written = fs::write(&temporary, format!("{visits}\n")).and_then(|()| fs::rename(&temporary, file));
    (
        visits,
        written.map_err(|error| format!("{}: {error}", file.display())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_goes_on_where_the_file_ends() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("visits");
        assert_eq!(next(&file, None), (1, Ok(())));
        // Another process: it remembers nothing.
        assert_eq!(next(&file, None), (2, Ok(())));
        assert_eq!(fs::read_to_string(&file).unwrap(), "2\n");
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn a_damaged_file_does_not_lose_what_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("visits");
        fs::write(&file, "many").unwrap();
        assert_eq!(next(&file, Some(41)), (42, Ok(())));
    }

    #[test]
    fn without_a_directory_it_counts_in_memory_and_says_so() {
        let (visits, kept) = next(Path::new("/nonexistent/visits"), Some(3));
        assert_eq!(visits, 4);
        assert!(kept.unwrap_err().contains("/nonexistent/visits"));
    }
}
