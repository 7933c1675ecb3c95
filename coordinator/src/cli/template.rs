//! The words of a command with places for inputs. `{}` and the other places mean what they mean in GNU parallel:
//! <https://www.gnu.org/software/parallel/parallel_cheat.pdf>.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use super::terminal::is_hidden;

/// A command with places for inputs in its words.
#[derive(Debug, Clone)]
pub(super) struct Template(Vec<Vec<Piece>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    /// `{}`, `{.}` and the other parts of an input.
    Input(Part),
    /// `{#}`, the number of the call.
    Number,
}

/// A part of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    NoExtension,
    Name,
    Directory,
    NameNoExtension,
}

const PLACES: [(&[u8], Piece); 6] = [
    (b"{}", Piece::Input(Part::Whole)),
    (b"{.}", Piece::Input(Part::NoExtension)),
    (b"{/}", Piece::Input(Part::Name)),
    (b"{//}", Piece::Input(Part::Directory)),
    (b"{/.}", Piece::Input(Part::NameNoExtension)),
    (b"{#}", Piece::Number),
];

impl Template {
    /// Parses the words of a command. If they have no place for inputs, the inputs come last.
    pub(super) fn new(words: &[OsString]) -> Self {
        let mut words: Vec<_> = words.iter().map(|word| pieces(word.as_bytes())).collect();
        let is_text = |piece: &Piece| matches!(piece, Piece::Text(_));
        if words.iter().flatten().all(is_text) {
            words.push(vec![Piece::Input(Part::Whole)]);
        }
        Template(words)
    }

    /// Parses words that stand as they are if they have no place for inputs.
    pub(super) fn exact(words: &[OsString]) -> Self {
        Template(words.iter().map(|word| pieces(word.as_bytes())).collect())
    }

    /// Finds text in a word that is a place in other programs, but not here.
    pub(super) fn unknown_place(word: &OsStr) -> Option<String> {
        let is_mark = |byte: &u8| byte.is_ascii_digit() || b"./%+#".contains(byte);
        let mut rest = word.as_bytes();
        while let Some(at) = rest.iter().position(|byte| *byte == b'{') {
            // A shell's `${1}`, and `[0-9]{4}` in a pattern, are no places.
            let is_anothers = at > 0 && b"$])\\".contains(&rest[at - 1]);
            rest = &rest[at..];
            let end = rest.iter().position(|byte| *byte == b'}')?;
            let place = &rest[..=end];
            let is_one = !is_anothers && end > 1 && place[1..end].iter().all(is_mark);
            if is_one && PLACES.iter().all(|(name, _)| *name != place) {
                return Some(String::from_utf8_lossy(place).into_owned());
            }
            rest = &rest[1..];
        }
        None
    }

    /// The command `sh -c SCRIPT`, with the inputs as `"$@"`.
    pub(super) fn script(script: &OsStr) -> Self {
        let text = |text: &[u8]| vec![Piece::Text(text.to_vec())];
        let words = [&b"sh"[..], b"-c", script.as_bytes(), b"sh"];
        let mut words: Vec<_> = words.into_iter().map(text).collect();
        words.push(vec![Piece::Input(Part::Whole)]);
        Template(words)
    }

    /// The command's name, if it is the same for all inputs.
    pub(super) fn program(&self) -> Option<&OsStr> {
        match self.0.first()?.as_slice() {
            [Piece::Text(text)] => Some(OsStr::from_bytes(text)),
            _ => None,
        }
    }

    /// The room for the words that are the same for all inputs, in bytes.
    pub(super) fn size(&self) -> usize {
        self.fill(&[], 0)
            .iter()
            .map(|word| size_of_word(word))
            .sum()
    }

    /// The room for the words that an input adds, in bytes.
    pub(super) fn size_of(&self, input: &[u8]) -> usize {
        let has_input =
            |pieces: &&Vec<Piece>| pieces.iter().any(|piece| matches!(piece, Piece::Input(_)));
        let words = self.0.iter().filter(has_input);
        words
            .map(|pieces| size_of_word(&word(pieces, input, u64::MAX)))
            .sum()
    }

    /// The command's words for some inputs. A word with places is repeated for each input.
    pub(super) fn fill(&self, inputs: &[Vec<u8>], number: u64) -> Vec<Vec<u8>> {
        let mut words = Vec::with_capacity(self.0.len() + inputs.len());
        for pieces in &self.0 {
            if pieces.iter().any(|piece| matches!(piece, Piece::Input(_))) {
                words.extend(inputs.iter().map(|input| word(pieces, input, number)));
            } else {
                words.push(word(pieces, b"", number));
            }
        }
        words
    }
}

