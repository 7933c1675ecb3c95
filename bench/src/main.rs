//! Measures the pool against bare programs and against other pools, interleaved in one run.
//!
//! What is measured stands in `catalogue`, in the words of `measure`; how each side does it, in `sides` and in `peers/`. Each
//! measurement runs in a fresh process of this program (`run`), so that neither memory nor warmth
//! of one shows in the next. `report` boils the figures down, `table` and `picture` show them.

mod bars;
mod catalogue;
mod measure;
mod options;
mod picture;
mod proc;
mod report;
mod run;
mod sides;
mod table;
mod tasks;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser as _;

use crate::options::Options;

/// What anything here may fail with: it is only ever shown.
type Problem = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    // This program is also its workers, its floors and each of its sides. The workers come first:
    // how fast they start is one of the measures.
    worker::init();
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("bare") => return ExitCode::from(u8::from(sides::floor::bare(arguments).is_err())),
        #[cfg(feature = "agents")]
        Some("agent") => return told(sides::machines::agent(arguments)),
        Some("side") => {
            #[cfg(feature = "procspawn")]
            procspawn::init();
            return told(run::side(arguments));
        }
        _ => {}
    }
    told(measure(&Options::parse()))
}

fn told(result: Result<ExitCode, Problem>) -> ExitCode {
    result.unwrap_or_else(|problem| {
        eprintln!("bench: {problem}");
        ExitCode::FAILURE
    })
}

#[expect(clippy::print_stdout, reason = "the table is what was asked for")]
fn measure(options: &Options) -> Result<ExitCode, Problem> {
    let measures = options.measures()?;
    if options.list {
        for measure in measures {
            println!("{:14}{}", measure.name, measure.title);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let taken = run::all(options, &measures)?;
    let report = report::Report::new(options, &measures, &taken);
    print!("{}", table::table(&report));
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    if let Some(file) = &options.svg {
        std::fs::write(file, picture::picture(&report))?;
    }
    if let Some(file) = &options.bars {
        let bars = bars::bars(&report)
            .ok_or("the five bars need --only each,payload-map,map,exec,cpu, or all measures")?;
        std::fs::write(file, bars)?;
    }
    // A target that was missed is a finding, unless its figure was to be kept; a pool that does not work is an error.
    let failed = report.ours_failed() || options.strict && report.is_missed();
    Ok(ExitCode::from(u8::from(failed)))
}
