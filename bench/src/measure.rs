//! What a measure is, and its sides.

use crate::Problem;
use crate::sides::{Setting, Values};

/// Something that is measured, by one side or several.
pub(crate) struct Measure {
    /// What `--only` calls it.
    pub(crate) name: &'static str,
    /// What it is, in a line.
    pub(crate) title: &'static str,
    /// One round is enough: it takes long, and what it shows is no matter of luck.
    pub(crate) once: bool,
    pub(crate) quantities: &'static [Quantity],
    /// The first is ours.
    pub(crate) sides: &'static [Side],
}

impl Measure {
    /// Whether it measures the command line, which is another program than this one.
    pub(crate) fn runs_command_line(&self) -> bool {
        matches!(self.name, "exec" | "exec-counts" | "pipe")
    }
}

/// What each side's run says: a name and a number.
pub(crate) struct Quantity {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) unit: Unit,
    /// The most that ours may be.
    pub(crate) limit: Option<f64>,
    /// Whether the picture shows it.
    pub(crate) pictured: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    Count,
    /// A multiple of something.
    Times,
}

/// Who is measured, and how.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) runner: Runner,
    pub(crate) comparison: Comparison,
    /// What the comparison is to come to.
    pub(crate) target: Option<f64>,
}

pub(crate) enum Runner {
    /// A function of this program.
    Here(fn(&Setting) -> Result<Values, Problem>),
    /// A script in `peers/`, and what it is told.
    Python(&'static str, &'static [&'static str]),
}

/// How ours is compared with another side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// How many times as fast: theirs / ours, at least.
    TimesAsFast,
    /// How many times as long it takes: ours / theirs, at most.
    TimesAsLong,
    /// What share of its throughput is left: theirs / ours, at least.
    Share,
}

pub(crate) const OURS: &str = "ours";

pub(crate) const fn ours(run: fn(&Setting) -> Result<Values, Problem>) -> Side {
    Side {
        name: OURS,
        runner: Runner::Here(run),
        comparison: Comparison::TimesAsFast,
        target: None,
    }
}

pub(crate) const fn rust(
    name: &'static str,
    run: fn(&Setting) -> Result<Values, Problem>,
    comparison: Comparison,
) -> Side {
    Side {
        name,
        runner: Runner::Here(run),
        comparison,
        target: None,
    }
}

pub(crate) const fn python(
    name: &'static str,
    script: &'static str,
    arguments: &'static [&'static str],
) -> Side {
    Side {
        name,
        runner: Runner::Python(script, arguments),
        comparison: Comparison::TimesAsFast,
        target: None,
    }
}

impl Side {
    /// What the comparison is to come to.
    pub(crate) const fn target(self, target: f64) -> Side {
        Side {
            target: Some(target),
            ..self
        }
    }
}

pub(crate) const fn seconds(label: &'static str) -> Quantity {
    Quantity {
        name: "time",
        label,
        unit: Unit::Seconds,
        limit: None,
        pictured: true,
    }
}

pub(crate) const fn limited(
    name: &'static str,
    label: &'static str,
    unit: Unit,
    limit: f64,
) -> Quantity {
    Quantity {
        name,
        label,
        unit,
        limit: Some(limit),
        pictured: false,
    }
}

pub(crate) const fn counted(name: &'static str, label: &'static str) -> Quantity {
    Quantity {
        name,
        label,
        unit: Unit::Count,
        limit: None,
        pictured: false,
    }
}

pub(crate) const fn times(label: &'static str, limit: f64) -> Quantity {
    limited(label, label, Unit::Times, limit)
}

pub(crate) const fn size(label: &'static str) -> Quantity {
    Quantity {
        name: label,
        pictured: false,
        ..seconds(label)
    }
}

pub(crate) const MIB: f64 = 1_048_576.0;
/// What a stream may take. What grows with the stream grows by gigabytes.
pub(crate) const fn stream_memory(growth: f64) -> [Quantity; 2] {
    [
        limited(
            "peak",
            "the coordinator's peak above its start",
            Unit::Bytes,
            64.0 * MIB,
        ),
        limited("growth", "of that, in the second half", Unit::Bytes, growth),
    ]
}
