//! The attempts as the page's script reads them: JSON in columns, because 100,000 objects with
//! named fields would be many times as long.

use std::collections::HashMap;
use std::io::{self, Write};

use super::read::{Attempt, KEPT};
use super::text;
use super::timeline::Timeline;
use crate::cli::status::Status;
use crate::cli::terminal;

/// The most bytes of inputs in the page. If all inputs together are longer, each is cut.
const INPUTS: usize = 8_000_000;
/// The most bytes of stderr in the page. Of later failures the log alone has it.
const WORDS: usize = 8_000_000;
/// The most characters of a template in the page.
const TEMPLATE: usize = 2_000;

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

/// The attempts, one column for each property: those with bars by their start, and behind them failed ones without.
struct Columns<'t> {
    times: [(&'static str, Vec<i64>); 3],
    numbers: [(&'static str, Vec<i64>); 6],
    statuses: String,
    besides: String,
    inputs: Texts<'t>,
    reasons: Texts<'t>,
    /// What attempts wrote to stderr. The first text is empty.
    words: Texts<'t>,
    words_len: usize,
    /// The place of each failed call's last attempt in the columns.
    failed: Vec<usize>,
}

impl<'t> Columns<'t> {
    fn of(timeline: &'t Timeline) -> Self {
        let mut columns = Columns {
            times: ["start", "length", "row"].map(|name| (name, Vec::new())),
            numbers: ["run", "attempt", "input", "reason", "words", "seq"]
                .map(|name| (name, Vec::new())),
            statuses: String::new(),
            besides: String::new(),
            inputs: Texts::default(),
            reasons: Texts::default(),
            words: Texts::default(),
            words_len: 0,
            failed: Vec::new(),
        };
        columns.words.number("");
        let mut before = 0;
        for bar in &timeline.bars {
            let attempt = &timeline.attempts[bar.attempt];
            // The distance from the bar before takes fewer digits than the time itself.
            let values = [bar.start - before, bar.length, bar.row as i64];
            before = bar.start;
            push(&mut columns.times, values);
            let is_besides = timeline.picked.weight(attempt.line) == 0;
            columns.besides.push(if is_besides { '1' } else { '0' });
            columns.add(attempt);
        }
        let places = timeline.places();
        for index in timeline.failed() {
            let place = places.get(&index).copied().unwrap_or_else(|| {
                columns.add(&timeline.attempts[index]);
                columns.statuses.len() - 1
            });
            columns.failed.push(place);
        }
        columns
    }

    /// Adds what the page tells of every attempt.
    fn add(&mut self, attempt: &'t Attempt) {
        let seq = attempt.seq.and_then(|seq| i64::try_from(seq).ok());
        let has_room = self.words_len + attempt.words.len() <= WORDS;
        let words = if has_room { attempt.words.as_str() } else { "" };
        self.words_len += words.len();
        let values = [
            attempt.run as i64,
            i64::from(attempt.number),
            self.inputs.number(&attempt.input) as i64,
            self.reasons.number(&attempt.reason) as i64,
            self.words.number(words) as i64,
            seq.unwrap_or(-1),
        ];
        push(&mut self.numbers, values);
        self.statuses.push(letter(attempt.status, attempt.again));
    }
}

fn push<const N: usize>(columns: &mut [(&'static str, Vec<i64>); N], values: [i64; N]) {
    for ((_, column), value) in columns.iter_mut().zip(values) {
        column.push(value);
    }
}

/// Writes the JSON, in a form that may stand in a `<script>`.
pub(super) fn write(out: &mut dyn Write, timeline: &Timeline) -> io::Result<()> {
    let columns = Columns::of(timeline);
    writeln!(out, "{{\"end\":{},", timeline.end)?;
    writeln!(out, "\"runs\":[{}],", runs(timeline).join(","))?;
    let names = Status::ALL.map(|status| text::json(status.word()));
    writeln!(out, "\"names\":[{}],", names.join(","))?;
    let labels = Status::ALL.map(|status| text::json(&status.label()));
    writeln!(out, "\"labels\":[{}],", labels.join(","))?;
    let labels = timeline.workers.iter();
    let labels = labels.map(|lane| text::json(&terminal::visible(&timeline.machines.label(*lane))));
    let labels: Vec<_> = labels.collect();
    writeln!(out, "\"workers\":[{}],", labels.join(","))?;
    for (name, column) in columns.times.into_iter().chain(columns.numbers) {
        writeln!(out, "\"{name}\":{},", array(&column))?;
    }
    writeln!(out, "\"failed\":{},", array(&columns.failed))?;
    let words = columns.words.texts.iter();
    let words = words.map(|words| text::json(&terminal::visible_lines(words)));
    writeln!(out, "\"said\":[{}],", words.collect::<Vec<_>>().join(",\n"))?;
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

/// The runs as JSON objects. Those whose beginning the log does not tell come last, and have no time.
fn runs(timeline: &Timeline) -> Vec<String> {
    let runs = timeline.runs.iter().map(|run| {
        let template = text::json(&terminal::visible(&text::shorten(&run.template, TEMPLATE)));
        let Some(start) = run.start else {
            return format!("{{\"template\":{template}}}");
        };
        let start = start.clamp(-1e12, 1e12);
        let length = (run.ms * 1e3).clamp(0.0, 1e15);
        let date = text::json(&text::date(start));
        format!(
            "{{\"template\":{template},\"from\":{},\"length\":{length:.0},\"start\":{start:.3},\"date\":{date}}}",
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