/// The room for one word: with its zero byte, and its address in the list. See execve(2).
pub(super) fn size_of_word(word: &[u8]) -> usize {
    word.len() + 1 + size_of::<usize>()
}

fn pieces(word: &[u8]) -> Vec<Piece> {
    let (mut pieces, mut text, mut rest) = (Vec::new(), Vec::new(), word);
    while let Some(first) = rest.first() {
        match PLACES.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, place)) => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(place.clone());
                rest = &rest[name.len()..];
            }
            None => {
                text.push(*first);
                rest = &rest[1..];
            }
        }
    }
    if !text.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

fn word(pieces: &[Piece], input: &[u8], number: u64) -> Vec<u8> {
    let mut word = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => word.extend(text),
            Piece::Input(part) => word.extend(part.of(input)),
            Piece::Number => word.extend(number.to_string().bytes()),
        }
    }
    word
}

impl Part {
    fn of(self, input: &[u8]) -> &[u8] {
        let slash = input.iter().rposition(|byte| *byte == b'/');
        let name = &input[slash.map_or(0, |at| at + 1)..];
        // A dot in the name of a directory begins no extension.
        let dot = name.iter().rposition(|byte| *byte == b'.');
        let extension = dot.map_or(0, |at| name.len() - at);
        match self {
            Part::Whole => input,
            Part::NoExtension => &input[..input.len() - extension],
            Part::Name => name,
            Part::Directory => directory(input),
            Part::NameNoExtension => &name[..name.len() - extension],
        }
    }
}

/// The directory of a path, as dirname(1) prints it.
fn directory(path: &[u8]) -> &[u8] {
    let without_slashes = |path: &[u8]| path.iter().rposition(|byte| *byte != b'/');
    let Some(last) = without_slashes(path) else {
        return if path.is_empty() { b"." } else { b"/" };
    };
    match path[..last].iter().rposition(|byte| *byte == b'/') {
        None => b".",
        Some(slash) => match without_slashes(&path[..slash]) {
            None => b"/",
            Some(last) => &path[..=last],
        },
    }
}

/// Quotes words for a shell, on one line.
pub(super) fn quoted<'w>(words: impl IntoIterator<Item = &'w [u8]>) -> String {
    let quote = |word: &[u8]| match std::str::from_utf8(word) {
        Ok(text) if !text.chars().any(is_hidden) => {
            // Quoting fails only for a zero byte.
            shlex::try_quote(text).map_or_else(|_| escaped(word), Cow::into_owned)
        }
        _ => escaped(word),
    };
    let words: Vec<_> = words.into_iter().map(quote).collect();
    words.join(" ")
}

/// Quotes a word with bytes that can't be shown, or would control a terminal. bash, zsh and the shell of POSIX 2024
/// understand this form.
fn escaped(word: &[u8]) -> String {
    let mut quoted = "$'".to_owned();
    for chunk in word.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => quoted.push_str("\\n"),
                '\t' => quoted.push_str("\\t"),
                // A quote is not escaped with a backslash: a shell that does not know this form would end the word there, and
                // take the rest for commands.
                '\'' => octal(&mut quoted, b"'"),
                '\\' => quoted.push_str("\\\\"),
                hidden if is_hidden(hidden) => {
                    let mut bytes = [0; 4];
                    octal(&mut quoted, hidden.encode_utf8(&mut bytes).as_bytes());
                }
                other => quoted.push(other),
            }
        }
        octal(&mut quoted, chunk.invalid());
    }
    quoted.push('\'');
    quoted
}

