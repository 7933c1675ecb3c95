//! The comparisons as a picture: how long each side takes, as a multiple of ours.

use std::fmt::Write as _;

use crate::report::{Group, Line, Report};
use crate::table::{rounded, shown};

const WIDTH: f64 = 860.0;
/// Where names end, and the axis begins and ends.
const NAMES: f64 = 222.0;
const LEFT: f64 = 344.0;
const RIGHT: f64 = 800.0;
const TOP: f64 = 58.0;
const LINE: f64 = 19.0;
const TITLE: f64 = 30.0;

/// Colours of both worlds: a picture in a page takes over the page's preference, not its colours.
const STYLE: &str = "
  text { font: 12px ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
  .head { font-size: 15px; font-weight: 600 } .title { font-weight: 600 }
  .quiet { fill: #59636e } .end { text-anchor: end } .middle { text-anchor: middle }
  .grid { stroke: #d1d9e0; stroke-width: 1 } .one { stroke: #0969da; stroke-width: 1.5 }
  .stem { stroke: #818b98; stroke-width: 2 } .dot { fill: #59636e } .ours { fill: #0969da }
  .back { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .quiet { fill: #9198a1 } .grid { stroke: #3d444d } .one { stroke: #4493f8 }
    .stem { stroke: #656c76 } .dot { fill: #9198a1 } .ours { fill: #4493f8 } .back { fill: #0d1117 }
  }
";

/// The picture, an SVG. Each side is a dot on one logarithmic axis; ours is the line at 1.
pub(crate) fn picture(report: &Report) -> String {
    let groups: Vec<&Group> = report.groups.iter().filter(|group| shows(group)).collect();
    let compared = groups.iter().flat_map(|group| lines(group));
    let multiples = compared.filter_map(|line| Some(line.ratio.as_ref()?.multiple));
    let axis = Axis::over(multiples);
    let count = groups
        .iter()
        .map(|group| lines(group).count())
        .sum::<usize>();
    let bottom = TOP + count as f64 * LINE + groups.len() as f64 * TITLE;
    let height = bottom + 34.0;

    let mut svg = String::new();
    let mut draw = |piece: std::fmt::Arguments<'_>| {
        // Writing to a string can't fail.
        let _ = svg.write_fmt(piece);
        svg.push('\n');
    };
    draw(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">"
    ));
    draw(format_args!(
        "<title>How long each side takes, as a multiple of ours</title>"
    ));
    draw(format_args!("<style>{STYLE}</style>"));
    draw(format_args!(
        "<rect class=\"back\" width=\"100%\" height=\"100%\"/>"
    ));
    draw(format_args!(
        "<text class=\"head\" x=\"16\" y=\"26\">How long each side takes, as a multiple of ours</text>"
    ));
    draw(format_args!(
        "<text class=\"quiet end\" x=\"{}\" y=\"26\">shorter ← → longer</text>",
        WIDTH - 16.0
    ));
    for multiple in axis.marks() {
        let x = axis.x(multiple);
        let class = if multiple == 1.0 { "one" } else { "grid" };
        draw(format_args!(
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom}\"/>",
            TOP - 6.0
        ));
        for y in [TOP - 12.0, bottom + 16.0] {
            draw(format_args!(
                "<text class=\"quiet middle\" x=\"{x:.1}\" y=\"{y}\">{}×</text>",
                plain(multiple)
            ));
        }
    }
    let mut y = TOP;
    for group in groups {
        y += TITLE;
        draw(format_args!(
            "<text class=\"title\" x=\"16\" y=\"{:.1}\">{}</text>",
            y - 9.0,
            escaped(group.title)
        ));
        for line in lines(group) {
            y += LINE;
            for piece in drawn(group, line, &axis, y - LINE / 2.0) {
                draw(format_args!("{piece}"));
            }
        }
    }
    draw(format_args!("</svg>"));
    svg
}

/// There is something to compare.
fn shows(group: &Group) -> bool {
    group.pictured && group.lines.iter().any(|line| line.ratio.is_some())
}

/// Ours first, then what it is compared with.
fn lines(group: &Group) -> impl Iterator<Item = &Line> {
    group.lines.iter().filter(|line| line.value.is_some())
}

/// A side: its name, its median, and a dot with a stem from ours.
fn drawn(group: &Group, line: &Line, axis: &Axis, y: f64) -> Vec<String> {
    let Some(value) = line.value else {
        return Vec::new();
    };
    let base = y + 4.0;
    let mut pieces = vec![
        format!(
            "<text class=\"end\" x=\"{NAMES}\" y=\"{base:.1}\">{}</text>",
            escaped(line.side)
        ),
        format!(
            "<text class=\"quiet end\" x=\"{}\" y=\"{base:.1}\">{}</text>",
            LEFT - 54.0,
            shown(value.median, group.unit)
        ),
    ];
    let from = axis.x(1.0);
    let Some(multiple) = line.ratio.as_ref().map(|ratio| ratio.multiple) else {
        pieces.push(format!(
            "<circle class=\"ours\" cx=\"{from:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"
        ));
        return pieces;
    };
    let to = axis.x(multiple);
    pieces.push(format!(
        "<line class=\"stem\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
    ));
    pieces.push(format!(
        "<circle class=\"dot\" cx=\"{to:.1}\" cy=\"{y:.1}\" r=\"4\"/>"
    ));
    // On the side of the dot where the stem is not.
    let (class, x) = if multiple < 1.0 {
        ("quiet end", to - 9.0)
    } else {
        ("quiet", to + 9.0)
    };
    pieces.push(format!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{base:.1}\">{}×</text>",
        rounded(multiple)
    ));
    pieces
}

/// A logarithmic axis between two powers of ten.
struct Axis {
    from: i32,
    to: i32,
}

impl Axis {
    /// As short as these fit on; ours is always on it.
    fn over(multiples: impl Iterator<Item = f64>) -> Self {
        let powers = multiples.map(f64::log10).filter(|power| power.is_finite());
        let (low, high) = powers.fold((0.0_f64, 1.0_f64), |(low, high), power| {
            (low.min(power), high.max(power))
        });
        Axis {
            from: low.floor() as i32,
            to: high.ceil() as i32,
        }
    }

    fn x(&self, multiple: f64) -> f64 {
        let share = (multiple.log10() - f64::from(self.from)) / f64::from(self.to - self.from);
        LEFT + share * (RIGHT - LEFT)
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        (self.from..=self.to).map(|power| 10_f64.powi(power))
    }
}

/// A power of ten.
fn plain(multiple: f64) -> String {
    if multiple >= 1.0 {
        format!("{multiple:.0}")
    } else {
        format!("{multiple}")
    }
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
