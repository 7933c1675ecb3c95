//! The page's words and numbers, which are there even without a script.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use super::marks::Calls;
use super::read::Attempt;
use super::text::{self, count, duration, html};
use super::timeline::Timeline;
use crate::cli::status::Status;

const SLOWEST: usize = 20;
const FAILED: usize = 200;
const RUNS: usize = 100;
const REASONS: usize = 10;

/// The outcome of the log: a sentence, and its numbers.
pub(super) fn header(out: &mut dyn Write, title: &str, timeline: &Timeline) -> io::Result<()> {
    let mut templates: Vec<&str> = timeline.runs.iter().map(|run| &*run.template).collect();
    templates.retain(|template| !template.is_empty());
    let mut seen = HashSet::new();
    templates.retain(|template| seen.insert(*template));
    let (first, more) = match *templates {
        [] => (title.to_owned(), String::new()),
        [first] => (first.to_owned(), String::new()),
        [first, ..] => (
            first.to_owned(),
            format!(" and {} more", templates.len() - 1),
        ),
    };
    let first = html(&text::shorten(&first, 500));
    writeln!(
        out,
        "<header>\n<p class=\"kind\">coordinator report <span>{}</span></p>",
        html(title)
    )?;
    writeln!(out, "<h1><code>{first}</code>{more}</h1>")?;
    let calls = &timeline.calls;
    if calls.total == 0 {
        writeln!(
            out,
            "<p class=\"verdict\">The log is empty: it holds no attempts.</p>"
        )?;
        return writeln!(out, "</header>");
    }
    writeln!(
        out,
        "<p class=\"verdict\">{}</p>\n<dl class=\"tiles\">",
        verdict(calls)
    )?;
    for (name, value, note) in tiles(timeline) {
        writeln!(
            out,
            "<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>"
        )?;
    }
    writeln!(out, "</dl>\n</header>")
}

/// The outcome of the log in a sentence.
fn verdict(calls: &Calls) -> String {
    let (failed, unfinished) = (calls.failed.len(), calls.unfinished);
    let total = plural(calls.total, "call");
    match (failed, unfinished) {
        (0, 0) => format!("<b class=\"good\">✓ {total} succeeded</b>"),
        (0, _) => format!("<b>… {} of {total} not finished</b>", count(unfinished)),
        (_, 0) => format!("<b class=\"bad\">✗ {} of {total} failed</b>", count(failed)),
        _ => format!(
            "<b class=\"bad\">✗ {} of {total} failed</b>, {} not finished",
            count(failed),
            count(unfinished)
        ),
    }
}

/// The numbers: a label, the number, and a note.
fn tiles(timeline: &Timeline) -> [(&'static str, String, String); 6] {
    let calls = &timeline.calls;
    let attempts = timeline.count();
    let workers = match timeline.use_of_workers() {
        Some(used) => format!("{:.0} % busy", used * 100.0),
        None => String::new(),
    };
    let first = timeline.runs.first().and_then(|run| run.start);
    let runs = first.map_or(String::new(), |start| {
        format!("{:.16} UTC", text::date(start))
    });
    let rate = match timeline.wall_ms {
        wall if wall > 0.0 => format!("{} calls a second", rate(calls.total as f64 / wall * 1e3)),
        _ => String::new(),
    };
    let times = &timeline.times;
    let quantile = |part: f64| {
        let at = (times.len() as f64 * part) as usize;
        let time = times.get(at.min(times.len().saturating_sub(1)));
        time.map(|time| f64::from(*time))
    };
    let shown = |time: Option<f64>| time.map_or("–".to_owned(), duration);
    let spread = format!(
        "p95 {}, max {}",
        shown(quantile(0.95)),
        shown(quantile(1.0))
    );
    [
        (
            "Calls",
            count(calls.total),
            format!("{} succeeded", count(calls.ok)),
        ),
        (
            "Attempts",
            count(attempts),
            format!("{} tried again", count(timeline.again)),
        ),
        ("Wall time", duration(timeline.wall_ms), rate),
        ("Median attempt", shown(quantile(0.5)), spread),
        ("Workers", count(timeline.workers.len()), workers),
        ("Runs", count(timeline.runs.len()), runs),
    ]
}

fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 100.0 => count(rate.round() as usize),
        rate if rate >= 1.0 => format!("{rate:.1}"),
        rate => format!("{rate:.3}"),
    }
}

