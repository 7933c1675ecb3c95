//! A terminal: what a program writes to it, and what a person then sees.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tempfile::TempDir;

/// A terminal of so many columns, and what is to be seen on it.
pub struct Terminal {
    ours: Arc<OwnedFd>,
    screen: Arc<Mutex<vt100::Parser>>,
    raw: Arc<Mutex<Vec<u8>>>,
}

const ROWS: u16 = 24;
const FLAGS: OpenptFlags = OpenptFlags::RDWR
    .union(OpenptFlags::NOCTTY)
    .union(OpenptFlags::CLOEXEC);

fn some(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

impl Terminal {
    /// One of so many columns.
    #[must_use]
    pub fn new(columns: u16) -> Self {
        let ours = openpt(FLAGS).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let terminal = Terminal {
            ours: Arc::new(ours),
            screen: Arc::new(Mutex::new(vt100::Parser::new(some(ROWS), some(columns), 0))),
            raw: Arc::default(),
        };
        terminal.resize(columns);
        terminal
    }

    /// Makes it as wide as this.
    pub fn resize(&self, columns: u16) {
        let size = Winsize {
            ws_row: ROWS,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&*self.ours, size).unwrap();
        let mut screen = self.screen.lock().unwrap();
        screen.screen_mut().set_size(some(ROWS), some(columns));
    }

    /// Runs a line of shell on it, as the session's leader.
    pub fn run(&self, line: &str, directory: &TempDir) -> Child {
        let theirs = ioctl_tiocgptpeer(&*self.ours, FLAGS).unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", "bash", "-c", line]);
        command.env("C", crate::coordinator());
        command.env("TMPDIR", directory.path());
        command.env("TERM", "xterm-256color");
        command.env_remove("CI").env_remove("NO_COLOR");
        command.stdin(theirs.try_clone().unwrap());
        command.stdout(theirs.try_clone().unwrap());
        let child = command.stderr(theirs).spawn().unwrap();
        let (mut ours, screen, raw) = (
            File::from(self.ours.try_clone().unwrap()),
            Arc::clone(&self.screen),
            Arc::clone(&self.raw),
        );
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = ours.read(&mut bytes) {
                screen.lock().unwrap().process(&bytes[..count]);
                raw.lock().unwrap().extend(&bytes[..count]);
            }
        });
        child
    }

    /// The lines that are not empty.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let screen = self.screen.lock().unwrap();
        let text = screen.screen().contents();
        let lines = text.lines().map(|line| line.trim_end().to_owned());
        lines.filter(|line| !line.is_empty()).collect()
    }

    /// All that was written to it.
    #[must_use]
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw.lock().unwrap()).into_owned()
    }

    /// What is shown, as lines of SVG text from a height on: with its colours, and as high as it has lines.
    #[must_use]
    pub fn draw(&self, top: u32) -> (String, u32) {
        let screen = self.screen.lock().unwrap();
        let (_, columns) = screen.screen().size();
        let mut svg = String::new();
        let mut last = 0;
        for row in 0..ROWS {
            let cells = (0..columns.get()).filter_map(|column| screen.screen().cell(row, column));
            let mut line = String::new();
            for cell in cells.filter(|cell| cell.has_contents()) {
                let text = cell.contents().replace('&', "&amp;").replace('<', "&lt;");
                match cell.fgcolor() {
                    vt100::Color::Idx(1 | 9) => {
                        line += &format!("<tspan class=\"bad\">{text}</tspan>")
                    }
                    _ => line += &text,
                }
            }
            if !line.trim().is_empty() {
                last = u32::from(row) + 1;
                let height = top + 19 * last;
                let line = line.replace("</tspan><tspan class=\"bad\">", "");
                svg += &format!("<text x=\"16\" y=\"{height}\">{}</text>\n", line.trim_end());
            }
        }
        (svg, 19 * last)
    }
}
