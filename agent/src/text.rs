//! Projects and plans as text: the doors of `model` and `reconciler` that the agent uses.

pub use model::{
    diagnostic::render as diagnostic, project_name, revision, shape::json_schema as schema, source::Disk,
};
pub use reconciler::plan::{
    because, hash as plan_hash, json as plan_json, line as plan_line, render as plan_text, word,
};

/// What `config` prints, as JSON or YAML; `None`: some error leaves no project.
pub fn canonical(loaded: &model::load::Loaded, json: bool) -> Option<String> {
    let canonical = loaded.canonical.as_ref()?;
    Some(if json {
        model::canonical::json(canonical)
    } else {
        model::canonical::yaml(canonical)
    })
}

/// The name of what was loaded, also where stead does not run it; `None`: some error hides it.
pub fn name(loaded: &model::load::Loaded) -> Option<String> {
    match &loaded.project {
        Some(project) => Some(project.name.clone()),
        None => {
            let canonical = loaded.canonical.as_ref()?.to_json();
            canonical["name"].as_str().map(str::to_owned)
        }
    }
}
