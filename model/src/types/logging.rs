//! Where the output of a service goes: the log drivers of Docker that stead has, and their options.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::container::Logging;
use crate::syntax::size;

const MIB: u64 = 1 << 20;

/// What becomes of the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// A file that has grown to this many bytes is followed by another; `None`: nothing is kept here.
    pub files: Option<LogFiles>,
    pub forward: Option<LogForward>,
}

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFiles {
    pub max_size: u64,
    /// The growing one included.
    pub max_file: u32,
}

/// To whom each line is sent as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogForward {
    Journal {
        socket: PathBuf,
        tag: String,
    },
    Syslog {
        address: SyslogAddress,
        facility: u8,
        format: SyslogFormat,
        tag: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogAddress {
    Datagram(PathBuf),
    Stream(PathBuf),
    Udp(SocketAddr),
    Tcp(SocketAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogFormat {
    /// As programs of this host write it: without the name of the host.
    Local,
    Rfc3164,
    Rfc5424,
    Rfc5424Micro,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            files: Some(LogFiles {
                max_size: 10 * MIB,
                max_file: 3,
            }),
            forward: None,
        }
    }
}

/// What is wrong with a driver or an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProblem {
    /// `None`: the driver.
    pub option: Option<String>,
    pub message: String,
    pub hint: &'static str,
}

/// Of the files here, and of those that are kept beside what is sent elsewhere.
const OWN: (&str, &str) = ("max-size", "max-file");
const CACHE: (&str, &str) = ("cache-max-size", "cache-max-file");
/// About how Docker writes; here nothing ever waits for a log, and nothing is compressed.
const HOW: &[&str] = &["mode", "max-buffer-size", "compress", "cache-compress"];
/// What Docker adds to each entry; here the name of the instance is that of its directory.
pub const ADDED: &[&str] = &["labels", "labels-regex", "env", "env-regex"];

impl Logging {
    /// `name`: what `{{.Name}}` in a tag stands for, and a missing tag.
    ///
    /// # Errors
    /// Each driver or option that stead does not have.
    pub fn settings(&self, name: &str, image: &str) -> Result<LogSettings, Vec<LogProblem>> {
        let mut problems = Vec::new();
        let driver = self.driver.as_deref().filter(|driver| !driver.is_empty());
        let driver = driver.unwrap_or("json-file");
        let more: &[&str] = match driver {
            "json-file" => &["max-size", "max-file", "tag"],
            "local" => &["max-size", "max-file"],
            "none" => &[],
            "journald" => &["tag", "cache-disabled", "cache-max-size", "cache-max-file"],
            "syslog" => &[
                "tag",
                "syslog-address",
                "syslog-facility",
                "syslog-format",
                "cache-disabled",
                "cache-max-size",
                "cache-max-file",
            ],
            _ => {
                return Err(vec![LogProblem {
                    option: None,
                    message: format!("there is no log driver `{}` here", crate::syntax::cut(driver)),
                    hint: "write json-file, local, journald, syslog or none; a collector can read the files",
                }]);
            }
        };
        for option in self.options.keys() {
            let known = [more, HOW, ADDED]
                .iter()
                .any(|list| list.contains(&option.as_str()));
            if !known {
                problems.push(LogProblem {
                    option: Some(option.clone()),
                    message: format!(
                        "the log driver {driver} has no option `{}` here",
                        crate::syntax::cut(option)
                    ),
                    hint: "remove it; docs/operations.md lists the options of each driver",
                });
            }
        }
        let mut read = Options {
            options: &self.options,
            problems: &mut problems,
        };
        let tag = read.tag(name, image);
        let settings = match driver {
            "none" => LogSettings {
                files: None,
                forward: None,
            },
            "journald" => LogSettings {
                files: read.cache(),
                forward: Some(LogForward::Journal {
                    socket: PathBuf::from("/run/systemd/journal/socket"),
                    tag,
                }),
            },
            "syslog" => LogSettings {
                files: read.cache(),
                forward: Some(read.syslog(tag)),
            },
            _ => LogSettings {
                files: Some(read.files(OWN, 10 * MIB, 3)),
                forward: None,
            },
        };
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(problems)
        }
    }
}

struct Options<'a> {
    options: &'a BTreeMap<String, String>,
    problems: &'a mut Vec<LogProblem>,
}

