//! `--log` and `--resume`: a file with a line of JSON for each attempt.
//!
//! A line is written with one system call, when the attempt has ended. So a run that is killed loses at most
//! its last line, or leaves a torn one. A resumed run reads how often each input has succeeded, and skips
//! the input as often; its place among the inputs does not matter. A run that did not resume repeats earlier
//! work, so among such runs the largest number counts. A resumed run's successes are added.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::Trouble;
use super::log_line::{Input, Line, MACHINES, Machines, unreadable};
use super::outcome::{self, Outcome};
use super::resume::{self, Succeeded};
use super::suspects::Range;

/// How long to wait for another run to release the log: a run that was just killed takes a moment.
const IN_USE: Duration = Duration::from_secs(1);

/// A log that this run writes.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    run: String,
    resumed: bool,
    template: String,
}

/// Reads which inputs have succeeded. A log that does not exist yet names none.
pub(super) fn read(path: &Path, template: &str) -> Result<Succeeded, Trouble> {
    match File::open(path) {
        Ok(file) => resume::read(&file, path, template, true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Succeeded::default()),
        Err(error) => Err(unreadable(path, &error)),
    }
}

impl Log {
    /// Opens a log to append to, and returns what it tells a run that resumes. If a killed run has left a torn line, this
    /// ends that line first. No other run may write to the log meanwhile: two runs at the same time would not skip each
    /// other's successes.
    pub(super) fn open(
        path: &Path,
        template: &str,
        resumed: bool,
    ) -> Result<(Self, Succeeded), Trouble> {
        let refused = |error: io::Error| {
            Trouble::Usage(format!(
                "the log {} can't be written: {error}",
                path.display()
            ))
        };
        // A pipe is opened for writing only: opened for reading, too, it would always have a reader.
        let is_file = path.metadata().map_or(true, |found| found.is_file());
        let mut options = OpenOptions::new();
        options.read(is_file).append(true).create(is_file);
        let mut file = options.open(path).map_err(refused)?;
        if is_file && !lock(&file) {
            return Err(Trouble::Usage(in_use(&file, path)));
        }
        let succeeded = match is_file {
            true => resume::read(&file, path, template, resumed)?,
            false => Succeeded::default(),
        };
        let mut last = [b'\n'];
        if is_file && file.seek(SeekFrom::End(-1)).is_ok() {
            file.read_exact(&mut last).map_err(refused)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n").map_err(refused)?;
        }
        let began = since_1970();
        let log = Log {
            file,
            run: format!("{}-{began:.3}", std::process::id()),
            resumed,
            template: template.to_owned(),
        };
        Ok((log, succeeded))
    }

    /// Writes an attempt's line.
    pub(super) fn write(&mut self, outcome: &Outcome) -> Result<(), Trouble> {
        let (input, input_b64) = outcome::text_or_base64(&outcome.input);
        let seconds = outcome.elapsed.as_secs_f64();
        let line = Line {
            v: 1,
            run: self.run.clone(),
            resumed: self.resumed,
            template: self.template.clone(),
            seq: outcome.seq,
            input: Input { input, input_b64 },
            attempt: outcome.attempts,
            again: outcome.again,
            status: outcome.status.word().to_owned(),
            exit: outcome.exit,
            signal: outcome.signal,
            start: since_1970() - seconds,
            ms: outcome::millis(outcome.elapsed),
            machine: outcome.machine.as_deref().map(str::to_owned),
            worker: outcome.slot,
            pid: outcome.pid,
            error: outcome.error.clone(),
            stderr: outcome.last_words(),
            suspects: Vec::new(),
            machines: None,
        };
        self.append(&line).map_err(|error| {
            Trouble::Pool(format!("the log can't be written any further: {error}"))
        })
    }

    /// Revokes the successes of some inputs, so that a resumed run runs them again.
    pub(super) fn suspect(&mut self, ranges: &[Range]) -> io::Result<()> {
        let first = ranges.first().map_or(0, |(first, _)| *first);
        let mut line = self.remark("suspect");
        line.seq = first;
        line.error = Some("these answers may be those of other inputs".to_owned());
        line.suspects = ranges.to_vec();
        self.append(&line)
    }

    /// Notes what there is to know of the run's machines.
    pub(super) fn machines(&mut self, machines: Machines) -> io::Result<()> {
        let mut line = self.remark(MACHINES);
        line.machines = Some(machines);
        self.append(&line)
    }

    /// A line that is about no attempt.
    fn remark(&self, status: &str) -> Line {
        Line {
            v: 1,
            run: self.run.clone(),
            resumed: self.resumed,
            template: self.template.clone(),
            seq: 0,
            input: Input {
                input: None,
                input_b64: None,
            },
            attempt: 0,
            again: false,
            status: status.to_owned(),
            exit: None,
            signal: None,
            start: since_1970(),
            ms: 0.0,
            machine: None,
            worker: None,
            pid: None,
            error: None,
            stderr: None,
            suspects: Vec::new(),
            machines: None,
        }
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        self.file.write_all(&text)
    }
}

