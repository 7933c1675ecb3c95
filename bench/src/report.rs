//! What the runs come to: medians, ratios, and whether targets were reached.

use serde::Serialize;

use crate::measure::{Comparison, Measure, Quantity, Side, Unit};
use crate::options::Options;
use crate::run::Rounds;
use crate::sides::{Outcome, median};

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) quick: bool,
    pub(crate) rounds: u32,
    pub(crate) processors: usize,
    pub(crate) groups: Vec<Group>,
}

/// One quantity of one measure, on all sides.
#[derive(Debug, Serialize)]
pub(crate) struct Group {
    pub(crate) measure: &'static str,
    pub(crate) title: &'static str,
    pub(crate) quantity: &'static str,
    pub(crate) label: &'static str,
    #[serde(skip)]
    pub(crate) unit: Unit,
    #[serde(skip)]
    pub(crate) pictured: bool,
    pub(crate) lines: Vec<Line>,
}

/// One side.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) side: &'static str,
    pub(crate) status: Status,
    /// What each round came to, in seconds or bytes.
    pub(crate) samples: Vec<f64>,
    pub(crate) value: Option<Span>,
    /// How ours compares, of each round with itself.
    pub(crate) ratio: Option<Ratio>,
    pub(crate) target: Option<Target>,
}

/// Whether there are figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Measured,
    NotFound,
    Failed(String),
}

/// A median and what lies around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Span {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Span {
    fn of(samples: &[f64]) -> Option<Span> {
        let mut samples = samples.to_vec();
        let median = median(&mut samples);
        Some(Span {
            median,
            min: *samples.first()?,
            max: *samples.last()?,
        })
    }
}

/// Ours compared with another side.
#[derive(Debug, Serialize)]
pub(crate) struct Ratio {
    #[serde(flatten)]
    pub(crate) span: Span,
    /// How long the other side takes, as a multiple of ours.
    pub(crate) multiple: f64,
    /// Says what of what.
    pub(crate) meaning: &'static str,
}

/// What there is to reach.
#[derive(Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) bound: f64,
    /// Whether it is the most that may be, or the least that must.
    pub(crate) at_most: bool,
    pub(crate) reached: Option<bool>,
}

impl Target {
    fn new(bound: f64, at_most: bool, span: Option<Span>) -> Self {
        let reached = |span: Span| {
            if at_most {
                span.median <= bound
            } else {
                span.median >= bound
            }
        };
        Target {
            bound,
            at_most,
            reached: span.map(reached),
        }
    }
}

impl Comparison {
    fn of(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Comparison::TimesAsFast | Comparison::Share => theirs / ours,
            Comparison::TimesAsLong => ours / theirs,
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Comparison::TimesAsFast => "× as fast",
            Comparison::TimesAsLong => "× as long",
            Comparison::Share => "× its throughput",
        }
    }
}