impl Options<'_> {
    fn get(&self, option: &str) -> Option<&str> {
        let text = self.options.get(option)?.as_str();
        Some(text).filter(|text| !text.is_empty())
    }

    fn wrong<T>(&mut self, option: &str, what: &str, hint: &'static str) -> Option<T> {
        let text = self.get(option).unwrap_or_default();
        let message = format!("`{}` is {what}", crate::syntax::cut(text));
        self.problems.push(LogProblem {
            option: Some(option.to_owned()),
            message,
            hint,
        });
        None
    }

    fn files(&mut self, names: (&str, &str), size: u64, count: u32) -> LogFiles {
        let max_size = match self.get(names.0).map(size::bytes) {
            None => Some(size),
            // Smaller ones would be followed by the next at every line.
            Some(Ok(size)) if size >= 4096 => Some(size),
            _ => self.wrong(names.0, "no size of a log file", "write 4k or more, like 10m"),
        };
        let max_file = match self.get(names.1).map(str::parse) {
            None => Some(count),
            Some(Ok(count @ 1..=1000)) => Some(count),
            _ => self.wrong(names.1, "no number of log files", "write a number from 1 to 1000"),
        };
        LogFiles {
            max_size: max_size.unwrap_or(size),
            max_file: max_file.unwrap_or(count),
        }
    }

    /// Small ones, so that `stead logs` has the last of it.
    fn cache(&mut self) -> Option<LogFiles> {
        let files = self.files(CACHE, MIB, 2);
        match self.get("cache-disabled") {
            None | Some("false") => Some(files),
            Some("true") => None,
            _ => self.wrong("cache-disabled", "neither true nor false", "write true or false"),
        }
    }

    fn tag(&mut self, name: &str, image: &str) -> String {
        let Some(text) = self.get("tag") else {
            return name.to_owned();
        };
        let mut tag = text.to_owned();
        for (template, value) in [
            ("Name", name),
            ("FullID", name),
            ("ID", name),
            ("ImageName", image),
            ("DaemonName", "stead"),
        ] {
            for written in [format!("{{{{.{template}}}}}"), format!("{{{{ .{template} }}}}")] {
                tag = tag.replace(&written, value);
            }
        }
        if tag.contains("{{") {
            let hint = "write {{.Name}}, {{.ImageName}}, {{.DaemonName}}, {{.ID}} or plain text";
            self.wrong::<()>("tag", "a template that is not known here", hint);
        }
        tag.retain(|c| !c.is_control());
        tag
    }

    fn syslog(&mut self, tag: String) -> LogForward {
        let local = SyslogAddress::Datagram(PathBuf::from("/dev/log"));
        let address = match self.get("syslog-address").map(address) {
            None => Some(local.clone()),
            Some(Some(address)) => Some(address),
            Some(None) => self.wrong(
                "syslog-address",
                "no address of a syslog server",
                "write unixgram:///dev/log, unix://PATH, udp://IP:514 or tcp://IP:514, with a number, no name",
            ),
        };
        let facility = match self.get("syslog-facility").map(facility) {
            None => Some(3),
            Some(Some(facility)) => Some(facility),
            Some(None) => self.wrong(
                "syslog-facility",
                "no facility of syslog",
                "write daemon, user, local0 to local7, or a number from 0 to 23",
            ),
        };
        let format = match self.get("syslog-format") {
            None => Some(SyslogFormat::Local),
            Some("rfc3164") => Some(SyslogFormat::Rfc3164),
            Some("rfc5424") => Some(SyslogFormat::Rfc5424),
            Some("rfc5424micro") => Some(SyslogFormat::Rfc5424Micro),
            Some(_) => self.wrong(
                "syslog-format",
                "no format of syslog",
                "write rfc3164, rfc5424 or rfc5424micro",
            ),
        };
        LogForward::Syslog {
            address: address.unwrap_or(local),
            facility: facility.unwrap_or(3),
            format: format.unwrap_or(SyslogFormat::Local),
            tag: tag.replace(' ', "-"),
        }
    }
}

fn address(text: &str) -> Option<SyslogAddress> {
    let (scheme, rest) = text.split_once("://")?;
    let path = || Some(PathBuf::from(rest)).filter(|path| path.is_absolute());
    let server = || {
        let bare = rest
            .parse::<IpAddr>()
            .map(|address| SocketAddr::new(address, 514));
        let local = rest.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        let local = local.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        rest.parse().or(bare).ok().or(local)
    };
    match scheme {
        "unixgram" => path().map(SyslogAddress::Datagram),
        "unix" => path().map(SyslogAddress::Stream),
        "udp" => server().map(SyslogAddress::Udp),
        "tcp" => server().map(SyslogAddress::Tcp),
        _ => None,
    }
}

