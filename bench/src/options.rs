//! What can be asked for.

use std::path::PathBuf;

use clap::Parser;

use crate::Problem;
use crate::catalogue::MEASURES;
use crate::measure::Measure;

/// Measures the pool against bare programs and against other pools, interleaved in one run.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// Small sizes and one round: shows that it works, and measures little
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only the measures of these names
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// How often each side of each measure is run; 5, or 1 with --quick
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Writes a picture of the comparisons
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Writes the five bars of the README; needs each,payload-map,map,exec,cpu
    #[arg(long, value_name = "FILE")]
    pub(crate) bars: Option<PathBuf>,
    /// Writes all figures
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The Python whose pools are measured
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub(crate) python: PathBuf,
    /// Fails if a target was missed, too
    #[arg(long)]
    pub(crate) strict: bool,
    /// Lists the measures
    #[arg(long)]
    pub(crate) list: bool,
}

impl Options {
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    /// The measures that were asked for, in the catalogue's order.
    pub(crate) fn measures(&self) -> Result<Vec<&'static Measure>, Problem> {
        let unknown = self
            .only
            .iter()
            .find(|name| MEASURES.iter().all(|measure| measure.name != **name));
        if let Some(name) = unknown {
            return Err(format!("no measure is called {name}; --list shows all of them").into());
        }
        let wanted = |measure: &&Measure| {
            self.only.is_empty() || self.only.iter().any(|name| name == measure.name)
        };
        Ok(MEASURES.iter().filter(wanted).collect())
    }
}
