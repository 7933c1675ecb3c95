//! The report as a table.

use crate::measure::Unit;
use crate::report::{Line, Report, Span, Status, Target};

/// The columns of a side's line: who, median, range, ratio, its range, target, verdict.
const COLUMNS: usize = 7;
type Cells = [String; COLUMNS];

enum Row {
    /// Stands above the lines that follow.
    Heading(String),
    Cells(Cells),
}

/// The whole table, with a summary.
pub(crate) fn table(report: &Report) -> String {
    let heads = [
        "", "median", "min..max", "ours is", "min..max", "target", "",
    ];
    let mut rows = vec![Row::Cells(heads.map(str::to_owned))];
    let mut measure = "";
    for group in &report.groups {
        if group.measure != measure {
            measure = group.measure;
            rows.push(Row::Heading(format!("\n{measure}: {}", group.title)));
        }
        rows.push(Row::Heading(format!("  {}", group.label)));
        rows.extend(
            group
                .lines
                .iter()
                .map(|line| Row::Cells(cells(line, group.unit))),
        );
    }
    let (targets, reached) = report.targets();
    let rounds = report.rounds;
    let how = if report.quick {
        "; quick: smaller than said above, too little to judge by"
    } else {
        ""
    };
    aligned(&rows)
        + &format!(
            "\n{reached} of {targets} targets reached; rounds: {rounds}; processors: {}{how}\n",
            report.processors
        )
}

fn cells(line: &Line, unit: Unit) -> Cells {
    let mut cells = Cells::default();
    cells[0] = format!("    {}", line.side);
    match (&line.status, line.value) {
        (Status::NotFound, _) => cells[1] = "not found".to_owned(),
        (Status::Failed(_), None) => cells[1] = "failed".to_owned(),
        (status, Some(value)) => {
            cells[1] = shown(value.median, unit);
            cells[2] = range(value, |value| shown(value, unit));
            if matches!(status, Status::Failed(_)) {
                cells[6] = "failed at times".to_owned();
            }
        }
        // A quantity that this side knows nothing of.
        (Status::Measured, None) => cells[1] = "–".to_owned(),
    }
    if let Some(ratio) = &line.ratio {
        cells[3] = format!("{} {}", rounded(ratio.span.median), ratio.meaning);
        cells[4] = range(ratio.span, rounded);
    }
    if let Some(target) = &line.target {
        let unit = line.ratio.is_none().then_some(unit);
        cells[5] = aim(target, unit.filter(|_| target.at_most));
        if cells[6].is_empty() {
            cells[6] = match target.reached {
                Some(true) => "reached",
                Some(false) => "missed",
                None => "",
            }
            .to_owned();
        }
    }
    cells
}

/// A target: a value in a unit, or a ratio.
fn aim(target: &Target, unit: Option<Unit>) -> String {
    let sign = if target.at_most { "≤" } else { "≥" };
    let bound = match unit {
        Some(unit) => shown(target.bound, unit),
        None => format!("{} ×", target.bound),
    };
    format!("{sign} {bound}")
}

/// Nothing, if there is only one value.
fn range(span: Span, show: impl Fn(f64) -> String) -> String {
    if span.min == span.max {
        String::new()
    } else {
        format!("{}..{}", show(span.min), show(span.max))
    }
}

/// A value as people say it.
pub(crate) fn shown(value: f64, unit: Unit) -> String {
    const SECONDS: &[(f64, &str)] = &[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")];
    const BYTES: &[(f64, &str)] = &[
        (1_073_741_824.0, "GiB"),
        (1_048_576.0, "MiB"),
        (1024.0, "KiB"),
    ];
    let units = match unit {
        _ if value == 0.0 => return "0".to_owned(),
        Unit::Seconds => SECONDS,
        Unit::Bytes => BYTES,
        Unit::Count => return format!("{value:.0}"),
        Unit::Times => return format!("{} ×", rounded(value)),
    };
    let fitting = units.iter().find(|(size, _)| value.abs() >= *size);
    match fitting.or(units.last()) {
        Some((size, name)) => format!("{} {name}", rounded(value / size)),
        None => rounded(value),
    }
}

/// To three figures, or to as many as anyone wants to read.
pub(crate) fn rounded(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size < 0.0995 => format!("{value:.3}"),
        _ => format!("{value:.2}"),
    }
}

/// Each column as wide as its widest cell; names and ratios to the left, the rest to the right.
fn aligned(rows: &[Row]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        if let Row::Cells(cells) = row {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let line = match row {
            Row::Heading(heading) => heading.clone(),
            Row::Cells(cells) => {
                let padded = cells.iter().zip(widths).enumerate();
                let padded = padded.map(|(column, (cell, width))| match column {
                    1 | 5 => format!("{cell:>width$}"),
                    _ => format!("{cell:width$}"),
                });
                padded.collect::<Vec<_>>().join("  ")
            }
        };
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_figures_and_the_unit_that_fits() {
        let cases = [
            (0.0, Unit::Seconds, "0"),
            (9.8e-8, Unit::Seconds, "98.0 ns"),
            (1.234e-5, Unit::Seconds, "12.3 µs"),
            (2.0, Unit::Seconds, "2.00 s"),
            (0.3, Unit::Seconds, "300 ms"),
            (3.5 * 1_048_576.0, Unit::Bytes, "3.50 MiB"),
            (20.0, Unit::Count, "20"),
        ];
        for (value, unit, text) in cases {
            assert_eq!(shown(value, unit), text);
        }
    }

    #[test]
    fn columns_are_aligned_by_characters_not_bytes() {
        let row = |cell: &str| {
            let mut cells = Cells::default();
            cells[0] = cell.to_owned();
            cells[6] = "end".to_owned();
            Row::Cells(cells)
        };
        let text = aligned(&[row("µµµ"), row("abcde")]);
        let ends: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(ends[0], ends[1]);
    }
}
