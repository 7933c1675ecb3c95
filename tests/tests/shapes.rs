//! Types that an encoding without names and types does not suffice for.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use coordinator::{Described, Pool, Why};
use serde_json::json;
use tests::shapes::{self, Flat, Parts, Sparse, Tagged, Untagged};
use worker::Task;

fn pool() -> Pool {
    let builder = Pool::builder().workers(1);
    builder
        .worker(env!("CARGO_BIN_EXE_misbehave"))
        .build()
        .unwrap()
}

fn flat() -> Flat {
    Flat {
        id: 1,
        others: [("a".to_owned(), 2)].into(),
    }
}

const SPARSE: Sparse = Sparse {
    first: None,
    second: 5,
};

#[test]
fn what_is_described_arrives() {
    let pool = pool();
    let value = json!({"a": [1, -2, 0.5, null, true], "b": {"c": "text"}});
    let values = [value.clone(), json!(null), value].map(Described);
    assert_eq!(pool.map(shapes::value, values.clone()).unwrap(), values);
    let tagged = [Tagged::Circle { radius: 1 }, Tagged::Square { side: 2 }].map(Described);
    assert_eq!(pool.map(shapes::tagged, tagged.clone()).unwrap(), tagged);
    let untagged = [Untagged::Number(1), Untagged::Text("1".to_owned())].map(Described);
    assert_eq!(
        pool.map(shapes::untagged, untagged.clone()).unwrap(),
        untagged
    );
    let flat = Described(flat());
    assert_eq!(pool.call(shapes::flat, flat.clone()).unwrap(), flat);
    let sparse = Described(SPARSE);
    assert_eq!(pool.call(shapes::sparse, sparse.clone()).unwrap(), sparse);
    let parts = Parts {
        before: 1,
        sparse: SPARSE,
        behind: 2,
    };
    assert_eq!(pool.call(shapes::parts, parts.clone()).unwrap(), parts);
}

/// What is said of an input that can't travel.
fn said<T: Task>(pool: &Pool, task: T, input: T::Input) -> String {
    let Err(error) = pool.call(task, input) else {
        panic!("{} could do it", T::NAME);
    };
    assert!(matches!(error.why(), Why::Undecodable(_)), "{error}");
    let said = error.to_string();
    for part in [T::NAME, "worker::Described", "worker::described"] {
        assert!(said.contains(part), "{said}");
    }
    said
}

#[test]
fn what_is_not_described_says_what_to_do() {
    let pool = pool();
    let named = |said: String, parts: &[&str]| {
        for part in parts {
            assert!(said.contains(part), "{said}");
        }
    };
    named(said(&pool, shapes::bare_value, json!(1)), &["`Value`"]);
    let tagged = Tagged::Square { side: 2 };
    named(said(&pool, shapes::bare_tagged, tagged), &["`Tagged`"]);
    let text = Untagged::Text("text".to_owned());
    named(said(&pool, shapes::bare_untagged, text), &["`Untagged`"]);
    named(
        said(&pool, shapes::bare_flat, flat()),
        &["`Flat`", "flatten"],
    );
    // Without a word it would be another value, or the next field's.
    named(
        said(&pool, shapes::bare_sparse, SPARSE),
        &["`Sparse`", "`first`", "skip_serializing_if"],
    );
    named(said(&pool, shapes::value_of, 7), &["`Value`", "output"]);
}
