//! The page: one file that contains its style, script and data.

use std::io::{self, Write};
use std::time::Duration;

use super::text::html;
use super::timeline::Timeline;
use super::{data, tables};

const STYLE: &str = include_str!("page.css");
const SCRIPT: [&str; 4] = [
    include_str!("common.js"),
    include_str!("bars.js"),
    include_str!("lists.js"),
    include_str!("charts.js"),
];

/// Behind the others, in a page that asks for news.
const LIVE: &str = include_str!("live.js");

/// The beginning of each page, by which an older report is recognized.
pub(super) const BEGINNING: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
    <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
    script-src 'unsafe-inline'; img-src data:\">";

/// A page that asks its server whether the log has grown.
#[derive(Debug)]
pub(super) struct Live {
    /// What the server says as long as the log stays as it is.
    pub(super) state: String,
    /// How long the page waits before it asks again.
    pub(super) pause: Duration,
}

/// Writes the page. All text from the log is escaped. In case an escape is missing, the page's policy also forbids it to
/// load or send anything; a live page may ask its own server.
pub(super) fn write(
    out: &mut dyn Write,
    title: &str,
    timeline: &Timeline,
    live: Option<&Live>,
) -> io::Result<()> {
    let beginning = match live {
        Some(_) => BEGINNING.replace("img-src data:", "img-src data:; connect-src 'self'"),
        None => BEGINNING.to_owned(),
    };
    let (of_body, note) = match live {
        Some(Live { state, pause }) => (
            format!(
                " data-state=\"{state}\" data-pause=\"{}\"",
                pause.as_millis()
            ),
            "<p class=\"note\" id=\"live\" role=\"status\">live</p>\n",
        ),
        None => (String::new(), ""),
    };
    writeln!(
        out,
        "{beginning}\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{} – coordinator report</title>\n<style>\n{STYLE}</style>\n</head>\n<body{of_body}>\n<main>{note}",
        html(title)
    )?;
    tables::header(out, title, timeline)?;
    if timeline.count() > 0 {
        tables::outcomes(out, timeline)?;
        charts(out, timeline)?;
        tables::tables(out, timeline)?;
    }
    writeln!(out, "</main>")?;
    if !timeline.bars.is_empty() {
        writeln!(out, "<script type=\"application/json\" id=\"data\">")?;
        data::write(out, timeline)?;
        writeln!(out, "</script>\n<script>\n\"use strict\";\n(() => {{")?;
        for part in SCRIPT {
            writeln!(out, "{part}")?;
        }
        if live.is_some() {
            writeln!(out, "{LIVE}")?;
        }
        writeln!(out, "}})();\n</script>")?;
    } else if live.is_some() {
        // Nothing is drawn yet, so the page only waits.
        let rest = "const $ = (id) => document.getElementById(id), drawn = false;";
        writeln!(
            out,
            "<script>\n\"use strict\";\n(() => {{\n{rest}\n{LIVE}}})();\n</script>"
        )?;
    }
    writeln!(out, "</body>\n</html>")
}

