//! `coordinator report`: from a real log to a page and a trace.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout)]

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tests::run::{complains, coordinator, prints, stdout};

/// A log of a few calls, one of which fails twice.
fn log(directory: &TempDir) -> String {
    let path = directory.path().join("run.log").display().to_string();
    let script = "[ \"$1\" != '</script>' ]";
    let output = coordinator(&[
        "exec",
        "-j2",
        "-r1",
        "--log",
        &path,
        "-c",
        script,
        ":::",
        "a",
        "</script>",
        "c",
    ]);
    assert_eq!(output.output().status.code(), Some(1));
    path
}

#[test]
fn a_log_becomes_a_page_that_needs_nothing_else() {
    let directory = TempDir::new().unwrap();
    let log = log(&directory);
    let page = directory.path().join("run.html").display().to_string();
    prints(&coordinator(&["report", &log, "-o", &page]).output(), 0, "");
    let text = fs::read_to_string(&page).unwrap();
    assert!(text.contains("1 of 3 calls failed"));
    assert_eq!(
        text.matches("</script>").count(),
        2,
        "what an input says is no markup"
    );
    assert!(!text.contains("src=") && !text.contains("http://"));
    let piped = coordinator(&["report", &log]).output();
    assert_eq!(stdout(&piped), text);
}

#[test]
fn a_log_becomes_a_trace() {
    let directory = TempDir::new().unwrap();
    let log = log(&directory);
    let output = coordinator(&["report", "--trace", &log]).output();
    let trace: Value = serde_json::from_str(stdout(&output)).unwrap();
    let events = trace["traceEvents"]
        .as_array()
        .or(trace.as_array())
        .unwrap();
    assert_eq!(events.iter().filter(|event| event["ph"] == "X").count(), 4);
}

#[test]
fn torn_and_missing_logs() {
    let directory = TempDir::new().unwrap();
    let log = log(&directory);
    let mut text = fs::read_to_string(&log).unwrap();
    text.push_str("{\"v\":1,\"te");
    fs::write(&log, text).unwrap();
    let output = coordinator(&["report", &log]).output();
    assert_eq!(output.status.code(), Some(0));
    complains(
        &coordinator(&["report", "/nowhere"]).output(),
        2,
        "/nowhere",
    );
}

#[test]
fn a_browser_draws_it() {
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let found = names.into_iter().find(|name| {
        let mut asked = Command::new(name);
        asked
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        asked.status().is_ok_and(|status| status.success())
    });
    let Some(browser) = found else {
        println!("skipped: there is no Chromium on this machine");
        return;
    };
    let directory = TempDir::new().unwrap();
    let log = log(&directory);
    let page = directory.path().join("run.html").display().to_string();
    prints(&coordinator(&["report", &log, "-o", &page]).output(), 0, "");
    let drawn = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .arg(format!(
            "--user-data-dir={}",
            directory.path().join("profile").display()
        ))
        .arg(format!("file://{page}"))
        .output()
        .unwrap();
    assert!(
        stdout(&drawn).contains("data-drawn=\"4\""),
        "{}",
        stdout(&drawn)
    );
}
