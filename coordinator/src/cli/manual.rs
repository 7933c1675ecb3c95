//! The manual page. Commands and options come from the definition of the command line; the rest stands here.

use std::io;

use clap_mangen::Man;

use super::args;

/// What the page says behind the commands and their options.
const REST: &str = r#".SH PLACEHOLDERS
In the words of a command of \fBexec\fR:
.TP
\fB{}\fR
the input, or all inputs with \fB\-n\fR
.TP
\fB{.}\fR
the input without its extension
.TP
\fB{/}\fR
its last part, as basename(1)
.TP
\fB{//}\fR
its directory, as dirname(1)
.TP
\fB{/.}\fR
its last part without extension
.TP
\fB{#}\fR
the number of the call, from 1
.PP
A command without any of them gets the input as its last word. No shell looks at the words.
.SH ENVIRONMENT
.TP
\fBCOORDINATOR_SEQ\fR, \fBCOORDINATOR_ATTEMPT\fR, \fBCOORDINATOR_WORKER\fR
set for each command of \fBexec\fR: the number of the call, the number of the attempt, and the worker's slot, each from 1
.TP
\fBCOORDINATOR_WORKER\fR
read by \fBmap\fR and \fBtasks\fR: the workers' executable, unless \fB\-\-worker\fR names it
.TP
\fBTMPDIR\fR
the directory for meeting places and for output that waits
.TP
\fBRUST_LOG\fR
what to log on stderr: warn (the default), info, debug
.TP
\fBRUST_BACKTRACE\fR
1 adds a backtrace to the reason of a panic
.TP
\fBNO_COLOR\fR, \fBTERM\fR, \fBCI\fR
no colours, and no bar on a simple terminal or in continuous integration
.SH EXIT STATUS
.TP
\fB0\fR
all calls succeeded
.TP
\fB1\fR
some calls failed, or not all inputs could be read
.TP
\fB2\fR
the command line makes no sense
.TP
\fB3\fR
the pool could not work
.TP
\fB130\fR, \fB143\fR
the run was interrupted: by Ctrl-C; by SIGTERM or SIGHUP
.TP
\fB141\fR
stdout was closed before the end
.SH SIGNALS
.TP
\fBCtrl-C\fR
finishes the running calls and starts no more; a second one ends the workers
.TP
\fBSIGTERM\fR, \fBSIGHUP\fR
end the workers at once: SIGTERM, and SIGKILL after the grace
.TP
\fBCtrl-Z\fR
stops the workers, too; they go on with the run
.TP
\fBSIGUSR1\fR
lists what is running, and for how long
.SH EXAMPLES
Compress all logs, four at a time:
.PP
.nf
    find . \-name '*.log' \-print0 | coordinator exec \-0 \-j4 \-\- gzip \-9
.fi
.PP
Convert files, with a limit for each and a second attempt; the new name has another extension:
.PP
.nf
    coordinator exec \-t 60s \-r1 \-\- ffmpeg \-i {} {.}.mp3 ::: *.wav
.fi
.PP
Write down what was done, do only the rest after an interruption, and look at it:
.PP
.nf
    coordinator exec \-a files.txt \-\-log run.log \-\- ./convert
    coordinator exec \-a files.txt \-\-log run.log \-\-resume \-\- ./convert
    coordinator report run.log \-o run.html
.fi
.PP
Ask one warm process in each worker, line by line:
.PP
.nf
    coordinator pipe \-a texts.txt \-\- python3 \-u classify.py
.fi
.SH SEE ALSO
xargs(1), parallel(1)
"#;

/// One page for all: the commands, the options that runs share, and then what each command has of its own.
pub(super) fn render(to: &mut Vec<u8>) -> io::Result<()> {
    let mut definition = args::definition().disable_help_subcommand(true);
    definition.build();
    let whole = Man::new(definition.clone());
    whole.render_title(to)?;
    whole.render_name_section(to)?;
    to.extend(b".SH SYNOPSIS\n");
    for command in definition.get_subcommands() {
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").replace('-', "\\-");
        to.extend(format!("{usage}\n.br\n").bytes());
    }
    whole.render_description_section(to)?;
    to.extend(
        b".PP\nInputs of a run come after \\fB:::\\fR, from \\fB\\-\\-input\\fR, or from stdin, one a line.\n",
    );
    let shared = args::run_options();
    to.extend(section(
        b"OPTIONS OF RUNS",
        &Man::new(shared.clone()),
        Man::render_options_section,
    )?);
    for command in definition.get_subcommands() {
        let mut own = command.clone();
        for argument in shared.get_arguments() {
            let id = argument.get_id().as_str();
            if command
                .get_arguments()
                .any(|argument| argument.get_id() == id)
            {
                own = own.mut_arg(id, |argument| argument.hide(true));
            }
        }
        let own = Man::new(own.mut_arg("help", |argument| argument.hide(true)));
        let name = command.get_name().to_uppercase();
        to.extend(section(
            name.as_bytes(),
            &own,
            Man::render_description_section,
        )?);
        to.extend(headless(&own, Man::render_options_section)?);
    }
    to.extend(REST.bytes());
    Ok(())
}

type Render = fn(&Man, &mut dyn io::Write) -> io::Result<()>;

/// A part of a page under a heading of ours.
fn section(heading: &[u8], page: &Man, render: Render) -> io::Result<Vec<u8>> {
    let mut all = [b".SH ", heading, b"\n"].concat();
    all.extend(headless(page, render)?);
    Ok(all)
}

/// A part of a page without its own heading.
fn headless(page: &Man, render: Render) -> io::Result<Vec<u8>> {
    let mut part = Vec::new();
    render(page, &mut part)?;
    let part = String::from_utf8_lossy(&part);
    let lines = part.lines().filter(|line| {
        !line.starts_with(".SH ") && !line.starts_with(".ie ") && !line.starts_with(".el ")
    });
    Ok(lines
        .flat_map(|line| [line, "\n"])
        .collect::<String>()
        .into_bytes())
}
