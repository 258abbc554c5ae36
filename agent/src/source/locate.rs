//! Files, directory and variables of a project, found as docker compose finds them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use anyhow::{anyhow, bail};
use model::{dotenv, source::Sources};

use super::directory;
use crate::text;

/// Standard input, as a file name.
pub const STDIN: &str = "-";
/// `--env-file /dev/null`: no env file at all.
const NONE: &str = "/dev/null";

/// What was typed after `config`.
#[derive(Debug, Default, Clone)]
pub struct Asked {
    pub files: Vec<PathBuf>,
    pub project_directory: Option<PathBuf>,
    pub env_files: Vec<PathBuf>,
}

/// What is to be loaded. Paths are absolute and have no `.` and `..`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Located {
    pub files: Vec<PathBuf>,
    pub directory: PathBuf,
    /// Wins over the env files of the project.
    pub environment: BTreeMap<String, String>,
    /// Empty: `.env` of the directory.
    pub env_files: Vec<PathBuf>,
    /// Files beside those that are read, of names that docker compose looks for, too.
    pub passed_over: Vec<PathBuf>,
}

/// `here`: the working directory; `process`: the variables of this process, which win over all others.
///
/// # Errors
/// There is no Compose file, or what says where it is cannot be understood.
pub fn locate(asked: &Asked, here: &Path, process: &BTreeMap<String, String>) -> anyhow::Result<Located> {
    let absolute = |path: &Path| clean(&here.join(path));
    let mut environment = process.clone();
    environment
        .entry("PWD".to_owned())
        .or_insert_with(|| here.display().to_string());
    let named: Vec<PathBuf> = if asked.env_files.is_empty() {
        let list = process.get("COMPOSE_ENV_FILES").map_or("", String::as_str);
        list.split(',')
            .filter(|file| !file.is_empty())
            .map(PathBuf::from)
            .collect()
    } else {
        asked.env_files.clone()
    };
    let mut env_files: Vec<PathBuf> = named.iter().map(|file| absolute(file)).collect();
    if env_files.is_empty() && is_true("COMPOSE_DISABLE_ENV_FILE", process)? {
        env_files.push(NONE.into());
    }
    let project_directory = asked.project_directory.as_deref().map(absolute);

    let (files, passed_over) = if asked.files.is_empty() {
        // What says where the files are may stand in an env file, and that one counts also where they turn
        // out to be elsewhere.
        let start = project_directory.as_deref().unwrap_or(here);
        let first = variables_at(start, &env_files, &environment)?;
        if env_files.is_empty() {
            for (name, value) in &first {
                environment.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        let variable = |name: &str| environment.get(name).or_else(|| first.get(name));
        match listed(variable) {
            Some(files) => (files, Vec::new()),
            None => search(start)?,
        }
    } else {
        (asked.files.clone(), Vec::new())
    };
    let files: Vec<PathBuf> = files
        .into_iter()
        .map(|file| match file.as_os_str() == STDIN {
            true => file,
            false => absolute(&file),
        })
        .collect();
    let of_first = files
        .iter()
        .find(|file| file.as_os_str() != STDIN)
        .and_then(|file| file.parent());
    let directory = project_directory.unwrap_or_else(|| of_first.unwrap_or(here).to_owned());
    Ok(Located {
        files,
        directory,
        environment,
        env_files,
        passed_over,
    })
}

/// Of a project directory: what `COMPOSE_FILE` in its `.env` names instead of the files found there. `None`:
/// there is none, or `.env` is wrong, which is told by whoever loads the project.
pub fn named_in(directory: &Path, environment: &BTreeMap<String, String>) -> Option<Located> {
    let first = variables_at(directory, &[], environment).ok()?;
    let files = listed(|name| first.get(name))?;
    let files: Vec<PathBuf> = files.iter().map(|file| clean(&directory.join(file))).collect();
    let mut environment = environment.clone();
    for (name, value) in first {
        environment.entry(name).or_insert(value);
    }
    Some(Located {
        directory: files[0].parent().unwrap_or(directory).to_owned(),
        files,
        environment,
        env_files: Vec::new(),
        passed_over: Vec::new(),
    })
}

/// The files that the variables name.
fn listed<'a>(variable: impl Fn(&str) -> Option<&'a String>) -> Option<Vec<PathBuf>> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let list = variable("COMPOSE_FILE")?;
    let separator = variable("COMPOSE_PATH_SEPARATOR").map_or(":", String::as_str);
    Some(list.split(separator).map(PathBuf::from).collect())
}

/// In `start`, else in the nearest directory above that has one.
fn search(start: &Path) -> anyhow::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    for directory in start.ancestors() {
        if let Some(chosen) = directory::choose(|name| directory.join(name).exists()) {
            let paths = |names: Vec<&str>| names.into_iter().map(|name| directory.join(name)).collect();
            return Ok((paths(chosen.files), paths(chosen.passed_over)));
        }
    }
    bail!(
        "there is no compose.yaml in {} or above; name a file with -f",
        start.display()
    )
}

