//! The one way in: texts and an environment to a project, what was read, and what is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use crate::{
    canonical::{self, Canonical},
    compose::{
        consistency,
        files::{Files, Need},
        loading::{Environment, Loading, Origin, Scope},
        normalise, profiles,
    },
    decode,
    diagnostic::Diagnostic,
    interpolate,
    name::project_name,
    pre_start, shape,
    source::Sources,
    tree::{At, Node},
    types::Project,
};

/// What the caller decides. The process environment is never looked at here.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where relative paths and `.env` are looked for.
    pub directory: PathBuf,
    /// The name where the file has none; normalised by `load`.
    pub fallback_name: String,
    /// Wins over `.env`.
    pub environment: BTreeMap<String, String>,
    /// Instead of `.env` in `directory`.
    pub env_files: Vec<PathBuf>,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
    /// Active profiles, next to those of `COMPOSE_PROFILES`; `*` is all of them.
    pub profiles: Vec<String>,
    /// The source is not trusted (git): nothing outside `directory` is read or named by
    /// `include`, `extends`, `env_file`, `label_file`, configs and secrets.
    pub confined: bool,
    /// Where the files of vendors' devices (CDI) are, later ones first in rank; `None`: where they usually are.
    pub device_directories: Option<Vec<PathBuf>>,
}

/// Total: any input gives a `Loaded`.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `None` when some diagnostic is an error, a refusal included.
    pub project: Option<Project>,
    /// What `config` prints; `None` when some diagnostic is an error that is no refusal.
    pub canonical: Option<Canonical>,
    /// Every file looked at, also the missing ones: all of them are to be watched.
    pub inputs: BTreeSet<PathBuf>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Loads one project from its Compose files, later ones merged over earlier ones.
pub fn load(sources: &dyn Sources, files: &[PathBuf], options: &Options) -> Loaded {
    let root = options.confined.then_some(options.directory.as_path());
    let mut loading = Loading::new(Files::new(sources, root), options);
    let (model, environment) = loading.project(files);
    let mut project = decode::decode(
        &model,
        &options.directory,
        options.home.as_deref(),
        &mut loading.report,
    );
    loading.contents(&mut project, &model, &environment);
    loading.profiles_of_calls(&mut project, &model);
    loading.devices_of_vendors(&mut project, &model);
    let Loading { files, report, .. } = loading;
    let (failed, refused) = (report.failed(), report.refused());
    let (diagnostics, mut origins) = report.finish();
    if !failed && !refused {
        pre_start::derive(&mut project, &mut origins);
    }
    Loaded {
        project: (!failed && !refused).then_some(Project { origins, ..project }),
        canonical: (!failed).then_some(Canonical(model)),
        inputs: files.inputs,
        diagnostics,
    }
}

impl Loading<'_> {
    /// The canonical model of the whole project, and what its variables are.
    fn project(&mut self, files: &[PathBuf]) -> (Node, Environment) {
        let directory = &self.options.directory;
        let origins: Vec<Origin> = files.iter().cloned().map(Origin::own).collect();
        if origins.is_empty() {
            let at = self.whole(directory.clone());
            self.report.error(
                at,
                "there is no Compose file to load",
                "name one, or write `compose.yaml`",
            );
        }
        let mut environment = self.project_environment();
        // The name first: it is a variable for everything else.
        let name = self.name(&origins, &environment).unwrap_or_default();
        environment.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
        let scope = Scope {
            directory,
            environment: &environment,
            included: &[],
        };
        let mut model = self.model(&origins, &scope);
        if model.entries().is_empty()
            && !self.report.failed()
            && let Some(origin) = origins.first()
        {
            let at = self.whole(origin.file.clone());
            self.report.error(
                at,
                "the file is empty",
                "write `services:` and a service below it",
            );
        }
        self.confine(&model);
        normalise::normalise(&mut model, &name, &environment);
        self.fit(&mut model);
        canonical::reshape(&mut model, &mut self.report);
        shape::settle(&mut model, &mut self.report);
        self.report.settle();
        let disabled = profiles::select(&mut model, &self.profiles(&environment));
        consistency::check(&model, &disabled, &mut self.report);
        self.resolve_files(&mut model, &environment);
        let at = model.get("name").map_or(At::default(), |name| name.at);
        model.set("name", Node::text(name, at));
        self.report.settle();
        (model, environment)
    }

    /// The given variables, over those of the env files or of `.env`.
    fn project_environment(&mut self) -> Environment {
        let options = self.options;
        let mut files: Vec<Origin> = options.env_files.iter().cloned().map(Origin::own).collect();
        if files.is_empty() {
            files.push(Origin {
                need: Need::Default,
                ..Origin::own(options.directory.join(".env"))
            });
        }
        self.environment(&files, &options.environment)
    }

    /// Those of the options; without any, those of `COMPOSE_PROFILES`.
    fn profiles(&self, environment: &Environment) -> Vec<String> {
        if !self.options.profiles.is_empty() {
            return self.options.profiles.clone();
        }
        let profiles = environment.get("COMPOSE_PROFILES").map_or("", String::as_str);
        profiles
            .split(',')
            .map(str::trim)
            .filter(|profile| !profile.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// `COMPOSE_PROJECT_NAME`, else the last `name:`, else the caller's.
    fn name(&mut self, files: &[Origin], environment: &Environment) -> Option<String> {
        const HINT: &str = "use `a-z`, `0-9`, `_` and `-`, a letter or digit first; for example `name: shop`";
        if let Some(name) = environment
            .get("COMPOSE_PROJECT_NAME")
            .filter(|name| !name.is_empty())
        {
            if project_name(name) != *name {
                let message = format!("`COMPOSE_PROJECT_NAME`: `{name}` is not a project name");
                let at = self.first(files);
                self.report.error(at, message, HINT);
                return None;
            }
            return Some(name.clone());
        }
        let mut written = None;
        for origin in files {
            for document in self.parsed(origin) {
                // What is no text is reported with all the other wrong values.
                if let Some(name) = document.get("name")
                    && let Some(text) = name.as_text().filter(|text| !text.is_empty())
                {
                    written = Some((name.at, text.to_owned()));
                }
            }
        }
        let (at, written) = match written {
            Some((at, text)) => {
                // A template that fails is reported with all the others.
                let name = interpolate::substitute(&text, environment, &mut BTreeSet::new()).ok()?;
                (at, name)
            }
            None => (self.first(files), self.options.fallback_name.clone()),
        };
        let name = project_name(&written);
        if name.len() > 128 {
            self.report
                .error(at, "`name` is longer than 128 characters", HINT);
            return None;
        }
        if name.is_empty() {
            let message = format!("`name`: nothing of `{written}` can be part of a project name");
            self.report.error(at, message, HINT);
            return None;
        }
        Some(name)
    }

    /// The first file as a whole.
    fn first(&mut self, files: &[Origin]) -> At {
        match files.first() {
            Some(origin) => self.whole(origin.file.clone()),
            None => At::default(),
        }
    }

    fn whole(&mut self, file: PathBuf) -> At {
        At {
            file: self.report.file(&file, ""),
            ..At::default()
        }
    }
}
