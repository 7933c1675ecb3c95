//! What programs read is as the schemas in the guide say.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;

use serde_json::Value;
use tests::run::{coordinator, stdout};

fn holds(schema: &str, lines: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/schemas")
        .join(schema);
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for line in lines.lines() {
        let object: Value = serde_json::from_str(line).unwrap();
        let errors: Vec<_> = validator
            .iter_errors(&object)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{line}: {errors:?}");
    }
    lines.lines().count()
}

#[test]
fn json_and_log_are_as_their_schemas_say() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let log = log.to_str().unwrap();
    let ends =
        "echo out; printf '\\377' >&2; case $1 in 2) exit 3;; 3) kill -9 $$;; 4) sleep 60;; esac";
    let exec = [
        "exec", "--json", "--log", log, "-r1", "-t", "200ms", "-c", ends, ":::", "1", "2", "3", "4",
    ];
    let exec = coordinator(&exec).output();
    assert_eq!(
        holds("json.schema.json", stdout(&exec)),
        5,
        "four calls and the run"
    );
    assert_eq!(
        holds("log.schema.json", &std::fs::read_to_string(log).unwrap()),
        7
    );

    let map = coordinator(&["map", "square", "--json", ":::", "1", "x"]).output();
    assert_eq!(holds("json.schema.json", stdout(&map)), 3);

    // A line too many, after a moment in which it is found.
    let late = "while read l; do echo a; [ $l = 1 ] && { sleep .1; echo extra; }; done";
    let pipe =
        coordinator(&["pipe", "-j1", "--json", "--", "sh", "-c", late]).with_input(b"1\n2\n3\n");
    assert!(holds("json.schema.json", stdout(&pipe)) >= 4);
}
