//! Which parts of a project this host cannot keep, and where they stand in its files. Pure.

use model::{
    diagnostic::{Diagnostic, Severity, Span},
    types::{Namespace, Project, SecurityOption, Service},
};

use crate::observed::{Abilities, Fact, Lack};

/// What begins with these belongs to the filter of devices, which a privileged service has none of.
const DEVICES: &str = "device";
/// `-1` of a limit: there is none.
const NO_LIMIT: &str = "-1";

/// A refusal for each thing that `abilities` say is missing, a warning for each that is not known. Without the
/// text of the lines: files are not read here.
pub fn lacking(project: &Project, abilities: &Abilities) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (name, service) in &project.services {
        let asked = project.fields(name);
        for (attribute, lack) in &abilities.attributes {
            let is_asked = |field: &str, value: &str| {
                let rest = field.strip_prefix(attribute);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) && value != NO_LIMIT
            };
            let unconfined = service.security.privileged && attribute.starts_with(DEVICES);
            let field = asked
                .into_iter()
                .flatten()
                .find(|(field, value)| is_asked(field, value));
            if let (Some((field, _)), false) = (field, unconfined) {
                let remedy = format!("or leave `{attribute}` out");
                found.push(told(project, &format!("services.{name}.{field}"), lack, &remedy));
            }
        }
        found.extend(profile(project, name, service, abilities));
        found.extend(user_namespace(project, name, service, abilities));
    }
    found.sort_by(|a, b| (&a.span, &a.message).cmp(&(&b.span, &b.message)));
    // Two attributes of one place, or of one lack.
    found.dedup();
    found
}

/// The profile of AppArmor; the last of several counts.
fn profile(project: &Project, name: &str, service: &Service, abilities: &Abilities) -> Option<Diagnostic> {
    let options = service.security.security_opt.iter().enumerate();
    let mut named = options.filter_map(|(place, option)| match option {
        SecurityOption::AppArmor(profile) => Some((place, profile)),
        _ => None,
    });
    let (place, profile) = named.next_back()?;
    // That of another namespace of AppArmor, or several at once, is not in the list.
    let listed = !profile.starts_with(':') && !profile.contains("//&");
    if service.security.privileged || profile == "unconfined" || !listed {
        return None;
    }
    let missing = |what: String, remedy: &str| Lack::Missing {
        what,
        remedy: remedy.to_owned(),
    };
    let lack = match &abilities.profiles {
        Fact::Known(Some(loaded)) if loaded.contains(profile) => return None,
        Fact::Known(Some(_)) => missing(
            format!("this host has loaded no AppArmor profile `{profile}`"),
            "load it with apparmor_parser(8)",
        ),
        Fact::Known(None) => missing(
            format!("this host has no AppArmor, and `apparmor={profile}` asks for it"),
            "boot with `lsm=…,apparmor`",
        ),
        Fact::Unknown(why) => Lack::Unknown(format!(
            "whether this host has loaded the AppArmor profile `{profile}`: {why}"
        )),
    };
    let path = format!("services.{name}.security_opt.{place}");
    Some(told(
        project,
        &path,
        &lack,
        "or correct or remove it in `security_opt`",
    ))
}

/// Who has one of its own. Who shares a namespace with another service is in that one's.
fn user_namespace(
    project: &Project,
    name: &str,
    service: &Service,
    abilities: &Abilities,
) -> Option<Diagnostic> {
    let lack = abilities.user_namespaces.as_ref()?;
    let asked = &service.namespaces;
    let shared = [&asked.network_mode, &asked.ipc, &asked.pid]
        .into_iter()
        .flatten();
    let mut shared = shared.filter(|space| {
        matches!(
            space,
            Namespace::Host | Namespace::Service(_) | Namespace::Container(_)
        )
    });
    let none = service.security.privileged || asked.userns_mode == Some(Namespace::Host);
    if none || shared.next().is_some() {
        return None;
    }
    let remedy = "or write `userns_mode: host` if the service may do without";
    Some(told(project, &format!("services.{name}"), lack, remedy))
}

fn told(project: &Project, path: &str, lack: &Lack, otherwise: &str) -> Diagnostic {
    let (severity, message, hint) = match lack {
        Lack::Missing { what, remedy } => (Severity::Error, what.clone(), format!("{remedy}, {otherwise}")),
        Lack::Unknown(why) => (
            Severity::Warning,
            format!("it is not known {why}"),
            "if it cannot, the service does not start and says so; `stead doctor` shows what is known"
                .to_owned(),
        ),
    };
    let nowhere = || Span {
        file: project.directory.clone(),
        line: 0,
        column: 0,
    };
    Diagnostic {
        severity,
        refusal: severity == Severity::Error,
        span: project.origin(path).cloned().unwrap_or_else(nowhere),
        message,
        hint: Some(hint),
        source_line: None,
    }
}

#[cfg(test)]
mod tests;
