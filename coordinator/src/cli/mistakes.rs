//! What is wrong with a command line, and what was probably meant.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What people know from other programs, and what it is here.
const FOREIGN: &[(&[&str], &str)] = &[
    (
        &["-k", "--keep-order"],
        "results come in input order anyway; -u gives it up",
    ),
    (&["-P", "--max-procs", "--procs"], "use -j N"),
    (
        &[
            "-L",
            "--max-args",
            "--max-lines",
            "-N",
            "-X",
            "-m",
            "--xargs",
        ],
        "use -n N for several inputs to each command",
    ),
    (
        &["-I", "-i", "--replace"],
        "{} in the command's words is the input",
    ),
    (
        &["--arg-file", "--arg-sep"],
        "use -a FILE, or ::: before the inputs",
    ),
    (
        &["-d", "--delimiter"],
        "inputs end with a newline, or with NUL by -0",
    ),
    (
        &["-C", "--colsep"],
        "an input is a line as it stands; let the command take it apart",
    ),
    (&["--joblog"], "use --log FILE"),
    (
        &["--resume-failed", "--retry-failed"],
        "use --log FILE --resume",
    ),
    (
        &["--halt", "--halt-on-error"],
        "use --max-fail N, or --max-fail N:now",
    ),
    (
        &["--bar", "--eta"],
        "there is a bar on a terminal; --progress always shows one elsewhere",
    ),
    (
        &["--results", "--files"],
        "use --json, which has each call's output",
    ),
    (
        &["--lb", "--line-buffer", "--linebuffer", "--ungroup"],
        "use --live",
    ),
    (
        &["--group"],
        "the output of each call stays together anyway",
    ),
    (&["--tagstring"], "use --tag, which is the input"),
    (&["--memfree"], "use --min-free-memory SIZE"),
    (&["--load"], "use --max-load N"),
    (&["--termseq"], "use --grace TIME"),
    (
        &["--pipe", "--pipepart"],
        "coordinator pipe asks a warm process line by line",
    ),
    (
        &[
            "-S",
            "--sshlogin",
            "--slf",
            "--sshloginfile",
            "--transfer",
            "--return",
        ],
        "use --on HOST,... and, for files, --send and --fetch",
    ),
    (&["--nice"], "put nice before coordinator"),
    (&["--shuf"], "put shuf before it, in a pipe"),
    (
        &["--will-cite", "--citation", "--no-notice"],
        "leave it out",
    ),
    (
        &["-p", "--interactive", "-o", "--open-tty"],
        "calls have no terminal",
    ),
    (&["--verbose"], "use --dry-run to see the commands"),
    (&["--no-run-if-empty"], "no input is no call anyway"),
    (
        &["--chunksize", "--block"],
        "short calls travel together by themselves",
    ),
];

/// What can be seen to be wrong before the options are read.
pub(super) fn in_words(words: &[OsString], inputs: Option<&[OsString]>) -> Option<String> {
    if words.get(1).is_some_and(|word| word == "--connect") {
        // With the token, worker::init() would have taken over.
        let mistake = "--connect joins another coordinator, which needs COORDINATOR_TOKEN: copy the whole line that it \
                       printed";
        return Some(mistake.to_owned());
    }
    let inputs = inputs.unwrap_or_default();
    if inputs.iter().any(|input| input == ":::") {
        let mistake = "there is a second `:::`, and inputs are not combined: put it in a file for --input if it is one";
        return Some(mistake.to_owned());
    }
    let others = ["::::", ":::+", "::::+"];
    let mut all = words.iter().chain(inputs);
    if let Some(word) = all.find(|word| others.iter().any(|other| *word == other)) {
        return Some(format!(
            "`{}` means nothing here: inputs come after `:::`, from a file by --input FILE, or from stdin, and are not \
             combined",
            word.display()
        ));
    }
    let end = words.iter().position(|word| word == "--")?;
    let no_number = words[..end]
        .last()
        .is_some_and(|word| word == "-j" || word == "--jobs");
    if no_number {
        return Some(
            "-j needs a number: -j 4, -j 50%, or -j -1 for all processors but one".to_owned(),
        );
    }
    let is_exec = words.get(1).is_some_and(|word| word == "exec");
    match &words[end + 1..] {
        [line] if is_exec && is_for_a_shell(line) => Some(format!(
            "there is no program `{0}`: no shell reads the command's words; a line for a shell comes after -c, as in: \
             coordinator exec -c {1}",
            line.display(),
            shlex::try_quote(&line.to_string_lossy()).unwrap_or_default()
        )),
        _ => None,
    }
}

/// Whether a command's only word is a whole line.
fn is_for_a_shell(word: &OsStr) -> bool {
    let bytes = word.as_encoded_bytes();
    bytes.contains(&b' ') && !bytes.contains(&b'{') && !Path::new(word).exists()
}

