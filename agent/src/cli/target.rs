//! TARGET of `exec`, `attach` and others: one running instance.

use anyhow::bail;

use crate::api::wire::Place;

/// # Errors
/// There is none, or several projects have it.
pub fn find<'a>(target: &str, places: &'a [Place]) -> anyhow::Result<&'a Place> {
    let parts: Vec<&str> = target.split('/').collect();
    let fits = |place: &&Place| match parts.as_slice() {
        [service] => place.service == *service,
        [project, service] => place.project == *project && place.service == *service,
        [project, service, index] => {
            place.project == *project && place.service == *service && place.index.to_string() == *index
        }
        _ => false,
    };
    let found: Vec<&Place> = places.iter().filter(fits).collect();
    let mut projects: Vec<&str> = found.iter().map(|place| place.project.as_str()).collect();
    projects.dedup();
    match found.iter().find(|place| place.running) {
        _ if projects.len() > 1 => {
            bail!(
                "`{target}` is in several projects ({}); write PROJECT/{target}",
                projects.join(", ")
            )
        }
        Some(place) => Ok(place),
        None if found.is_empty() => {
            bail!("there is no instance `{target}`; `stead ps -a` shows what there is")
        }
        None => bail!("`{target}` is not running; `stead status` says why"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(project: &str, service: &str, running: bool) -> Place {
        Place {
            project: project.into(),
            service: service.into(),
            index: 1,
            running,
            socket: "/s".into(),
            logs: "/l".into(),
        }
    }

    #[test]
    fn a_target_names_one_running_instance() {
        let places = [
            place("shop", "web", true),
            place("blog", "web", true),
            place("shop", "db", true),
            place("shop", "job", false),
        ];
        for (target, want) in [
            ("db", Ok(2)),
            ("shop/web", Ok(0)),
            ("blog/web/1", Ok(1)),
            ("web", Err("several projects (shop, blog)")),
            ("shop/web/2", Err("no instance")),
            ("job", Err("not running")),
            ("a/b/c/d", Err("no instance")),
        ] {
            match (find(target, &places), want) {
                (Ok(found), Ok(index)) => assert_eq!(found, &places[index], "{target}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{target}: {error}"),
                (found, want) => panic!("{target}: {found:?}, not {want:?}"),
            }
        }
    }
}
