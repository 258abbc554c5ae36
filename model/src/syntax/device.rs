//! The short form of a device: `SOURCE[:TARGET[:PERMISSIONS]]`.

use super::cut;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device<'t> {
    /// A path of the host, or the name of a device of the Container Device Interface.
    pub source: &'t str,
    pub target: &'t str,
    /// Of the letters `r`, `w` and `m`; not checked here.
    pub permissions: &'t str,
}

/// The text has more than three parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the device `{0}` has more than three parts")]
pub(crate) struct ParseDeviceError(String);

impl ParseDeviceError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "write `SOURCE:TARGET:PERMISSIONS`, or the long form with `source`, `target` and `permissions`"
    }
}

/// The target is by default the source, the permissions are `rwm`.
pub(crate) fn parse(text: &str) -> Result<Device<'_>, ParseDeviceError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, target] => (source, target, "rwm"),
        [source, target, permissions] => (source, target, permissions),
        _ => return Err(ParseDeviceError(cut(text))),
    };
    Ok(Device {
        source,
        target: if target.is_empty() { source } else { target },
        permissions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_one_to_three_parts() {
        for (text, want) in [
            ("/dev/a", ["/dev/a", "/dev/a", "rwm"]),
            ("/dev/a:/dev/b", ["/dev/a", "/dev/b", "rwm"]),
            ("/dev/a:/dev/b:r", ["/dev/a", "/dev/b", "r"]),
            ("/dev/a::rw", ["/dev/a", "/dev/a", "rw"]),
            ("/dev/a:/dev/b:", ["/dev/a", "/dev/b", ""]),
            (
                "vendor.com/class=name",
                ["vendor.com/class=name", "vendor.com/class=name", "rwm"],
            ),
        ] {
            let device = parse(text).unwrap();
            assert_eq!([device.source, device.target, device.permissions], want, "{text}");
        }
        let error = parse("a:b:c:d").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the device `a:b:c:d` has more than three parts"
        );
        assert!(error.hint().contains("long form"));
    }
}