fn plural(number: usize, what: &str) -> String {
    format!(
        "{} {what}{}",
        count(number),
        if number == 1 { "" } else { "s" }
    )
}

/// The attempts by how they ended. This is also the legend of the charts.
pub(super) fn outcomes(out: &mut dyn Write, timeline: &Timeline) -> io::Result<()> {
    writeln!(
        out,
        "<ul class=\"legend\" id=\"legend\" aria-label=\"Attempts by outcome\">"
    )?;
    for status in Status::ALL {
        let number = timeline.statuses[status as usize];
        if number > 0 {
            writeln!(
                out,
                "<li data-status=\"{0}\"><i style=\"background:var(--{0})\"></i>{1} <b>{2}</b></li>",
                status.word(),
                status.label(),
                count(number)
            )?;
        }
    }
    writeln!(out, "</ul>")
}

/// The tables below the charts.
pub(super) fn tables(out: &mut dyn Write, timeline: &Timeline) -> io::Result<()> {
    failed(out, timeline)?;
    slowest(out, timeline)?;
    if timeline.runs.len() > 1 {
        runs(out, timeline)?;
    }
    Ok(())
}

const HEADS: &str = "<th class=\"n\">Call</th><th>Input</th><th>Outcome</th><th class=\"n\">Attempt</th>\
                     <th class=\"n\">Duration</th><th class=\"n\">Worker</th>";

fn failed(out: &mut dyn Write, timeline: &Timeline) -> io::Result<()> {
    let failed = &timeline.calls.failed;
    if failed.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<section><h2>Failed calls <small>by their last attempt</small></h2>"
    )?;
    reasons(out, timeline)?;
    table(out, timeline, "failed", timeline.failed().take(FAILED))?;
    // The script shows them all and removes this line.
    if failed.len() > FAILED {
        let more = count(failed.len() - FAILED);
        writeln!(
            out,
            "<p class=\"note\" id=\"failed-more\">and {more} more failed calls, which the page shows with JavaScript</p>"
        )?;
    }
    let picked = timeline.failed().count();
    if failed.len() > picked {
        let more = count(failed.len() - picked);
        writeln!(
            out,
            "<p class=\"note\">{more} further failed calls are in the log alone</p>"
        )?;
    }
    writeln!(out, "</section>")
}

/// The reasons that occurred more than once among the failed calls of the page, with their counts.
fn reasons(out: &mut dyn Write, timeline: &Timeline) -> io::Result<()> {
    let attempts = timeline.failed().map(|index| &timeline.attempts[index]);
    let mut counts: HashMap<(Status, &str), usize> = HashMap::new();
    for attempt in attempts {
        *counts
            .entry((attempt.status, attempt.reason.as_str()))
            .or_default() += 1;
    }
    let mut counts: Vec<_> = counts
        .into_iter()
        .filter(|(_, number)| *number > 1)
        .collect();
    counts.sort_by_key(|(reason, number)| (Reverse(*number), reason.0 as usize, reason.1));
    if counts.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<ul class=\"reasons\" aria-label=\"Failed calls by reason\">"
    )?;
    for ((status, reason), number) in counts.into_iter().take(REASONS) {
        writeln!(
            out,
            "<li><b>{} ×</b> {} <small>{}</small></li>",
            count(number),
            status.label(),
            html(reason)
        )?;
    }
    writeln!(out, "</ul>")
}

