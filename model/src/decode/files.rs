//! Configs, secrets and logs.

use std::path::Path;

use super::{Reader, value::Place};
use crate::{
    syntax::cut,
    types::{ADDED, FileMount, FileSource, LogProblem, Logging},
};

impl Reader<'_> {
    pub(super) fn file_source(&mut self, key: &str, place: &Place, project: &str) -> FileSource {
        FileSource {
            name: self.object_name(key, place, project),
            file: place.word("file").map(Into::into),
            environment: place.word("environment"),
            content: place.get("content").and_then(|content| content.scalar()),
            external: place.flag("external"),
            labels: place.texts_by_name("labels"),
            ..FileSource::default()
        }
    }

    /// A relative target is below `directory`, and so is the default.
    pub(super) fn file_mounts(&mut self, place: &Place, key: &str, directory: &str) -> Vec<FileMount> {
        let mut mounts = Vec::new();
        for item in place.list(key) {
            let source = item.word("source").unwrap_or_default();
            let target = item.word("target").unwrap_or_else(|| source.clone());
            let target = Path::new(directory).join(target);
            let uid = self.number(&item, "uid", 0..=i128::from(u32::MAX) - 1);
            let gid = self.number(&item, "gid", 0..=i128::from(u32::MAX) - 1);
            let mode = self.octal(&item);
            if let Some(target) = self.target(&item, &target.to_string_lossy()) {
                mounts.push(FileMount {
                    source,
                    target,
                    uid,
                    gid,
                    mode,
                });
            }
        }
        mounts
    }

    /// The canonical form has modes as octal text.
    fn octal(&mut self, place: &Place) -> Option<u32> {
        let text = place.word("mode")?;
        let digits = text.strip_prefix("0o").unwrap_or(&text);
        let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777);
        if mode.is_none() {
            let place = place.get("mode")?;
            let what = format!("`{}` is not a mode", cut(&text));
            self.refuse(&place, what, "write permissions in octal, like `0440`");
        }
        mode
    }

    pub(super) fn logging(&mut self, place: &Place) -> Option<Logging> {
        let place = place.get("logging")?;
        let logging = Logging {
            driver: place.word("driver"),
            options: place.texts_by_name("options"),
        };
        let options = place.get("options");
        for LogProblem {
            option,
            message,
            hint,
        } in logging.settings("", "").err().into_iter().flatten()
        {
            let wrong = match &option {
                Some(option) => options.as_ref().and_then(|options| options.get(option)),
                None => place.get("driver"),
            };
            self.refuse(wrong.as_ref().unwrap_or(&place), message, hint);
        }
        for option in ADDED {
            if let Some(added) = options.as_ref().and_then(|options| options.get(option)) {
                let message = format!(
                    "`{}` is ignored: nothing is added to what a service prints",
                    added.path
                );
                self.report.warning(added.node.at, message, "remove it");
            }
        }
        Some(logging).filter(|logging| *logging != Logging::default())
    }
}
