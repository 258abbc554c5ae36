//! `stead schema`: the JSON Schema of manifests, for editors.

use super::print_json;
use crate::text;

pub fn run() -> anyhow::Result<u8> {
    print_json(&text::schema())?;
    Ok(0)
}