/// Says in one line what is wrong with the options, and what was probably meant.
pub(super) fn explain(
    error: &clap::Error,
    words: &[OsString],
    definition: &clap::Command,
) -> String {
    let said = first_paragraph(&error.to_string());
    let command = words
        .get(1)
        .and_then(|word| word.to_str())
        .unwrap_or_default();
    let is_command = definition.find_subcommand(command).is_some();
    let invalid = text(error, ContextKind::InvalidArg);
    let is_unknown = error.kind() == ErrorKind::UnknownArgument;
    if let Some(option) = invalid.as_deref().filter(|_| is_unknown) {
        let is_run = ["map", "exec", "pipe"].contains(&command);
        if let Some(instead) = foreign(option).filter(|_| is_run) {
            return format!("there is no {option}: {instead}");
        }
        if let Some(meant) = text(error, ContextKind::SuggestedArg) {
            return format!("{said}; did you mean {meant}? try: coordinator {command} --help");
        }
        if command == "map" && !option.starts_with('-') {
            return format!(
                "{said}: inputs come after `:::`, as in: coordinator map square ::: 1 2 3"
            );
        }
        let needs_separator =
            ["exec", "pipe"].contains(&command) && !words.iter().any(|word| word == "--");
        if needs_separator {
            return format!(
                "{said}: a command comes after `--`, as in: coordinator exec -- gzip {{}}"
            );
        }
    }
    if error.kind() == ErrorKind::InvalidSubcommand {
        if let Some(meant) = text(error, ContextKind::SuggestedSubcommand) {
            return format!("{said}; did you mean {meant}?");
        }
        return format!(
            "{said}: to run a program, put exec -- before it: coordinator exec -- {command} …"
        );
    }
    match is_command {
        true => format!("{said}; try: coordinator {command} --help"),
        false => format!("{said}; try: coordinator --help"),
    }
}

/// What an option of another program is here. A short one may have its value right behind it.
fn foreign(option: &str) -> Option<&'static str> {
    let name = option.split('=').next().unwrap_or(option);
    let is = |known: &str| {
        known == name || (known.len() == 2 && name.starts_with(known) && !name.starts_with("--"))
    };
    FOREIGN
        .iter()
        .find(|(names, _)| names.iter().any(|known| is(known)))
        .map(|(_, instead)| *instead)
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}

/// Which of the names was probably meant.
pub(super) fn meant<'n>(said: &str, names: &[&'n str]) -> Option<&'n str> {
    let closeness = |name: &&str| strsim::jaro_winkler(said, name);
    let close = names.iter().copied().filter(|name| closeness(name) > 0.8);
    close.max_by(|one, other| closeness(one).total_cmp(&closeness(other)))
}

/// The first paragraph of a message, without its label, on one line.
fn first_paragraph(message: &str) -> String {
    let paragraph = message.split("\n\n").next().unwrap_or(message);
    let words: Vec<_> = paragraph.split_whitespace().collect();
    let line = words.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use crate::cli::args;

    #[test]
    fn mistakes_get_an_answer() {
        let answers = [
            ("c exec --retires 2 -- true", "did you mean --retries"),
            ("c exec -k -- true", "in input order anyway"),
            ("c exec -P4 -- true", "use -j N"),
            ("c exec --joblog=x -- true", "use --log FILE"),
            ("c exec --halt now -- true", "--max-fail"),
            ("c exec --bar -- true", "--progress always"),
            ("c exec --results x -- true", "--json"),
            ("c exec --sshlogin x -- true", "use --on HOST"),
            ("c map square 1 2 3", "inputs come after `:::`"),
            ("c echo hi", "coordinator exec -- echo"),
            ("c exce -- true", "did you mean exec"),
            ("c exec -j -- echo", "-j needs a number"),
            ("c exec true", "a command comes after `--`"),
            ("c exec --timeout x -- true", "--timeout"),
        ];
        for (line, answer) in answers {
            let words = line.split(' ').map(std::ffi::OsString::from);
            let said = args::parse(words).expect_err(line);
            assert!(said.contains(answer), "{line}: {said}");
            assert!(!said.contains('\n'), "{line}: {said}");
        }
        let line = ["c", "exec", "--", "echo hi | wc -l"].map(std::ffi::OsString::from);
        let said = args::parse(line).expect_err("a line for a shell");
        assert!(
            said.contains("coordinator exec -c 'echo hi | wc -l'"),
            "{said}"
        );
    }

    #[test]
    fn a_name_that_is_nearly_right_is_found() {
        assert_eq!(
            super::meant("sqare", &["echo", "square", "sha256"]),
            Some("square")
        );
        assert_eq!(super::meant("zzz", &["echo", "square"]), None);
    }
}