fn slowest(out: &mut dyn Write, timeline: &Timeline) -> io::Result<()> {
    let mut order: Vec<usize> = timeline.bars.iter().map(|bar| bar.attempt).collect();
    // The sort is stable, so the earlier of two equal counts comes first.
    order.sort_by(|a, b| {
        timeline.attempts[*b]
            .ms
            .total_cmp(&timeline.attempts[*a].ms)
    });
    order.truncate(SLOWEST);
    if order.is_empty() {
        return Ok(());
    }
    writeln!(out, "<section><h2>Slowest attempts</h2>")?;
    table(out, timeline, "slowest", order.into_iter())?;
    writeln!(out, "</section>")
}

fn table(
    out: &mut dyn Write,
    timeline: &Timeline,
    name: &str,
    indices: impl Iterator<Item = usize>,
) -> io::Result<()> {
    // The script puts its own rows here, which sort, search and open.
    writeln!(
        out,
        "<div class=\"scroll\"><table id=\"{name}\"><thead><tr>{HEADS}</tr></thead><tbody>"
    )?;
    for index in indices {
        row(out, timeline, &timeline.attempts[index])?;
    }
    writeln!(out, "</tbody></table></div>")
}

fn row(out: &mut dyn Write, timeline: &Timeline, attempt: &Attempt) -> io::Result<()> {
    let seq = attempt.seq.map_or("–".to_owned(), |seq| seq.to_string());
    let worker = match timeline.machines.label(attempt.lane) {
        none if none.is_empty() => "–".to_owned(),
        label => html(&label),
    };
    let time = attempt
        .start
        .map_or("never ran".to_owned(), |_| duration(attempt.ms));
    let again = if attempt.again { ", tried again" } else { "" };
    let reason = match attempt.reason.as_str() {
        "" => String::new(),
        reason => format!("<small>{}</small>", html(reason)),
    };
    // A browser opens this element by click and by keyboard, without a script.
    let words = match attempt.words.as_str() {
        "" => String::new(),
        words => format!(
            "<details><summary>stderr</summary><pre>{}</pre></details>",
            words.lines().map(html).collect::<Vec<_>>().join("\n")
        ),
    };
    writeln!(
        out,
        "<tr><td class=\"n\">{seq}</td><td class=\"input\"><code>{}</code></td>\
         <td><i style=\"background:var(--{})\"></i>{}{again}{reason}{words}</td><td class=\"n\">{}</td>\
         <td class=\"n\">{time}</td><td class=\"n\">{worker}</td></tr>",
        html(&attempt.input),
        attempt.status.word(),
        attempt.status.label(),
        attempt.number,
    )
}

fn runs(out: &mut dyn Write, timeline: &Timeline) -> io::Result<()> {
    writeln!(
        out,
        "<section><h2>Runs</h2>\n<div class=\"scroll\"><table><thead><tr><th class=\"n\">Run</th><th>Started</th>\
         <th>Template</th><th class=\"n\">Wall time</th><th class=\"n\">Attempts</th>\
         <th class=\"n\">Succeeded</th><th class=\"n\">Workers</th></tr></thead><tbody>"
    )?;
    for (index, run) in timeline.runs.iter().take(RUNS).enumerate() {
        let start = run.start.map(|start| format!("{} UTC", text::date(start)));
        writeln!(
            out,
            "<tr><td class=\"n\">{}</td><td title=\"{}\">{}</td><td class=\"input\"><code>{}</code></td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            index + 1,
            html(&run.id),
            start.unwrap_or("–".to_owned()),
            html(&text::shorten(&run.template, 200)),
            duration(run.ms),
            count(run.attempts),
            count(run.succeeded),
            count(run.workers),
        )?;
    }
    writeln!(out, "</tbody></table></div>")?;
    if timeline.runs.len() > RUNS {
        let more = count(timeline.runs.len() - RUNS);
        writeln!(out, "<p class=\"note\">and {more} more runs</p>")?;
    }
    writeln!(out, "</section>")
}
