//! Five comparisons as bars, for the README: how many times as fast ours is.

use std::fmt::Write as _;

use crate::picture::escaped;
use crate::report::{Line, Report};
use crate::table::rounded;

/// The measures and sides, with the README's words for them.
const BARS: [(&str, &str, &str); 5] = [
    (
        "each",
        "Python Pool.map",
        "a million short calls, each with its own outcome, against Python's Pool.map with chunksize=1",
    ),
    (
        "payload-map",
        "Python Pool.map",
        "1 MiB in and out, mapped, against Python's Pool.map",
    ),
    (
        "map",
        "Python Pool.map",
        "a million short calls, against Python's Pool.map, which loses a chunk as a whole",
    ),
    (
        "exec",
        "xargs -P2",
        "exec of 1,000 × true, in order and logged, against xargs -P2",
    ),
    (
        "cpu",
        "rayon, 2 threads",
        "calls of 100 µs of work, against rayon with two threads",
    ),
];

const WIDTH: f64 = 860.0;
const LEFT: f64 = 16.0;
const ROW: f64 = 46.0;
const TOP: f64 = 44.0;
/// The length of a bar for each power of ten.
const DECADE: f64 = 230.0;
/// Where a bar begins, in powers of ten: what is as fast as ours has a bar, too.
const FROM: f64 = -0.5;

const STYLE: &str = "
  text { font: 13px ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
  .head { font-size: 15px; font-weight: 600 } .number { font-weight: 600 } .quiet { fill: #59636e }
  .bar { fill: #0969da } .back { fill: #ffffff } .one { stroke: #1f2328; stroke-dasharray: 2 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .quiet { fill: #9198a1 } .bar { fill: #4493f8 } .back { fill: #0d1117 } .one { stroke: #f0f6fc }
  }
";

/// The picture, an SVG. `None` if one of the measures was not taken.
pub(crate) fn bars(report: &Report) -> Option<String> {
    let height = TOP + BARS.len() as f64 * ROW + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\">\n<title>How many times as fast as others, on a logarithmic scale</title>\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"head\" x=\"{LEFT}\" y=\"26\">How many times as fast as others <tspan class=\"quiet\">two processors, \
         medians, logarithmic; dotted: as fast</tspan></text>\n"
    );
    for (row, (measure, side, words)) in BARS.into_iter().enumerate() {
        let multiple = line(report, measure, side)?.ratio.as_ref()?.multiple;
        let y = TOP + row as f64 * ROW;
        let length = ((multiple.log10() - FROM) * DECADE).max(2.0);
        // Writing to a String does not fail.
        let _ = write!(
            svg,
            "<text class=\"quiet\" x=\"{LEFT}\" y=\"{:.1}\">{}</text>\n\
             <rect class=\"bar\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"16\" rx=\"2\"/>\n\
             <text class=\"number\" x=\"{:.1}\" y=\"{:.1}\">{} ×</text>\n",
            y + 13.0,
            escaped(words),
            y + 19.0,
            LEFT + length + 8.0,
            y + 31.5,
            rounded(multiple),
        );
    }
    let one = LEFT - FROM * DECADE;
    let _ = writeln!(
        svg,
        "<line class=\"one\" x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"><title>as fast</title></line>",
        TOP + 18.0,
        height - 8.0
    );
    svg.push_str("</svg>\n");
    Some(svg)
}

fn line<'r>(report: &'r Report, measure: &str, side: &str) -> Option<&'r Line> {
    let mut groups = report
        .groups
        .iter()
        .filter(|group| group.measure == measure && group.pictured);
    groups.find_map(|group| group.lines.iter().find(|line| line.side == side))
}