impl Report {
    pub(crate) fn new(
        options: &Options,
        measures: &[&'static Measure],
        taken: &[Vec<Rounds>],
    ) -> Self {
        let mut groups = Vec::new();
        for (measure, taken) in measures.iter().zip(taken) {
            for quantity in measure.quantities {
                groups.push(group(measure, quantity, taken));
            }
        }
        Report {
            quick: options.quick,
            rounds: options.rounds(),
            processors: coordinator::available_workers(),
            groups,
        }
    }

    /// Whether the pool itself did not do what it was asked to, at least once.
    pub(crate) fn ours_failed(&self) -> bool {
        let ours = self.groups.iter().filter_map(|group| group.lines.first());
        ours.into_iter()
            .any(|line| matches!(line.status, Status::Failed(_)))
    }

    /// Whether a target was missed, or could not be looked at.
    pub(crate) fn is_missed(&self) -> bool {
        let (all, reached) = self.targets();
        all != reached
    }

    /// How many targets there are, and how many of them were reached.
    pub(crate) fn targets(&self) -> (usize, usize) {
        let lines = self.groups.iter().flat_map(|group| &group.lines);
        let targets = lines.filter_map(|line| line.target.as_ref());
        targets.fold((0, 0), |(all, reached), target| {
            (all + 1, reached + usize::from(target.reached == Some(true)))
        })
    }
}

fn group(measure: &Measure, quantity: &'static Quantity, taken: &[Rounds]) -> Group {
    let values = |rounds: &Rounds| -> Vec<Option<f64>> {
        let value = |outcome: &Outcome| match outcome {
            Outcome::Values(values) => values.get(quantity.name).copied(),
            Outcome::Missing(_) | Outcome::Failed(_) => None,
        };
        rounds.iter().map(value).collect()
    };
    let ours = taken.first().map(values).unwrap_or_default();
    let sides = measure.sides.iter().zip(taken).enumerate();
    let lines = sides.map(|(number, (side, rounds))| {
        let theirs = values(rounds);
        let samples: Vec<f64> = theirs.iter().flatten().copied().collect();
        let value = Span::of(&samples);
        let (ratio, target) = if number == 0 {
            let target = quantity.limit.map(|limit| Target::new(limit, true, value));
            (None, target)
        } else {
            compared(side, quantity, &ours, &theirs)
        };
        Line {
            side: side.name,
            status: status(rounds),
            samples,
            value,
            ratio,
            target,
        }
    });
    Group {
        measure: measure.name,
        title: measure.title,
        quantity: quantity.name,
        label: quantity.label,
        unit: quantity.unit,
        pictured: quantity.pictured,
        lines: lines.collect(),
    }
}

fn compared(
    side: &Side,
    quantity: &Quantity,
    ours: &[Option<f64>],
    theirs: &[Option<f64>],
) -> (Option<Ratio>, Option<Target>) {
    // What was measured side by side belongs together: ratios of rounds, not of medians. A time of
    // zero, of a pool at rest, is no multiple of anything.
    let pairs: Vec<(f64, f64)> = ours
        .iter()
        .zip(theirs)
        .filter_map(|pair| match pair {
            (Some(ours), Some(theirs)) if *ours > 0.0 && *theirs > 0.0 => Some((*ours, *theirs)),
            _ => None,
        })
        .filter(|_| quantity.unit == Unit::Seconds)
        .collect();
    let ratios = |comparison: Comparison| {
        let ratios = pairs
            .iter()
            .map(|(ours, theirs)| comparison.of(*ours, *theirs));
        Span::of(&ratios.collect::<Vec<_>>())
    };
    let span = ratios(side.comparison);
    let ratio = span
        .zip(ratios(Comparison::TimesAsFast))
        .map(|(span, multiple)| Ratio {
            span,
            multiple: multiple.median,
            meaning: side.comparison.meaning(),
        });
    let at_most = side.comparison == Comparison::TimesAsLong;
    let target = side.target.map(|bound| Target::new(bound, at_most, span));
    (ratio, target)
}

/// One failure is told, whatever the other rounds were like.
fn status(rounds: &Rounds) -> Status {
    let failure = rounds.iter().find_map(|outcome| match outcome {
        Outcome::Failed(why) => Some(why.clone()),
        Outcome::Values(_) | Outcome::Missing(_) => None,
    });
    match (failure, rounds.first()) {
        (Some(why), _) => Status::Failed(why),
        (None, Some(Outcome::Values(_))) => Status::Measured,
        (None, _) => Status::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::MEASURES;
    use crate::sides::Values;

    fn took(seconds: f64) -> Outcome {
        Outcome::Values(Values::from([("time".to_owned(), seconds)]))
    }

    /// The measure of single calls: ours is to take at most 1.5 times as long as the second side.
    fn call(rounds: &[Rounds]) -> Group {
        let measure = MEASURES.iter().find(|measure| measure.name == "call");
        let measure = measure.expect("it is in the catalogue");
        group(measure, &measure.quantities[0], rounds)
    }

    #[test]
    fn ratios_are_those_of_rounds() {
        let ours = vec![took(2.0), took(30.0), took(3.0)];
        let floor = vec![took(1.0), took(10.0), took(2.0)];
        let group = call(&[ours, floor]);
        let ratio = group.lines[1].ratio.as_ref().expect("there are three");
        assert_eq!(
            (ratio.span.min, ratio.span.median, ratio.span.max),
            (1.5, 2.0, 3.0)
        );
        assert_eq!(ratio.multiple, 0.5);
        let target = group.lines[1].target.as_ref().expect("there is one");
        assert_eq!(target.reached, Some(false));
    }

    #[test]
    fn a_round_that_one_side_lost_is_no_pair_and_the_failure_is_told() {
        let ours = vec![took(1.0), Outcome::Failed("no".to_owned()), took(1.0)];
        let floor = vec![took(1.0), took(9.0), took(1.0)];
        let group = call(&[ours, floor]);
        assert_eq!(group.lines[0].status, Status::Failed("no".to_owned()));
        let ratio = group.lines[1].ratio.as_ref().expect("there are two");
        assert_eq!((ratio.span.min, ratio.span.max), (1.0, 1.0));
    }

    #[test]
    fn a_peer_that_is_not_there_reaches_and_misses_nothing() {
        let missing = vec![Outcome::Missing("python3".to_owned())];
        let group = call(&[vec![took(1.0)], missing]);
        assert_eq!(group.lines[1].status, Status::NotFound);
        assert!(group.lines[1].ratio.is_none());
        let target = group.lines[1].target.as_ref().expect("there is one");
        assert_eq!(target.reached, None);
    }

    #[test]
    fn what_this_build_does_not_have_is_no_failure_of_the_pool() {
        let failed = |outcome| {
            let report = Report {
                quick: false,
                rounds: 1,
                processors: 1,
                groups: vec![call(&[vec![outcome]])],
            };
            report.ours_failed()
        };
        assert!(!failed(took(1.0)));
        assert!(!failed(Outcome::Missing("--features agents".to_owned())));
        assert!(failed(Outcome::Failed("no".to_owned())));
    }

    #[test]
    fn every_name_is_that_of_one_measure_and_ours_comes_first() {
        for (number, measure) in MEASURES.iter().enumerate() {
            let named = |other: &Measure| other.name == measure.name;
            assert_eq!(
                MEASURES.iter().position(named),
                Some(number),
                "{}",
                measure.name
            );
            assert_eq!(measure.sides[0].name, "ours");
        }
    }
}