/// Locks a file until it is closed, so that only this run writes to it. Returns `false` if another run has the lock.
fn lock(file: &File) -> bool {
    let began = Instant::now();
    while rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)
        == Err(Errno::WOULDBLOCK)
    {
        if began.elapsed() > IN_USE {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    // On a file system without locks, another run can't be found.
    true
}

/// The message about a log that somebody else has locked. That may be anybody who can read it.
fn in_use(file: &File, path: &Path) -> String {
    let path = path.display();
    let Some((pid, name)) = holder(file) else {
        return format!(
            "another run is writing the log {path}: wait for its end, or name another file"
        );
    };
    match name.starts_with("coordinator") {
        true => format!(
            "another run (process {pid}) is writing the log {path}: wait for its end, or name another file"
        ),
        false => format!(
            "process {pid} (`{name}`) has locked the log {path}, so another run may be writing it: end that process, or \
             name another file"
        ),
    }
}

/// The id and name of the process that holds a file's lock: see proc_locks(5). `None` if the system does not tell.
fn holder(file: &File) -> Option<(u32, String)> {
    let stat = rustix::fs::fstat(file).ok()?;
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let place = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let mut held = locks.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, pid, of, ..] if of == place => pid.parse::<u32>().ok(),
            _ => None,
        }
    });
    let pid = held.next()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, name.trim_end().to_owned()))
}

fn since_1970() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    fn line(run: &str, resumed: bool, input: &str, status: &str) -> String {
        format!(
            r#"{{"v":1,"run":"{run}","resumed":{resumed},"template":"t","seq":1,"input":"{input}","attempt":1,"again":false,"status":"{status}","exit":null,"signal":null,"start":1.5,"ms":1.0,"worker":1,"pid":2,"error":null}}"#
        )
    }

    fn skipped(lines: &[String], inputs: &[&str]) -> Vec<bool> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, lines.join("\n")).unwrap();
        let mut succeeded = read(file.path(), "t").unwrap();
        inputs
            .iter()
            .map(|input| succeeded.skips(input.as_bytes()))
            .collect()
    }

    #[test]
    fn an_input_is_skipped_as_often_as_it_succeeded() {
        let first = [line("1", false, "a", "ok"), line("1", false, "a", "failed")];
        assert_eq!(skipped(&first, &["b", "a", "a"]), [false, true, false]);
        // The same log once more, read from the start.
        let twice = [first.concat(), line("2", false, "a", "ok")];
        let twice = [&first[..], &twice[1..]].concat();
        assert_eq!(skipped(&twice, &["a", "a"]), [true, false]);
        let resumed = [&first[..], &[line("2", true, "a", "ok")]].concat();
        assert_eq!(skipped(&resumed, &["a", "a", "a"]), [true, true, false]);
    }

    #[test]
    fn a_torn_line_is_left_out_and_ended() {
        let lines = [
            line("1", false, "a", "ok"),
            r#"{"v":1,"run":"1","te"#.to_owned(),
        ];
        assert_eq!(skipped(&lines, &["a"]), [true]);
        let file = tempfile::NamedTempFile::new().unwrap();
        for torn in ["{\"v", "{\"v\":1,\"ru", "{\"v\":1,\"run\":\"7"] {
            std::fs::write(&file, torn).unwrap();
            Log::open(file.path(), "t", false).unwrap();
            Log::open(file.path(), "t", true).unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            assert_eq!(text, format!("{torn}\n"));
        }
    }

    #[test]
    fn what_is_no_log_is_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let why = |opened: Result<_, _>| match opened {
            Err(Trouble::Usage(why)) => why,
            _ => panic!("it was opened"),
        };
        let log = Log::open(file.path(), "t", false).unwrap();
        assert!(why(Log::open(file.path(), "t", false)).contains("another run"));
        drop(log);
        for foreign in [
            "an input\nanother\n",
            "{\n  \"name\": 1\n}\n",
            "{\"v\":2}\n",
        ] {
            std::fs::write(&file, foreign).unwrap();
            for resumed in [false, true] {
                assert!(why(Log::open(file.path(), "t", resumed)).contains("else than a log"));
            }
            assert_eq!(std::fs::read_to_string(&file).unwrap(), foreign);
        }
    }

    #[test]
    fn another_template_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, line("1", false, "a", "ok")).unwrap();
        assert!(matches!(read(file.path(), "u"), Err(Trouble::Usage(why)) if why.contains("`u`")));
        assert!(!read(&file.path().join("none"), "u").is_ok_and(|mut none| none.skips(b"a")));
    }
}
