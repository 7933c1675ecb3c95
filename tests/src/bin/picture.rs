//! Draws the README's picture of a run, from a real one: `cargo run -p tests --bin picture > docs/run.svg`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool for those who work on the README"
)]

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use tests::eventually;
use tests::terminal::Terminal;

const COLUMNS: u16 = 96;
/// A program that takes a while, and crashes over one of its inputs.
const RESIZE: &str = "#!/bin/sh
sleep 0.4
case $1 in *03*) echo 'resize: bad header' >&2; kill -SEGV $$;; esac
echo \"$1: 1600 x 1200\"
";
const LINE: &str = "coordinator exec -j2 -r1 --log run.log -- ./resize {} ::: *.jpg";
const STYLE: &str = "text { font: 13px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #e6edf3; \
                     white-space: pre } .bad { fill: #ff7b72 } .quiet { fill: #8b949e }";

fn main() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("resize"), RESIZE).unwrap();
    std::fs::set_permissions(path("resize"), PermissionsExt::from_mode(0o755)).unwrap();
    for number in 1..=6 {
        std::fs::write(path(&format!("photo-{number:02}.jpg")), "").unwrap();
    }
    let terminal = Terminal::new(COLUMNS);
    let line = format!(
        "cd {}; PATH={}:$PATH; {LINE}",
        directory.path().display(),
        tests::coordinator().parent().unwrap().display()
    );
    let mut child = terminal.run(&line, &directory);
    eventually("half of it is done", || {
        terminal.lines().join("\n").contains("photo-04.jpg:")
    });
    let (during, first) = terminal.draw(52);
    child.wait().unwrap();
    eventually("all is shown", || {
        terminal.lines().join("\n").contains("coordinator report")
    });
    let (after, second) = terminal.draw(52 + first + 40);
    let height = 52 + first + 40 + second + 20;
    println!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 790 {height}\" width=\"790\" role=\"img\">\n\
         <title>A run, half done and in the end</title>\n<style>{STYLE}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0d1117\"/>\n\
         <text x=\"16\" y=\"28\">$ {LINE}</text>\n<text class=\"quiet\" x=\"16\" y=\"50\"># half done</text>\n{during}\
         <text class=\"quiet\" x=\"16\" y=\"{}\"># in the end</text>\n{after}</svg>",
        52 + first + 36
    );
}
