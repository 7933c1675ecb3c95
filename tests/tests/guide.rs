//! The guide holds together: each link leads to a page, each page is in the table of contents, and each promise has its
//! test.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn pages() -> Vec<PathBuf> {
    let names = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "bench/README.md",
    ];
    let docs = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|it| it == "md"));
    names
        .iter()
        .map(|name| root().join(name))
        .chain(docs)
        .collect()
}

/// What stands in parentheses behind brackets.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

/// A heading as a link names it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn each_link_leads_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let to = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            assert!(to.exists(), "{}: {link}", page.display());
            let there = || fs::read_to_string(&to).unwrap();
            assert!(
                part.is_empty()
                    || there()
                        .lines()
                        .any(|line| line.starts_with('#') && anchor(line) == part),
                "{}: {link}",
                page.display()
            );
        }
    }
}

#[test]
fn each_page_is_in_the_table_of_contents_and_tested() {
    let contents = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let tested = fs::read_to_string(root().join("tests/src/lib.rs")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for page in pages()
        .iter()
        .filter(|page| page.parent().unwrap().ends_with("docs"))
    {
        let name = page.file_name().unwrap().to_str().unwrap();
        if name != "SUMMARY.md" {
            assert!(
                contents.contains(&format!("({name})")),
                "{name} is not in SUMMARY.md"
            );
            assert!(
                tested.contains(&format!("docs/{name}")),
                "nobody tests the code of {name}"
            );
            assert!(
                readme.contains(&format!("(docs/{name})")),
                "the README does not lead to {name}"
            );
        }
    }
}

/// The names of tests that a page of promises puts into backticks, each with the file that it is in.
fn promised(text: &str) -> Vec<(String, String)> {
    let mut file = String::new();
    let mut found = Vec::new();
    let rows = text.lines().filter(|line| line.starts_with("| P"));
    for word in rows.flat_map(|row| row.split('`').skip(1).step_by(2)) {
        let (before, name) = word.split_once("::").unwrap_or(("", word));
        if before.ends_with(".rs") || word.ends_with(".rs") {
            file = if before.is_empty() {
                word.to_owned()
            } else {
                before.to_owned()
            };
        }
        if !word.ends_with(".rs") {
            found.push((file.clone(), name.to_owned()));
        }
    }
    found
}

#[test]
fn each_promise_has_its_tests() {
    let text = fs::read_to_string(root().join("docs/promises.md")).unwrap();
    let promised = promised(&text);
    assert!(promised.len() > 30, "{promised:?}");
    for (file, name) in promised {
        let place = if file.contains('/') {
            file.clone()
        } else {
            format!("tests/tests/{file}")
        };
        let source = fs::read_to_string(root().join(&place)).unwrap();
        assert!(
            source.contains(&format!("fn {name}(")),
            "{place} has no test {name}"
        );
    }
}
