//! `coordinator report`: shows a log as a web page or as a trace.
//!
//! `read` and `marks` count a log of any length. `pick` chooses the attempts that are shown one by one, and `timeline` lays
//! them out. `page`, `tables`, `data` and `trace` write. This module reads logs alone; pools have no place here.

mod data;
mod marks;
mod page;
mod pick;
mod read;
mod serve;
mod tables;
mod text;
mod timeline;
mod trace;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use worker::builtin::Patient;

use super::args::ReportArgs;
use super::lines::ReadingTime;
use super::{Exit, Trouble, cannot_write, check_stdout, complain, print, terminal};
use timeline::Timeline;

/// Reads the log and writes the page or the trace.
pub(super) fn run(args: &ReportArgs) -> Result<Exit, Trouble> {
    let log = File::open(&args.log)
        .and_then(|file| read_log(file, &args.log))
        .map_err(|error| {
            Trouble::Usage(format!("{} can't be read: {error}", args.log.display()))
        })?;
    if log.is_something_else() {
        return Err(Trouble::Usage(format!(
            "{} has no line of a log, so there is nothing to draw: name what --log wrote",
            args.log.display()
        )));
    }
    if let Some(warning) = log.warning() {
        complain(&format_args!("{}: {warning}", args.log.display()));
    }
    let name = args.log.file_name().unwrap_or(args.log.as_os_str());
    let title = terminal::visible(&name.to_string_lossy());
    if args.live {
        drop(log);
        return serve(&args.log, title);
    }
    let timeline = Timeline::new(log);
    if let (true, Some(shows)) = (args.trace, timeline.shows()) {
        complain(&format_args!("the trace has {shows}"));
    }
    let fill = |out: &mut dyn Write| {
        if args.trace {
            trace::write(out, &timeline)
        } else {
            page::write(out, &title, &timeline, None)
        }
    };
    let Some(path) = destination(args) else {
        // Stdout is locked once, because a page is many small writes.
        let printed = check_stdout().and_then(|()| buffered(Patient(io::stdout().lock()), fill));
        return match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(cannot_write(&error)),
            _ => Ok(Exit::AllOk),
        };
    };
    if same_file(&path, &args.log) {
        let log = args.log.display();
        return Err(Trouble::Usage(format!(
            "{log} is the log itself, and would be overwritten"
        )));
    }
    let file = match &args.output {
        Some(_) => File::create(&path),
        None => unasked(&path),
    };
    file.and_then(|file| buffered(file, fill))
        .map_err(|error| Trouble::Pool(format!("{} can't be written: {error}", path.display())))?;
    if args.output.is_none() {
        complain(&format_args!("wrote {}", path.display()));
    }
    Ok(Exit::AllOk)
}

/// Serves the page, and draws it anew as the log grows.
fn serve(log: &Path, title: String) -> Result<Exit, Trouble> {
    if !log.is_file() {
        return Err(Trouble::Usage(format!(
            "--live reads its log again and again, so {} has to be a file",
            log.display()
        )));
    }
    let nowhere = |error: io::Error| Trouble::Pool(format!("nobody can be served: {error}"));
    let server = serve::Server::new(log, title).map_err(nowhere)?;
    let address = server.address().map_err(nowhere)?;
    print(&format!("{address}\n"))?;
    complain(&"this page follows the log; Ctrl-C ends it");
    server.run();
    Ok(Exit::AllOk)
}

/// Reads a log, and reports its progress if that takes long.
fn read_log(mut log: File, path: &Path) -> io::Result<read::LogSums> {
    let found = log.metadata()?;
    if !found.is_file() {
        // The log is read twice, and a pipe can be read only once.
        let mut copy = tempfile::tempfile()?;
        io::copy(&mut log, &mut copy)?;
        copy.rewind()?;
        log = copy;
    }
    let mut patience = ReadingTime::new(path, found.len());
    read::read(log, |read| patience.has_read(read))
}

fn buffered(to: impl Write, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(to);
    fill(&mut out)?;
    out.flush()
}

/// The file to write. `None` means stdout, unless that is a terminal, where megabytes of markup are of no use.
fn destination(args: &ReportArgs) -> Option<PathBuf> {
    match &args.output {
        Some(path) if path.as_os_str() == "-" => None,
        Some(path) => Some(path.clone()),
        None if io::stdout().is_terminal() => Some(beside(&args.log, args.trace)),
        None => None,
    }
}

/// Opens the file with the default name. It may replace an older report, but no other file.
fn unasked(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // If the name is a link, the file behind it may be anybody's.
    let no_link = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.custom_flags(no_link.bits().cast_signed());
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let mut beginning = Vec::new();
    let longest = page::BEGINNING.len().max(trace::BEGINNING.len());
    (&mut file)
        .take(longest as u64)
        .read_to_end(&mut beginning)?;
    let begins = |with: &str| beginning.starts_with(with.as_bytes());
    if !(beginning.is_empty() || begins(page::BEGINNING) || begins(trace::BEGINNING)) {
        return Err(io::Error::other(
            "it is there already, and no report: choose a name with -o",
        ));
    }
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn beside(log: &Path, trace: bool) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(if trace { ".trace.json" } else { ".html" });
    PathBuf::from(name)
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        // A file that does not exist yet can't be the log.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_names_stand_beside_the_log() {
        let log = Path::new("/logs/run.jsonl");
        assert_eq!(beside(log, false), Path::new("/logs/run.jsonl.html"));
        assert_eq!(beside(log, true), Path::new("/logs/run.jsonl.trace.json"));
    }
}
