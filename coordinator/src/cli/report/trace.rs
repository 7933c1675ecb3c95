//! The attempts as a trace in Chrome's format, which Perfetto shows.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::read::{Attempt, Lane};
use super::text;
use super::timeline::{Bar, Timeline};
use crate::cli::status::Status;

/// How a trace begins.
pub(super) const BEGINNING: &str = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";

/// Writes one event for each attempt: a process for each run, and in it a thread for each worker.
pub(super) fn write(out: &mut dyn Write, timeline: &Timeline) -> io::Result<()> {
    out.write_all(BEGINNING.as_bytes())?;
    let places = timeline.places();
    let attempts = timeline
        .attempts
        .iter()
        .enumerate()
        .map(|(index, attempt)| {
            let bar = places.get(&index).map(|place| &timeline.bars[*place]);
            event(timeline, attempt, bar)
        });
    let names = run_names(timeline).chain(worker_names(timeline));
    let mut separator = "\n";
    for event in names.chain(attempts) {
        write!(out, "{separator}{event}")?;
        separator = ",\n";
    }
    writeln!(out, "\n]}}")
}

fn run_names(timeline: &Timeline) -> impl Iterator<Item = Value> {
    timeline.runs.iter().enumerate().map(|(index, run)| {
        let number = index + 1;
        let start = run
            .start
            .map(|start| format!(", {} UTC", text::date(start)));
        let name = format!(
            "run {number}{}: {}",
            start.unwrap_or_default(),
            run.template
        );
        let args = json!({ "name": name });
        json!({ "ph": "M", "name": "process_name", "pid": number, "args": args })
    })
}

/// Writes the names of each run's workers. A worker of one run may be missing in another.
fn worker_names(timeline: &Timeline) -> impl Iterator<Item = Value> {
    let named = timeline.attempts.iter();
    let named: BTreeSet<(usize, Lane)> = named.map(|attempt| (attempt.run, attempt.lane)).collect();
    named.into_iter().flat_map(|(run, lane)| {
        let name = match timeline.machines.label(lane) {
            none if none.is_empty() => "no worker".to_owned(),
            label => format!("worker {label}"),
        };
        let worker = thread_of(lane);
        let of = |what: &str, args: Value| json!({ "ph": "M", "name": what, "pid": run + 1, "tid": worker, "args": args });
        [
            of("thread_name", json!({ "name": name })),
            of("thread_sort_index", json!({ "sort_index": worker })),
        ]
    })
}

/// A worker's number in the trace, where those of all machines stand in one row of numbers.
fn thread_of(lane: Lane) -> u64 {
    u64::from(lane.machine) * 1_000_000 + u64::from(lane.worker)
}

fn event(timeline: &Timeline, attempt: &Attempt, bar: Option<&Bar>) -> Value {
    let name = match attempt.status {
        Status::Ok => attempt.input.clone(),
        status => format!("{}: {}", status.label(), attempt.input),
    };
    let mut event = json!({
        "name": if name.is_empty() { "(no input)" } else { &name },
        "cat": attempt.status.word(),
        "pid": attempt.run + 1,
        "tid": thread_of(attempt.lane),
        "args": {
            "input": attempt.input, "status": attempt.status.word(), "seq": attempt.seq,
            "attempt": attempt.number, "again": attempt.again, "reason": attempt.reason,
            "pid": attempt.pid, "start": attempt.start,
        },
    });
    match bar {
        Some(bar) => {
            event["ph"] = json!("X");
            event["ts"] = json!(bar.start);
            event["dur"] = json!(bar.length);
        }
        // The attempt never ran, so it becomes a mark where its run begins.
        None => {
            event["ph"] = json!("i");
            event["s"] = json!("t");
            event["ts"] = json!(timeline.runs[attempt.run].from);
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::super::read::read;
    use super::*;

    #[test]
    fn it_has_an_event_for_each_attempt_and_names_the_workers() {
        let log = "{\"v\":1,\"run\":\"r\",\"input\":\"a\\u0000</b>\",\"start\":100.5,\"ms\":2.5,\"worker\":3,\
                   \"status\":\"timed_out\",\"again\":true}\n\
                   {\"v\":1,\"run\":\"r\",\"input\":\"b\",\"start\":100,\"ms\":0.25,\"worker\":1,\"status\":\"ok\"}\n\
                   {\"v\":1,\"run\":\"r\",\"input\":\"c\",\"status\":\"cancelled\"}\n";
        let mut bytes = Vec::new();
        write(
            &mut bytes,
            &Timeline::new(read(io::Cursor::new(log), |_| ()).unwrap()),
        )
        .unwrap();
        let trace: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let of = |phase: &'static str| events.iter().filter(move |event| event["ph"] == phase);
        let bars: Vec<_> = of("X").collect();
        assert_eq!((bars.len(), of("i").count()), (2, 1));
        assert_eq!(
            (&bars[0]["ts"], &bars[0]["dur"]),
            (&json!(500_000), &json!(2500))
        );
        assert_eq!((&bars[0]["pid"], &bars[0]["tid"]), (&json!(1), &json!(3)));
        assert_eq!(bars[0]["name"], "timed out: a\0</b>");
        assert_eq!((&bars[1]["ts"], &bars[1]["dur"]), (&json!(0), &json!(250)));
        let names = of("M").filter(|event| event["name"] == "thread_name");
        let names: Vec<_> = names
            .map(|e| (e["tid"].clone(), e["args"]["name"].clone()))
            .collect();
        assert!(names.contains(&(json!(3), json!("worker 3"))), "{names:?}");
    }

    #[test]
    fn an_empty_log_is_an_empty_trace() {
        let mut bytes = Vec::new();
        write(
            &mut bytes,
            &Timeline::new(read(io::Cursor::new(""), |_| ()).unwrap()),
        )
        .unwrap();
        let trace: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(trace["traceEvents"], json!([]));
    }
}
