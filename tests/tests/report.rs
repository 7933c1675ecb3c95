//! `coordinator report`: pages and traces, from logs written by hand and by a run.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use tempfile::TempDir;
use tests::run::{complains, coordinator, prints, stderr, stdout};

/// Two runs, a call tried again, and one whose input tries to be markup.
const LOG: &str = r#"{"v":1,"run":"a","template":"exec -- gzip {}","seq":1,"input":"one","attempt":1,"again":true,"status":"timed_out","exit":null,"signal":null,"start":1732435200.5,"ms":100.0,"worker":1,"pid":41,"error":"timed out after 100ms"}
{"v":1,"run":"a","template":"exec -- gzip {}","seq":2,"input":"</script><script>document.title='bad'</script>","attempt":1,"again":false,"status":"failed","exit":3,"signal":null,"start":1732435200.5,"ms":250.25,"worker":2,"pid":42,"error":null,"new":[1]}
{"v":1,"run":"b","template":"exec -- gzip {}","seq":1,"input":"one","attempt":1,"again":false,"status":"ok","exit":0,"start":1732442400.0,"ms":80.5,"worker":1,"pid":51}
{"v":1,"run":"b","template":"exec -- gzip {}","seq":3,"input_b64":"Yf9i","attempt":1,"again":false,"status":"cancelled","start":null,"ms":null,"worker":null}
"#;

/// A directory with a log of this content.
fn log(content: &str) -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("run.jsonl");
    std::fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn the_page_tells_what_happened() {
    let (_directory, path) = log(LOG);
    let output = coordinator(&["report", &path]).output();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let page = stdout(&output);
    for part in [
        "exec -- gzip {}",
        "✗ 2 of 3 calls failed",
        "exit 3",
        "timed out, tried again",
        "2024-11-24 08:00:00 UTC",
        "&lt;/script&gt;&lt;script&gt;document",
        "a\u{fffd}b",
        "1 attempt never ran",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    assert!(!page.contains("<script>document"), "{page}");
    assert!(
        !page.contains("http:") && !page.contains("https:"),
        "{page}"
    );
}

#[test]
fn a_file_is_written_where_it_is_wanted() {
    let (directory, path) = log(LOG);
    let file = directory.path().join("page.html");
    let output = coordinator(&["report", &path, "-o", file.to_str().unwrap()]).output();
    prints(&output, 0, "");
    assert_eq!(stderr(&output), "");
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.starts_with("<!doctype html>"), "{page}");
    assert!(page.ends_with("</html>\n"), "{page}");
}

#[test]
fn a_trace_has_the_attempts() {
    let (_directory, path) = log(LOG);
    let output = coordinator(&["report", "--trace", &path]).output();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let trace = stdout(&output);
    assert!(trace.starts_with("{\"displayTimeUnit\""), "{trace}");
    assert_eq!(trace.matches("\"ph\":\"X\"").count(), 3, "{trace}");
    assert_eq!(trace.matches("\"ph\":\"i\"").count(), 1, "{trace}");
    assert!(trace.contains("\"dur\":250250"), "{trace}");
    assert!(trace.contains("\"worker 2\""), "{trace}");
}

#[test]
fn what_is_no_attempt_is_skipped_with_one_warning() {
    let (_directory, path) = log(&format!("{LOG}what?\n{{\"v\":1,\"run\":\"b\",\"inp"));
    let output = coordinator(&["report", &path]).output();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("skipped line 5"),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("cut off"), "{}", stderr(&output));
    assert!(stdout(&output).contains("2 of 3 calls failed"));
}

#[test]
fn the_log_of_a_real_run_is_understood() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("run.log").display().to_string();
    let script = "[ \"$1\" != b ]";
    // The same input twice is two calls; one fails, twice.
    let inputs = ["a", "b", "a"];
    let words = ["exec", "-j2", "-r1", "--log", &path, "-c", script, ":::"];
    let output = coordinator(&[&words[..], &inputs].concat()).output();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let page = coordinator(&["report", &path]).output();
    assert_eq!(stderr(&page), "");
    assert!(stdout(&page).contains("1 of 3 calls failed"));
    let trace = coordinator(&["report", "--trace", &path]).output();
    assert_eq!(stdout(&trace).matches("\"ph\":\"X\"").count(), 4);
}

