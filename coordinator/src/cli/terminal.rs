//! What the terminal can do, and which text may be shown on it. All text of others goes through this module before it is
//! shown: it must not move the cursor, change earlier lines, or rearrange the text around it.

use std::io::{self, IsTerminal};

use rustix::termios;

use super::args::When;

/// Escapes characters that are invisible or would rearrange the text around them. The result is one line.
pub(super) fn visible(text: &str) -> String {
    text.chars().map(visible_char).collect()
}

/// Escapes such characters in text that may have lines and tabs.
pub(super) fn visible_lines(text: &str) -> String {
    let keeps = |c: char| matches!(c, '\n' | '\t');
    let shown = |c| if keeps(c) { c } else { visible_char(c) };
    text.chars().map(shown).collect()
}

/// Whether a character has to be escaped.
pub(super) fn is_hidden(c: char) -> bool {
    visible_char(c) != c
}

pub(super) fn visible_char(c: char) -> char {
    match c {
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        '\u{2028}' | '\u{2029}' => '\u{2424}',
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        _ => c,
    }
}

/// Cuts a text in the middle to at most `limit` characters. Names that begin or end alike stay distinguishable.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    let count = text.chars().count();
    if count <= limit {
        return text.to_owned();
    }
    let kept = limit.saturating_sub(1);
    let (head, tail) = (kept / 3, kept - kept / 3);
    let head = text.chars().take(head);
    head.chain(['…'])
        .chain(text.chars().skip(count - tail))
        .collect()
}

/// Whether stderr gets colours: see <https://no-color.org>.
pub(super) fn has_colour(when: When) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => understands_escapes() && !refused,
    }
}

/// Whether stderr is a terminal that can move its cursor.
pub(super) fn understands_escapes() -> bool {
    let knows = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    knows && io::stderr().is_terminal()
}

/// Whether stdout is a pipe, whose reader may write to the same terminal.
pub(super) fn stdout_is_pipe() -> bool {
    use rustix::fs::{FileType, fstat};
    fstat(io::stdout()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Whether this program is in the terminal's foreground. In the background it would write into what a person types.
pub(super) fn is_in_foreground() -> bool {
    // Behind the name, which may contain anything, come state, parent, group, session, terminal, and the terminal's
    // foreground group: see proc_pid_stat(5).
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields: Vec<_> = rest.split(' ').collect();
    match fields[..] {
        [_, _, group, _, _, foreground, ..] => group == foreground || foreground == "-1",
        _ => true,
    }
}

/// The width of stderr's terminal, in columns.
pub(super) fn columns() -> usize {
    match termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => 80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_do_something_to_a_terminal_is_shown_instead() {
        assert_eq!(visible("a\u{1b}[2Jb\r\n\tc"), "a␛[2Jb␍␊␉c");
        assert_eq!(visible_lines("a\u{1b}]0;x\u{7}\n\tb"), "a␛]0;x␇\n\tb");
        assert_eq!(visible("\u{9b}2J\u{202e}txt"), "\u{fffd}2J\u{fffd}txt");
        assert!(is_hidden('\u{7f}') && !is_hidden('é'));
    }

    #[test]
    fn what_is_too_long_keeps_its_beginning_and_its_end() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(
            shortened("/data/raw/measurements-17.csv", 13),
            "/dat…s-17.csv"
        );
        assert_eq!(shortened("aéöüb", 4), "a…üb");
        for limit in 0..9 {
            assert!(shortened("äöüßäöüß", limit).chars().count() <= limit.max(1));
        }
    }
}