fn facility(text: &str) -> Option<u8> {
    const NAMES: [&str; 12] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    ];
    if let Ok(number) = text.parse() {
        return Some(number).filter(|number| *number < 24);
    }
    if let Some(number) = text
        .strip_prefix("local")
        .and_then(|number| number.parse::<u8>().ok())
    {
        return Some(16 + number).filter(|_| number < 8);
    }
    let at = NAMES.iter().position(|name| *name == text)?;
    u8::try_from(at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(driver: &str, options: &[(&str, &str)]) -> Result<LogSettings, Vec<LogProblem>> {
        let options = options
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()));
        let logging = Logging {
            driver: Some(driver.to_owned()),
            options: options.collect(),
        };
        logging.settings("shop-web-1", "nginx:1")
    }

    #[test]
    fn options_are_in_the_units_of_docker() {
        let files = |max_size, max_file| Some(LogFiles { max_size, max_file });
        for driver in ["", "json-file", "local"] {
            assert_eq!(of(driver, &[]).unwrap(), LogSettings::default());
            let given = of(
                driver,
                &[("max-size", "200k"), ("max-file", "5"), ("compress", "true")],
            );
            assert_eq!(given.unwrap().files, files(200 << 10, 5));
        }
        assert_eq!(of("none", &[]).unwrap().files, None);
        let journal = of("journald", &[("tag", "{{.ImageName}}/{{ .Name }}")]).unwrap();
        assert_eq!(journal.files, files(MIB, 2));
        let tag = "nginx:1/shop-web-1".to_owned();
        let socket = "/run/systemd/journal/socket".into();
        assert_eq!(journal.forward, Some(LogForward::Journal { socket, tag }));
        let syslog = of(
            "syslog",
            &[
                ("syslog-address", "udp://192.0.2.1:1514"),
                ("syslog-facility", "local3"),
                ("syslog-format", "rfc5424"),
                ("cache-disabled", "true"),
            ],
        );
        assert_eq!(
            syslog.unwrap(),
            LogSettings {
                files: None,
                forward: Some(LogForward::Syslog {
                    address: SyslogAddress::Udp("192.0.2.1:1514".parse().unwrap()),
                    facility: 19,
                    format: SyslogFormat::Rfc5424,
                    tag: "shop-web-1".into(),
                }),
            }
        );
        for (text, want) in [
            (
                "tcp://[::1]:99",
                Some(SyslogAddress::Tcp("[::1]:99".parse().unwrap())),
            ),
            (
                "udp://192.0.2.1",
                Some(SyslogAddress::Udp("192.0.2.1:514".parse().unwrap())),
            ),
            (
                "udp://localhost:5",
                Some(SyslogAddress::Udp("127.0.0.1:5".parse().unwrap())),
            ),
            (
                "unixgram:///dev/log",
                Some(SyslogAddress::Datagram("/dev/log".into())),
            ),
            ("unix:///run/log", Some(SyslogAddress::Stream("/run/log".into()))),
            ("tcp://logs.example.org:514", None),
            ("tcp+tls://192.0.2.1:6514", None),
            ("unix://log", None),
            ("192.0.2.1", None),
        ] {
            assert_eq!(address(text), want, "{text}");
        }
    }

    #[test]
    fn what_is_not_had_is_named() {
        for (driver, options, wrong) in [
            ("gelf", &[][..], vec![None]),
            (
                "json-file",
                &[("max-size", "-1"), ("max-file", "0")],
                vec![Some("max-size"), Some("max-file")],
            ),
            ("json-file", &[("max-size", "100")], vec![Some("max-size")]),
            ("local", &[("tag", "x")], vec![Some("tag")]),
            ("none", &[("max-size", "1m")], vec![Some("max-size")]),
            ("journald", &[("tag", "{{.Missing}}")], vec![Some("tag")]),
            (
                "syslog",
                &[
                    ("syslog-facility", "local8"),
                    ("syslog-format", "x"),
                    ("syslog-tls-cert", "/c"),
                ],
                vec![
                    Some("syslog-tls-cert"),
                    Some("syslog-facility"),
                    Some("syslog-format"),
                ],
            ),
        ] {
            let found: Vec<_> = of(driver, options)
                .unwrap_err()
                .into_iter()
                .map(|one| one.option)
                .collect();
            let wrong: Vec<_> = wrong.into_iter().map(|one| one.map(str::to_owned)).collect();
            assert_eq!(found, wrong, "{driver}");
        }
    }
}
