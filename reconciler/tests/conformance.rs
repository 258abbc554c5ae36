//! The histories on the simulated host: what is told of each is what stands in its file. The real host must
//! tell the same (`backend/tests/conformance.rs`). With `UPDATE_HISTORIES=1` what is told is written anew.

use std::{fs, path::Path};

use reconciler::testing::conformance::{Simulated, histories, tell};

#[test]
fn the_simulated_host_tells_what_stands_in_the_histories() {
    let update = std::env::var_os("UPDATE_HISTORIES").is_some();
    let histories = histories().unwrap();
    assert!(
        update || histories.len() >= 15,
        "only {} histories",
        histories.len()
    );
    let mut wrong = Vec::new();
    for (name, text) in histories {
        match tell(&text, Simulated::default()) {
            Ok(told) if told == text => {}
            Ok(told) if update => {
                let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories");
                fs::write(directory.join(name).with_extension("txt"), told).unwrap();
            }
            Ok(told) => wrong.push(format!("{name}\n--- expected\n{text}\n--- told\n{told}")),
            Err(why) => wrong.push(format!("{name}\n{why}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
