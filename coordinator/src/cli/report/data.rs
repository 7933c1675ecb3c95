//! The attempts as the page's script reads them: JSON in columns, because 100,000 objects with
//! named fields would be many times as long.

use std::collections::HashMap;
use std::io::{self, Write};

use super::read::KEPT;
use super::text;
use super::timeline::Timeline;
use crate::cli::status::Status;
use crate::cli::terminal;

/// The most bytes of inputs in the page. If all inputs together are longer, each is cut.
const INPUTS: usize = 8_000_000;

/// A table of texts, each kept once.
#[derive(Default)]
struct Texts<'a> {
    numbers: HashMap<&'a str, usize>,
    texts: Vec<&'a str>,
}

impl<'a> Texts<'a> {
    fn number(&mut self, text: &'a str) -> usize {
        *self.numbers.entry(text).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() - 1
        })
    }

    /// The texts as a JSON array, each cut to the limit.
    fn json(&self, limit: usize) -> String {
        let texts = self.texts.iter();
        let texts = texts.map(|shown| text::json(&terminal::visible(&text::shorten(shown, limit))));
        format!("[{}]", texts.collect::<Vec<_>>().join(",\n"))
    }
}

/// The attempts, one column for each property.
struct Columns<'t> {
    numbers: [(&'static str, Vec<i64>); 7],
    statuses: String,
    besides: String,
    inputs: Texts<'t>,
    reasons: Texts<'t>,
}

impl<'t> Columns<'t> {
    fn of(timeline: &'t Timeline) -> Self {
        let names = [
            "start", "length", "row", "attempt", "input", "reason", "seq",
        ];
        let mut columns = Columns {
            numbers: names.map(|name| (name, Vec::new())),
            statuses: String::new(),
            besides: String::new(),
            inputs: Texts::default(),
            reasons: Texts::default(),
        };
        let mut before = 0;
        for bar in &timeline.bars {
            let attempt = &timeline.attempts[bar.attempt];
            let seq = attempt.seq.and_then(|seq| i64::try_from(seq).ok());
            let values = [
                // The distance from the bar before takes fewer digits than the time itself.
                bar.start - before,
                bar.length,
                bar.row as i64,
                i64::from(attempt.number),
                columns.inputs.number(&attempt.input) as i64,
                columns.reasons.number(&attempt.reason) as i64,
                seq.unwrap_or(-1),
            ];
            before = bar.start;
            for ((_, column), value) in columns.numbers.iter_mut().zip(values) {
                column.push(value);
            }
            columns.statuses.push(letter(attempt.status, attempt.again));
            let is_besides = timeline.picked.weight(attempt.line) == 0;
            columns.besides.push(if is_besides { '1' } else { '0' });
        }
        columns
    }
}

/// Writes the JSON, in a form that may stand in a `<script>`.
pub(super) fn write(out: &mut dyn Write, timeline: &Timeline) -> io::Result<()> {
    let columns = Columns::of(timeline);
    writeln!(out, "{{\"end\":{},", timeline.end)?;
    writeln!(out, "\"runs\":[{}],", runs(timeline).join(","))?;
    let names = Status::ALL.map(|status| text::json(status.word()));
    writeln!(out, "\"names\":[{}],", names.join(","))?;
    writeln!(out, "\"workers\":{},", array(&timeline.workers))?;
    for (name, column) in columns.numbers {
        writeln!(out, "\"{name}\":{},", array(&column))?;
    }
    writeln!(out, "\"status\":\"{}\",", columns.statuses)?;
    let step = timeline.picked.step;
    if step > 1 {
        // Charts count each bar of the sample `step` times, and do not count bars outside of the sample.
        let besides = columns.besides;
        writeln!(out, "\"step\":{step},\"besides\":\"{besides}\",")?;
    }
    writeln!(out, "\"reasons\":{},", columns.reasons.json(KEPT))?;
    let inputs = &columns.inputs;
    let json = inputs.json(limit(&inputs.texts));
    writeln!(out, "\"inputs\":{json}}}")
}

/// The runs whose beginning the log tells, as JSON objects.
fn runs(timeline: &Timeline) -> Vec<String> {
    let runs = timeline.runs.iter().filter(|run| run.start.is_some());
    let runs = runs.map(|run| {
        let start = run.start.unwrap_or(0.0).clamp(-1e12, 1e12);
        let length = (run.ms * 1e3).clamp(0.0, 1e15);
        let date = text::json(&text::date(start));
        format!(
            "{{\"from\":{},\"length\":{length:.0},\"start\":{start:.3},\"date\":{date}}}",
            run.from
        )
    });
    runs.collect()
}

/// The longest that each input may be, so that all of them together fit into `INPUTS`.
fn limit(inputs: &[&str]) -> usize {
    let fits = |limit: &usize| {
        let lengths = inputs.iter().map(|text| text::shorten(text, *limit).len());
        lengths.sum::<usize>() <= INPUTS
    };
    [KEPT, 120, 80].into_iter().find(fits).unwrap_or(50)
}

/// One letter for an attempt's outcome: a capital if the call is tried again.
fn letter(status: Status, again: bool) -> char {
    let number = Status::ALL.iter().position(|known| *known == status);
    let letter = (b'a'..=b'z').nth(number.unwrap_or(0)).unwrap_or(b'a');
    let letter = if again {
        letter.to_ascii_uppercase()
    } else {
        letter
    };
    char::from(letter)
}

fn array(values: &[impl ToString]) -> String {
    let texts: Vec<_> = values.iter().map(ToString::to_string).collect();
    format!("[{}]", texts.join(","))
}
