//! `coordinator map`: a task on each input.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, BufWriter, Stdout, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use coordinator::{ByHand, Captured, Order, Output, Pool, Report, Why};

use super::args::Map;
use super::inputs::Inputs;
use super::signals::Interruption;
use super::{Exit, Trouble, builder, cannot_write, complain};

/// How much of an input a message shows.
const SHOWN: usize = 60;

/// The inputs of calls that have not been reported, to name them in messages.
type Names = Arc<Mutex<HashMap<u64, Vec<u8>>>>;

pub(super) fn run(map: &Map, words: Option<Vec<OsString>>) -> Result<Exit, Trouble> {
    let inputs = Inputs::new(map, words)?;
    let interruption = Interruption::handle()?;
    let pool = Arc::new(pool(map)?);
    interruption.attach(&pool);
    let ran = drive(&pool, &interruption, map, inputs);
    // A signal's handler may still hold the pool, so that dropping it here would not end it.
    pool.terminate();
    ran
}

fn drive(
    pool: &Pool,
    interruption: &Interruption,
    map: &Map,
    inputs: Inputs,
) -> Result<Exit, Trouble> {
    let tasks = match (pool.tasks(), interruption.code()) {
        (Err(_), Some(code)) => return Ok(Exit::Interrupted(code)),
        (tasks, _) => tasks?,
    };
    if !tasks.iter().any(|task| task.name == map.task) {
        let names: Vec<_> = tasks.iter().map(|task| task.name.as_str()).collect();
        return Err(Trouble::Usage(format!(
            "there is no task `{}`; there is {}",
            map.task,
            names.join(", ")
        )));
    }
    let order = if map.unordered {
        Order::Completion
    } else {
        Order::Input
    };
    let (sender, mut reports) = pool.with().order(order).open_text(&map.task);
    let names = Names::default();
    if let Some(sender) = sender {
        let names = Arc::clone(&names);
        // Reading may block for as long as it likes: results must not wait for it.
        let feed = move || {
            for (input, index) in inputs.zip(0..) {
                lock(&names).insert(index, input.clone());
                if sender.send(input).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new()
            .name("inputs".to_owned())
            .spawn(feed)
            .map_err(|error| Trouble::Pool(format!("a thread could not be started: {error}")))?;
    }
    let mut printer = Printer {
        stdout: BufWriter::new(io::stdout()),
        failed: 0,
        total: 0,
    };
    loop {
        if !reports.is_ready() {
            match printer.stdout.flush() {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::AllOk),
                flushed => flushed.map_err(|error| cannot_write(&error))?,
            }
        }
        let Some(report) = reports.next() else { break };
        let input = lock(&names).remove(&report.index).unwrap_or_default();
        if interruption.code().is_some() && is_cancelled(&report) {
            continue; // one line says it for all
        }
        match printer.print(&report, &input) {
            // Whoever reads the results has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::AllOk),
            printed => printed.map_err(|error| cannot_write(&error))?,
        }
    }
    printer.stdout.flush().or_else(quietly)?;
    if let Some(code) = interruption.code() {
        complain(&printer.so_far());
        return Ok(Exit::Interrupted(code));
    }
    pool.close();
    pool.join()?;
    Ok(printer.summary())
}

fn is_cancelled<O>(report: &Report<O>) -> bool {
    let error = report.result.as_ref().err();
    error.is_some_and(|error| *error.why() == Why::Cancelled)
}

fn quietly(error: io::Error) -> Result<(), Trouble> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(cannot_write(&error)),
    }
}

fn lock(names: &Names) -> std::sync::MutexGuard<'_, HashMap<u64, Vec<u8>>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pool(map: &Map) -> Result<Pool, Trouble> {
    let mut builder = builder(map.worker.as_deref()).output(Output::Capture);
    builder = map.limits.apply(builder);
    if let Some(jobs) = map.jobs {
        builder = builder.workers(jobs.get());
    }
    if map.manual {
        complain(&"start each of these workers by hand, in another terminal or under a debugger:");
        builder = builder.by_hand(|worker| {
            // One write, so that the lines of two slots don't mix.
            let _ = io::stderr().write_all(format!("{}\n", line(worker)).as_bytes());
        });
    }
    // Whoever interrupts it must not have to wait for a worker.
    Ok(builder.build_now()?)
}

/// The line that starts a worker by hand, as a shell takes it.
fn line(worker: &ByHand) -> String {
    let quoted = |path: &Path| {
        let bytes = path.as_os_str().as_bytes();
        let quoted = shlex::bytes::try_quote(bytes).unwrap_or(bytes.into());
        String::from_utf8_lossy(&quoted).into_owned()
    };
    format!(
        "COORDINATOR_TOKEN={} {} --connect {}",
        worker.token,
        quoted(&worker.program),
        quoted(&worker.connect)
    )
}

/// Prints what comes back: results and what tasks print to stdout, all else to stderr.
struct Printer {
    stdout: BufWriter<Stdout>,
    failed: u64,
    total: u64,
}

impl Printer {
    fn print(&mut self, report: &Report<Vec<u8>>, input: &[u8]) -> io::Result<()> {
        self.total += 1;
        whole_lines(&report.stdout, &mut self.stdout)?;
        if !report.stderr.is_empty() {
            // What it says on both streams is shown in this order on a terminal.
            self.stdout.flush()?;
            whole_lines(&report.stderr, &mut io::stderr().lock())?;
        }
        match &report.result {
            Ok(value) => match worker::text::show(value) {
                Some(shown) => writeln!(self.stdout, "{shown}"),
                None => Ok(()),
            },
            Err(error) => {
                self.failed += 1;
                self.stdout.flush()?;
                complain(&format!("input {}: {error}", shown(input)));
                Ok(())
            }
        }
    }

    /// What was done before the run was interrupted.
    fn so_far(&self) -> String {
        let calls = match self.total {
            1 => "1 call was".to_owned(),
            total => format!("{total} calls were"),
        };
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(" ({failed} without success)"),
        };
        format!("{calls} done{failed}; the others were not")
    }

    fn summary(&self) -> Exit {
        if self.failed == 0 {
            return Exit::AllOk;
        }
        complain(&format!(
            "{} of {} calls did not succeed",
            self.failed, self.total
        ));
        Exit::SomeFailed
    }
}

/// Copies what a call has printed, and ends its last line if it did not.
fn whole_lines(captured: &Captured, to: &mut impl Write) -> io::Result<()> {
    let mut last = LastByte { to, last: b'\n' };
    captured.copy_to(&mut last)?;
    if last.last != b'\n' {
        last.to.write_all(b"\n")?;
    }
    Ok(())
}

/// Remembers the last byte that went through it.
struct LastByte<'w, W> {
    to: &'w mut W,
    last: u8,
}

impl<W: Write> Write for LastByte<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.last = bytes[..written].last().copied().unwrap_or(self.last);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// An input as a message shows it: quoted, and not too long.
fn shown(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
