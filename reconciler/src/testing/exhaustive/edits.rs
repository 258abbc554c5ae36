//! The manifests of the small world: the first one, and every edit of it that is tried.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    desired::{Desired, Wish},
    testing::manifest,
};

pub const PROJECT: &str = "shop";

/// What is wanted after an edit.
pub struct Edit {
    pub name: &'static str,
    pub desired: Desired,
    /// Services whose processes the edit may stop or start again.
    pub touches: &'static [&'static str],
    /// Whatever there is stays as it is.
    pub frozen: bool,
}

const DB: &str = "db\n  restart always\n  volume data:/data\n";
const WEB: &str = "web\n  restart always\n  env A 1\n  port 8080:80\n  needs db\n";

/// The first is what every way begins with.
pub fn edits() -> Result<Vec<Edit>, String> {
    let web = |lines: &str| format!("{DB}web\n  restart always\n{lines}");
    let db = |lines: &str| format!("db\n  restart always\n{lines}{WEB}");
    let texts: [(&str, String, &[&str]); 25] = [
        ("the first manifest", format!("{DB}{WEB}"), &[]),
        (
            "another environment",
            web("  env A 2\n  port 8080:80\n  needs db\n"),
            &["web"],
        ),
        (
            "another image",
            web("  image app:2\n  env A 1\n  port 8080:80\n  needs db\n"),
            &["web"],
        ),
        (
            "another command",
            web("  command /other\n  env A 1\n  port 8080:80\n  needs db\n"),
            &["web"],
        ),
        (
            "another host port",
            web("  env A 1\n  port 8081:80\n  needs db\n"),
            &[],
        ),
        ("no port", web("  env A 1\n  needs db\n"), &[]),
        (
            "a port of the other",
            db("  volume data:/data\n  port 9090:90\n"),
            &[],
        ),
        (
            "the port goes to the other",
            format!("{DB}  port 8080:80\nweb\n  restart always\n  env A 1\n  needs db\n"),
            &[],
        ),
        (
            "a network more",
            web("  env A 1\n  port 8080:80\n  needs db\n  net default\n  net back\n"),
            &[],
        ),
        (
            "another network",
            web("  env A 1\n  port 8080:80\n  needs db\n  net back\n"),
            &[],
        ),
        (
            "an internal network",
            format!("{DB}{WEB}net default internal\n"),
            &[],
        ),
        (
            "an alias",
            web("  env A 1\n  port 8080:80\n  needs db\n  net default www\n"),
            &[],
        ),
        (
            "a volume more",
            web("  env A 1\n  port 8080:80\n  needs db\n  volume data:/d\n"),
            &["web"],
        ),
        ("no volume", db(""), &["db"]),
        ("no web", DB.to_owned(), &["web"]),
        (
            "no db",
            "web\n  restart always\n  env A 1\n  port 8080:80\n".to_owned(),
            &["db"],
        ),
        (
            "a service more",
            format!("{DB}{WEB}job\n  restart no\n"),
            &["job"],
        ),
        ("no order", web("  env A 1\n  port 8080:80\n"), &[]),
        (
            "healthy first",
            format!(
                "{DB}  health true\nweb\n  restart always\n  env A 2\n  port 8080:80\n  needs db healthy\n"
            ),
            &["web"],
        ),
        (
            "no restarts",
            format!("{DB}web\n  restart no\n  env A 1\n  port 8080:80\n  needs db\n"),
            &[],
        ),
        (
            "a label",
            web("  env A 1\n  port 8080:80\n  needs db\n  label x 1\n"),
            &[],
        ),
        ("db twice", db("  volume data:/data\n  scale 2\n"), &[]),
        (
            "the new one first",
            web("  env A 2\n  port 8080:80\n  needs db\n  update order start-first\n"),
            &["web"],
        ),
        (
            "the new one first, once it has proved itself",
            web(
                "  env A 2\n  port 8080:80\n  needs db\n  update order start-first monitor 50ms action continue\n",
            ),
            &["web"],
        ),
        (
            "a limit",
            web("  env A 1\n  port 8080:80\n  needs db\n  memory 100000000\n"),
            &[],
        ),
    ];
    let mut edits = Vec::new();
    for (index, (name, text, touches)) in texts.into_iter().enumerate() {
        let wish = Wish::Run {
            project: Arc::new(manifest::project(PROJECT, &text)?),
            revision: index.to_string(),
        };
        edits.push(edit(name, Some(wish), touches, false));
    }
    let both: &[&str] = &["db", "web"];
    let hold = Wish::Hold {
        why: "its manifest was never good".to_owned(),
    };
    edits.push(edit("down", Some(Wish::Down { volumes: false }), both, false));
    edits.push(edit(
        "down --volumes",
        Some(Wish::Down { volumes: true }),
        both,
        false,
    ));
    edits.push(edit("the file is gone", None, both, false));
    edits.push(edit("hold", Some(hold), &[], true));
    let mut unread = edit("the file is gone, the directory not whole", None, &[], true);
    unread.desired.incomplete = Some("a source could not be read".to_owned());
    edits.push(unread);
    Ok(edits)
}

fn edit(name: &'static str, wish: Option<Wish>, touches: &'static [&'static str], frozen: bool) -> Edit {
    let projects = wish.map(|wish| (PROJECT.to_owned(), wish));
    Edit {
        name,
        desired: Desired {
            projects: projects.into_iter().collect::<BTreeMap<_, _>>(),
            incomplete: None,
            intents: BTreeMap::new(),
        },
        touches,
        frozen,
    }
}