#[test]
fn an_empty_log_gives_a_page_that_says_so() {
    let (_directory, path) = log("");
    let output = coordinator(&["report", &path]).output();
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("The log is empty"));
}

#[test]
fn a_log_that_cannot_be_read_or_would_be_lost_is_a_mistake() {
    let (directory, path) = log(LOG);
    let missing = directory.path().join("missing");
    let output = coordinator(&["report", missing.to_str().unwrap()]).output();
    complains(&output, 2, "can't be read");
    let output = coordinator(&["report", directory.path().to_str().unwrap()]).output();
    complains(&output, 2, "can't be read");
    complains(
        &coordinator(&["report", "/etc/passwd"]).output(),
        2,
        "no line of a log",
    );
    let output = coordinator(&["report", &path, "-o", &path]).output();
    complains(&output, 2, "is the log itself");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), LOG);
    let nowhere = directory.path().join("no/such/page.html");
    let output = coordinator(&["report", &path, "-o", nowhere.to_str().unwrap()]).output();
    complains(&output, 3, "can't be written");
}

#[test]
fn the_help_fits_a_terminal() {
    let output = coordinator(&["report", "--help"]).output();
    assert!(stdout(&output).lines().count() <= 24, "{}", stdout(&output));
    assert!(stdout(&output).contains("Examples:"), "{}", stdout(&output));
}

/// Above 100,000 attempts the charts have a sample; what is counted is exact all the same.
#[test]
fn a_long_log_is_counted_in_full_and_drawn_in_part() {
    const LINES: u32 = 120_000;
    let line = |number: u32| {
        let (start, failed) = (1_732_435_200 + number / 100, number.is_multiple_of(400));
        let status = if failed { "failed" } else { "ok" };
        let ms = if number == 77_777 {
            12_300
        } else {
            number % 50
        };
        format!(
            "{{\"v\":1,\"run\":\"a\",\"template\":\"exec -- x\",\"seq\":{number},\"input\":\"file-{number}\",\"attempt\":1,\
             \"status\":\"{status}\",\"exit\":{},\"start\":{start},\"ms\":{ms},\"worker\":{}}}\n",
            u8::from(failed),
            number % 8 + 1
        )
    };
    let (_directory, path) = log(&(0..LINES).map(line).collect::<String>());
    let output = coordinator(&["report", &path]).output();
    // On a busy machine it says how far it is; nothing else.
    let said = stderr(&output);
    assert!(
        said.lines().all(|line| line.contains(": reading ")),
        "{said}"
    );
    let page = stdout(&output);
    for part in [
        "✗ 300 of 120,000 calls failed",
        "119,700 succeeded",
        "one in 3,",
        "max 12.3 s",
        "file-77777",
        "and 100 more failed calls",
    ] {
        assert!(page.contains(part), "no {part}");
    }
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let statuses = data["status"].as_str().unwrap();
    // Every failure has its bar, and the sample stands for all.
    assert_eq!(statuses.matches('b').count(), 300);
    let sample = data["besides"].as_str().unwrap().matches('0').count();
    assert_eq!((sample, &data["step"]), (40_000, &serde_json::json!(3)));
    let again = coordinator(&["report", &path]).output();
    assert!(
        again.stdout == output.stdout,
        "another report of the same log"
    );
    let trace = coordinator(&["report", "--trace", &path]).output();
    assert!(
        stderr(&trace).contains("the trace has 40,"),
        "{}",
        stderr(&trace)
    );
}

/// What one opens first when something failed.
#[test]
fn failures_are_grouped_by_what_they_said_last_and_tell_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.log");
    let path = path.to_str().unwrap();
    let script = "echo \"reading $1\" >&2; echo '<fatal>: no header' >&2; exit $(($1 % 2 * 2))";
    let output = coordinator(&[
        "exec", "--log", path, "-c", script, ":::", "1", "2", "3", "4",
    ])
    .output();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("exited with code 2: <fatal>: no header"),
        "{said}"
    );
    assert!(said.contains("coordinator report"), "{said}");
    let log = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        log.matches("\"stderr\":\"reading ").count(),
        2,
        "only what failed: {log}"
    );
    let page = coordinator(&["report", path]).output();
    let page = stdout(&page);
    assert!(page.contains("<b>2 ×</b>"), "{page}");
    assert!(
        page.contains("<pre>reading 3\n&lt;fatal&gt;: no header</pre>"),
        "{page}"
    );
}