fn charts(out: &mut dyn Write, timeline: &Timeline) -> io::Result<()> {
    let idle = match timeline.idle {
        0 => String::new(),
        1 => "<p class=\"note\">1 attempt never ran and has no bar.</p>".to_owned(),
        idle => format!("<p class=\"note\">{idle} attempts never ran and have no bars.</p>"),
    };
    if timeline.bars.is_empty() {
        return writeln!(out, "{idle}");
    }
    let shows = timeline.shows();
    let shows = shows.map_or(String::new(), |shows| {
        format!("<p class=\"note\">The charts show {shows}.</p>")
    });
    // The charts are hidden until the script draws them: empty frames would show nothing.
    writeln!(
        out,
        "<noscript><p class=\"note\">The charts need JavaScript; the tables do not.</p></noscript>\n\
         <p class=\"note bad\" id=\"trouble\" hidden></p>\n\
         <div id=\"charts\" hidden>\n\
         <section><div class=\"bar\"><h2>Timeline</h2><span class=\"note\" id=\"range\"></span>\
         <span class=\"tools\" id=\"tools\"><button id=\"out\" aria-label=\"Zoom out\">−</button>\
         <button id=\"in\" aria-label=\"Zoom in\">+</button><button id=\"reset\">Show all</button></span></div>\n\
         <div class=\"stage\"><div class=\"tall\"><canvas id=\"bars\" tabindex=\"0\" role=\"img\" aria-label=\"\
         Timeline: a row for each worker, a bar for each attempt\"></canvas></div>\
         <canvas id=\"axis\" aria-hidden=\"true\"></canvas><div id=\"select\" hidden></div></div>\n\
         <h3>Attempts that ended, per second; those that did not succeed on top</h3>\n\
         <div class=\"stage\"><canvas id=\"rate\" role=\"img\" aria-label=\"Throughput over time\"></canvas></div>\n\
         <h3>Attempts that ran at once</h3>\n\
         <div class=\"stage\"><canvas id=\"atonce\" role=\"img\" aria-label=\"Attempts at once over time\"></canvas></div>\n\
         <p class=\"note\">Wheel or drag to zoom, double-click for all; arrow keys, + and − work too. \
         Striped: tried again.</p>{shows}{idle}</section>\n\
         <section><h2>Durations <small>of attempts, log scale</small></h2>\n\
         <div class=\"stage\"><canvas id=\"histogram\" role=\"img\" aria-label=\"Histogram of durations\"></canvas></div></section>\n\
         </div>\n<div id=\"tip\" role=\"status\" hidden></div>"
    )
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::time::Instant;

    use super::super::read::read;
    use super::*;

    fn page(log: &str) -> String {
        let mut bytes = Vec::new();
        let timeline = Timeline::new(read(io::Cursor::new(log), |_| ()).unwrap());
        write(&mut bytes, "a.jsonl", &timeline, None).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn embedded(page: &str) -> serde_json::Value {
        let (_, data) = page.split_once("id=\"data\">").unwrap();
        let (data, _) = data.split_once("</script>").unwrap();
        serde_json::from_str(data).unwrap()
    }

    #[test]
    fn an_empty_log_says_so_and_runs_no_script() {
        let page = page("");
        assert!(page.contains("The log is empty"), "{page}");
        assert!(!page.contains("<script"), "{page}");
    }

    #[test]
    fn nothing_in_the_log_becomes_markup() {
        let evil = "</script><script>alert(1)</script>&\\\"'\\u2028\\u0000<!--";
        let line = format!(
            "{{\"v\":1,\"run\":\"{evil}\",\"template\":\"{evil}\",\"input\":\"{evil}\",\"error\":\"{evil}\",\
             \"status\":\"{evil}\",\"start\":1,\"ms\":2,\"worker\":1}}\n"
        );
        let page = page(&format!(
            "{line}{}",
            line.replace("\"run\":\"", "\"run\":\"x")
        ));
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(!page.contains("<!--"), "{page}");
        assert!(!page.contains(['\0', '\u{2028}']), "{page}");
        let data = embedded(&page);
        let shown = "</script><script>alert(1)</script>&\"'\u{2424}\u{2400}<!--";
        assert_eq!(data["inputs"], serde_json::json!([shown]));
        assert_eq!(data["status"], "ii");
    }

    #[test]
    fn failures_beyond_the_first_200_are_counted() {
        let mut log = String::new();
        for seq in 0..1234 {
            writeln!(log, "{{\"v\":1,\"seq\":{seq},\"status\":\"died\"}}").unwrap();
        }
        let page = page(&log);
        assert!(page.contains("and 1,034 more failed calls"));
        assert!(page.contains("✗ 1,234 of 1,234 calls failed"));
        assert!(page.contains("1234 attempts never ran"));
    }

    #[test]
    fn a_page_of_100_000_attempts_is_not_too_large() {
        let mut log = String::new();
        let long = "ä".repeat(100);
        for seq in 0..100_000 {
            let start = 1_732_435_200.0 + f64::from(seq) * 0.0123;
            writeln!(
                log,
                "{{\"v\":1,\"run\":\"r\",\"template\":\"t\",\"seq\":{seq},\"occurrence\":0,\"input\":\"{seq} {long}\",\
                 \"attempt\":1,\"status\":\"ok\",\"start\":{start},\"ms\":123.456,\"worker\":{}}}",
                seq % 16 + 1
            )
            .unwrap();
        }
        let begun = Instant::now();
        let page = page(&log);
        println!("{} bytes in {:?}", page.len(), begun.elapsed());
        assert!(page.len() < 20_000_000, "{}", page.len());
        let data = embedded(&page);
        assert_eq!(data["start"].as_array().unwrap().len(), 100_000);
        assert_eq!(data["inputs"].as_array().unwrap().len(), 100_000);
    }
}