fn octal(quoted: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(quoted, "\\{byte:03o}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn what_looks_like_a_place_and_is_none_is_found() {
        let unknown = |word: &str| Template::unknown_place(OsStr::new(word));
        for (word, place) in [
            ("{1}", "{1}"),
            ("a{}b{2.}", "{2.}"),
            ("{{%}", "{%}"),
            ("{a}{/..}", "{/..}"),
        ] {
            assert_eq!(unknown(word).as_deref(), Some(place), "{word}");
        }
        for word in [
            "{}",
            "{.}{/}{//}{/.}{#}",
            "{a}",
            "{1,3}",
            "{",
            "}",
            "{1",
            "{print $1}",
            "echo ${1}",
            "^[0-9]{4}-(ab){2}",
        ] {
            assert_eq!(unknown(word), None, "{word}");
        }
    }

    fn filled(words: &[&str], inputs: &[&str]) -> Vec<String> {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        let inputs: Vec<_> = inputs
            .iter()
            .map(|input| input.as_bytes().to_vec())
            .collect();
        let filled = Template::new(&words).fill(&inputs, 7);
        filled
            .into_iter()
            .map(|word| String::from_utf8(word).unwrap())
            .collect()
    }

    #[test]
    fn places_are_filled_as_gnu_parallel_does() {
        for (input, whole, bare, name, directory, bare_name) in [
            (
                "a/b.tar.gz",
                "a/b.tar.gz",
                "a/b.tar",
                "b.tar.gz",
                "a",
                "b.tar",
            ),
            ("b", "b", "b", "b", ".", "b"),
            ("/b.c", "/b.c", "/b", "b.c", "/", "b"),
            ("a.d/b", "a.d/b", "a.d/b", "b", "a.d", "b"),
            ("", "", "", "", ".", ""),
            ("d/", "d/", "d/", "", ".", ""),
            ("a/d/", "a/d/", "a/d/", "", "a", ""),
            ("//f//g", "//f//g", "//f//g", "g", "//f", "g"),
            ("/", "/", "/", "", "/", ""),
        ] {
            let words = ["x", "{}", "{.}", "{/}", "{//}", "{/.}", "{#}"];
            let expected = ["x", whole, bare, name, directory, bare_name, "7"];
            assert_eq!(filled(&words, &[input]), expected, "{input}");
        }
        assert_eq!(filled(&["x", "-o={.}.{#}"], &["a.b"]), ["x", "-o=a.7"]);
        assert_eq!(
            filled(&["x", "{", "{x}", "{}}"], &["1"]),
            ["x", "{", "{x}", "1}"]
        );
    }

    #[test]
    fn a_shell_takes_quoted_words_for_what_they_are() {
        let words: [&[u8]; 8] = [
            b"plain",
            b"",
            b"it's \"$HOME\" `x` \\",
            "\u{e9}\u{fffd}\u{85}".as_bytes(),
            b"\xff7\xfe\x1b[31m",
            b"two\nlines\tand\r",
            b"'\\\n",
            b"-- :::",
        ];
        let line = quoted(words);
        assert!(!line.chars().any(char::is_control), "{line}");
        let shell = std::process::Command::new("bash")
            .arg("-c")
            .arg(format!("printf '%s\\0' {line}"))
            .output();
        // Without bash, this can't be tested.
        if let Ok(output) = shell {
            let heard: Vec<_> = output.stdout.split(|byte| *byte == 0).collect();
            assert_eq!(heard[..words.len()], words, "{line}");
        }
    }

    #[test]
    fn a_shell_that_does_not_know_the_form_runs_nothing_that_stands_in_it() {
        let line = quoted([&b"a\n'; echo injected; '"[..], b"\\'\n; echo injected #"]);
        let shell = std::process::Command::new("dash")
            .arg("-c")
            .arg(format!("printf '%s\\0' {line}"))
            .output();
        if let Ok(output) = shell {
            // There have to be exactly two words.
            let words = output.stdout.split(|byte| *byte == 0).count() - 1;
            assert_eq!(
                words,
                2,
                "{line}: {}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
    }

    #[test]
    fn an_input_without_a_place_comes_last() {
        assert_eq!(filled(&["echo", "-n"], &["a b"]), ["echo", "-n", "a b"]);
        assert_eq!(filled(&["echo", "{#}"], &["a"]), ["echo", "7"]);
        assert_eq!(filled(&["echo", ""], &["a"]), ["echo", "", "a"]);
        // Text in an input is never a place.
        assert_eq!(filled(&["echo"], &["{#}"]), ["echo", "{#}"]);
    }

    #[test]
    fn several_inputs_repeat_the_word() {
        assert_eq!(filled(&["x", "{}", "y"], &["1", "2"]), ["x", "1", "2", "y"]);
        assert_eq!(filled(&["x", "-f={}"], &["1", "2"]), ["x", "-f=1", "-f=2"]);
    }

    #[test]
    fn a_script_takes_its_inputs_as_arguments() {
        let filled = Template::script(OsStr::new("echo \"$1\"")).fill(&[b"a b".to_vec()], 1);
        assert_eq!(filled, [&b"sh"[..], b"-c", b"echo \"$1\"", b"sh", b"a b"]);
    }
}
