//! The page: one file, with its style, script and data in it.

use std::io::{self, Write};

use super::text::html;
use super::timeline::Timeline;
use super::{data, tables};

const STYLE: &str = include_str!("page.css");
const SCRIPT: [&str; 3] = [
    include_str!("common.js"),
    include_str!("bars.js"),
    include_str!("charts.js"),
];

/// Writes the page. What the log says is escaped, and the page may load nothing and send nothing,
/// should an escape be missing.
pub(super) fn write(out: &mut dyn Write, title: &str, timeline: &Timeline) -> io::Result<()> {
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{} – coordinator report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>",
        html(title)
    )?;
    tables::header(out, title, timeline)?;
    if !timeline.attempts.is_empty() {
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
        writeln!(out, "}})();\n</script>")?;
    }
    writeln!(out, "</body>\n</html>")
}

fn charts(out: &mut dyn Write, timeline: &Timeline) -> io::Result<()> {
    let idle = timeline.attempts.len() - timeline.bars.len();
    let idle = match idle {
        0 => String::new(),
        1 => "<p class=\"note\">1 attempt never ran and has no bar.</p>".to_owned(),
        _ => format!("<p class=\"note\">{idle} attempts never ran and have no bars.</p>"),
    };
    if timeline.bars.is_empty() {
        return writeln!(out, "{idle}");
    }
    // Hidden until the script draws them: empty frames would tell nothing.
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
         <h3>Attempts that ended, per second</h3>\n\
         <div class=\"stage\"><canvas id=\"rate\" role=\"img\" aria-label=\"Throughput over time\"></canvas></div>\n\
         <p class=\"note\">Wheel or drag to zoom, double-click for all; arrow keys, + and − work too. \
         Striped: tried again.</p>{idle}</section>\n\
         <section><h2>Durations <small>of attempts, log scale</small></h2>\n\
         <div class=\"stage\"><canvas id=\"histogram\" role=\"img\" aria-label=\"Histogram of durations\"></canvas></div></section>\n\
         </div>\n<div id=\"tip\" role=\"status\" hidden></div>"
    )
}