/// The variables of the env files, else of `.env` in `directory` where there is one. A missing env file is
/// told by whoever loads the project.
fn variables_at(
    directory: &Path,
    env_files: &[PathBuf],
    environment: &BTreeMap<String, String>,
) -> anyhow::Result<BTreeMap<String, String>> {
    let default = [directory.join(".env")];
    let files = if env_files.is_empty() {
        default.as_slice()
    } else {
        env_files
    };
    let mut variables = BTreeMap::new();
    for file in files {
        let Ok(bytes) = text::Disk.read(file) else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        let given = |name: &str| environment.get(name).map(String::as_str);
        // Names without a value are told by whoever loads the project, too.
        dotenv::parse_into(&text, &given, &mut variables, &mut BTreeSet::new()).map_err(|error| {
            anyhow!(
                "{}:{}:{}: {error}; {}",
                file.display(),
                error.line(),
                error.column(),
                error.hint()
            )
        })?;
    }
    Ok(variables)
}

/// A switch among the variables, in the words of docker compose.
fn is_true(name: &str, variables: &BTreeMap<String, String>) -> anyhow::Result<bool> {
    match variables.get(name).map(String::as_str) {
        None => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => bail!("{name} is `{other}`; set it to true or false, or unset it"),
    }
}

/// Without `.` and `..`, by the names alone: a link keeps its name.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// A directory tree: files with their texts.
    fn tree(files: &[(&str, &str)]) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        for (name, text) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (directory, root)
    }

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        pairs.collect()
    }

    /// Files and directory, relative to the root of the tree.
    fn found(root: &Path, asked: &Asked, here: &str, process: &[(&str, &str)]) -> (Vec<String>, String) {
        let located = locate(asked, &clean(&root.join(here)), &variables(process)).unwrap();
        let short = |path: &Path| {
            let path = path.strip_prefix(root).unwrap_or(path);
            path.display().to_string()
        };
        let files = located.files.iter().map(|file| short(file)).collect();
        (files, short(&located.directory))
    }

    #[test]
    fn the_nearest_directory_with_a_compose_file_is_the_project() {
        let tree_of = |names: &[&str]| tree(&names.iter().map(|name| (*name, "")).collect::<Vec<_>>());
        for (names, here, files, directory) in [
            (&["compose.yaml"][..], "", &["compose.yaml"][..], ""),
            (&["a/compose.yaml", "a/b/c/x"], "a/b/c", &["a/compose.yaml"], "a"),
            (
                &["compose.yml", "docker-compose.yml", "docker-compose.yaml"],
                "",
                &["compose.yml"],
                "",
            ),
            (
                &["docker-compose.yaml", "docker-compose.yml"],
                "",
                &["docker-compose.yml"],
                "",
            ),
            (
                &["compose.yaml", "compose.override.yaml", "compose.override.yml"],
                "",
                &["compose.yaml", "compose.override.yml"],
                "",
            ),
            (
                &["compose.yaml", "docker-compose.override.yaml"],
                "",
                &["compose.yaml", "docker-compose.override.yaml"],
                "",
            ),
            (
                &["compose.yaml", "a/compose.override.yaml"],
                "a",
                &["compose.yaml"],
                "",
            ),
        ] {
            let (_directory, root) = tree_of(names);
            let (got, at) = found(&root, &Asked::default(), here, &[]);
            assert_eq!(
                (got.as_slice(), at.as_str()),
                (&*owned(files), directory),
                "{names:?}"
            );
        }
    }

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn files_that_are_named_are_read_in_their_order_and_the_first_gives_the_directory() {
        let (_directory, root) = tree(&[("compose.yaml", ""), ("a/one.yaml", ""), ("b/two.yaml", "")]);
        let asked = |files: &[&str], directory: Option<&str>| Asked {
            files: files.iter().map(PathBuf::from).collect(),
            project_directory: directory.map(PathBuf::from),
            ..Asked::default()
        };
        for (files, directory, here, want, at) in [
            (
                &["a/one.yaml", "b/two.yaml"][..],
                None,
                "",
                &["a/one.yaml", "b/two.yaml"][..],
                "a",
            ),
            (
                &["../b/two.yaml", "one.yaml"],
                None,
                "a",
                &["b/two.yaml", "a/one.yaml"],
                "b",
            ),
            (&["a/one.yaml"], Some("./b/."), "", &["a/one.yaml"], "b"),
            (&["-", "b/two.yaml"], None, "", &["-", "b/two.yaml"], "b"),
            (&["-"], None, "a", &["-"], "a"),
        ] {
            // COMPOSE_FILE is for when nothing is named.
            let process = [("COMPOSE_FILE", "nonsense.yaml")];
            let got = found(&root, &asked(files, directory), here, &process);
            assert_eq!(got, (owned(want), at.to_owned()), "{files:?}");
        }
    }

    #[test]
    fn compose_file_comes_from_the_process_else_from_the_env_file_of_this_directory() {
        let (_directory, root) = tree(&[
            ("compose.yaml", ""),
            (".env", "COMPOSE_FILE=a.yaml:b.yaml\nTAG=1\n"),
            (
                "sub/.env",
                "COMPOSE_FILE=${BASE}/a.yaml;b.yaml\nCOMPOSE_PATH_SEPARATOR=;\n",
            ),
            ("other.env", "COMPOSE_FILE=c.yaml\n"),
        ]);
        let base = root.display().to_string();
        let asked = |env_files: &[&str]| Asked {
            env_files: env_files.iter().map(PathBuf::from).collect(),
            ..Asked::default()
        };
        for (asked, here, process, want) in [
            (asked(&[]), "", &[][..], &["a.yaml", "b.yaml"][..]),
            (asked(&[]), "", &[("COMPOSE_FILE", "x.yaml")], &["x.yaml"]),
            (
                asked(&[]),
                "sub",
                &[("BASE", base.as_str())],
                &["a.yaml", "sub/b.yaml"],
            ),
            (asked(&["other.env"]), "", &[], &["c.yaml"]),
            (asked(&[]), "", &[("COMPOSE_ENV_FILES", "other.env")], &["c.yaml"]),
            (asked(&["/dev/null"]), "", &[], &["compose.yaml"]),
            (
                asked(&[]),
                "",
                &[("COMPOSE_DISABLE_ENV_FILE", "1")],
                &["compose.yaml"],
            ),
            (
                asked(&[]),
                "",
                &[("COMPOSE_DISABLE_ENV_FILE", "false")],
                &["a.yaml", "b.yaml"],
            ),
        ] {
            let (files, _) = found(&root, &asked, here, process);
            assert_eq!(files, owned(want), "{asked:?} {process:?}");
        }
    }

    #[test]
    fn the_env_file_of_this_directory_counts_also_for_a_project_above() {
        let (_directory, root) = tree(&[("compose.yaml", ""), ("sub/.env", "TAG=sub\nHOME=/elsewhere\n")]);
        let located = locate(
            &Asked::default(),
            &root.join("sub"),
            &variables(&[("HOME", "/root")]),
        )
        .unwrap();
        assert_eq!(located.directory, root);
        assert_eq!(located.environment["TAG"], "sub");
        assert_eq!(located.environment["HOME"], "/root");
        assert!(located.env_files.is_empty(), "and `.env` of the project below it");
    }

    #[test]
    fn what_cannot_be_found_or_understood_is_told_with_a_remedy() {
        let (_directory, root) = tree(&[("bad/.env", "A=1\nB='open\n"), ("empty/x", "")]);
        for (here, process, words) in [
            ("empty", &[][..], &["compose.yaml", "-f"][..]),
            ("bad", &[], &[".env:2", "never closed"]),
            (
                "empty",
                &[("COMPOSE_DISABLE_ENV_FILE", "maybe")],
                &["COMPOSE_DISABLE_ENV_FILE", "maybe", "true"],
            ),
        ] {
            let said = locate(&Asked::default(), &root.join(here), &variables(process))
                .unwrap_err()
                .to_string();
            for word in words {
                assert!(said.contains(word), "{word}: {said}");
            }
        }
    }

    #[test]
    fn a_second_compose_file_is_passed_over() {
        let (_directory, root) = tree(&[("compose.yaml", ""), ("docker-compose.yml", "")]);
        let located = locate(&Asked::default(), &root, &BTreeMap::new()).unwrap();
        assert_eq!(located.passed_over, [root.join("docker-compose.yml")]);
    }

    #[test]
    fn a_project_directory_may_name_its_files_in_its_env_file() {
        let (_directory, root) = tree(&[
            ("plain/.env", "TAG=1\n"),
            ("wrong/.env", "COMPOSE_FILE='open\n"),
            (
                "listed/.env",
                "COMPOSE_FILE=deploy/base.yaml:${SECOND:-more.yaml}\nTAG=1\n",
            ),
        ]);
        // Where an agent runs has no say in it.
        let outside = variables(&[("COMPOSE_FILE", "x.yaml"), ("TAG", "2")]);
        for name in ["plain", "wrong", "none"] {
            assert_eq!(named_in(&root.join(name), &outside), None, "{name}");
        }
        let directory = root.join("listed");
        let located = named_in(&directory, &outside).unwrap();
        assert_eq!(
            located.files,
            [directory.join("deploy/base.yaml"), directory.join("more.yaml")]
        );
        assert_eq!(located.directory, directory.join("deploy"));
        assert_eq!(located.environment["TAG"], "2");
    }
}
