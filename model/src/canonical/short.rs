//! The parsers of short forms as the long syntax needs them.

pub(super) mod port {
    use crate::{syntax::port, types::Protocol};

    pub struct Port {
        pub host_ip: Option<String>,
        pub published: Option<String>,
        pub target: u16,
        pub protocol: String,
    }

    pub fn parse(text: &str) -> Result<Vec<Port>, Error> {
        let ports = port::parse(text).map_err(Error)?;
        let ports = ports.into_iter().map(|port| Port {
            host_ip: port.host_ip.map(|ip| ip.to_string()),
            published: port.published.map(|range| match range.first == range.last {
                true => range.first.to_string(),
                false => format!("{}-{}", range.first, range.last),
            }),
            target: port.target,
            protocol: match port.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            }
            .to_owned(),
        });
        Ok(ports.collect())
    }

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    pub struct Error(port::ParsePortError);

    impl Error {
        pub fn hint(&self) -> &'static str {
            "write `[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]` in quotes, as in \"8080:80\""
        }
    }
}

pub(super) mod volume {
    use crate::syntax::volume::{self, Source};

    #[derive(Default)]
    pub struct Bind {
        pub propagation: Option<String>,
        pub selinux: Option<String>,
        pub create_host_path: bool,
    }

    pub struct Options {
        pub nocopy: bool,
    }

    pub struct ShortVolume {
        pub r#type: String,
        pub source: Option<String>,
        pub target: String,
        pub read_only: bool,
        pub bind: Option<Bind>,
        pub volume: Option<Options>,
        pub consistency: Option<String>,
        pub ignored: Vec<String>,
    }

    pub fn parse(text: &str) -> Result<ShortVolume, Error> {
        let short = volume::parse(text).map_err(Error)?;
        let (r#type, source) = match short.source {
            Source::Anonymous => ("volume", None),
            Source::Named(name) => ("volume", Some(name)),
            Source::Path(path) => ("bind", Some(path)),
        };
        let bind = Bind {
            propagation: short.unsupported.last().map(|&mode| mode.to_owned()),
            create_host_path: true,
            ..Bind::default()
        };
        Ok(ShortVolume {
            r#type: r#type.to_owned(),
            source: source.map(str::to_owned),
            target: short.target.to_owned(),
            read_only: short.read_only,
            bind: (r#type == "bind").then_some(bind),
            volume: (r#type == "volume").then_some(Options { nocopy: short.nocopy }),
            consistency: None,
            ignored: short.ignored.iter().map(|&option| option.to_owned()).collect(),
        })
    }

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    pub struct Error(volume::ParseVolumeError);

    impl Error {
        pub fn hint(&self) -> &'static str {
            "write `[SOURCE:]TARGET[:OPTIONS]`, as in \"./data:/data:ro\""
        }
    }
}

pub(super) mod device {
    pub struct Device {
        pub source: String,
        pub target: String,
        pub permissions: String,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("`{0}` has too many colons")]
    pub struct Error(String);

    impl Error {
        pub fn hint(&self) -> &'static str {
            "write `SOURCE[:TARGET[:PERMISSIONS]]`, as in \"/dev/ttyUSB0:/dev/tty:rw\", or the long syntax"
        }
    }

    pub fn parse(text: &str) -> Result<Device, Error> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, permissions) = match parts[..] {
            [source] => (source, source, "rwm"),
            [source, target] => (source, target, "rwm"),
            [source, target, permissions] => (source, target, permissions),
            _ => return Err(Error(super::super::place::cut(text))),
        };
        let target = if target.is_empty() { source } else { target };
        Ok(Device {
            source: source.to_owned(),
            target: target.to_owned(),
            permissions: permissions.to_owned(),
        })
    }
}
