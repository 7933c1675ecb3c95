//! The run whose work this one takes up: if it was killed, machines may still run calls of it for some time, and this one must not run
//! the same calls beside them.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::machine_args::MachineArgs;
use super::resume::Left;
use super::signals::Interruption;
use super::{Trouble, complain};

/// How often to look whether the user has lost patience.
const LOOK: Duration = Duration::from_millis(50);

/// Ends what machines still run of a run that was killed, as far as they can be told so, and waits for the lease of the others.
/// Returns `false` if that was interrupted.
pub(super) fn end(
    machines: &MachineArgs,
    left: Left,
    grace: Duration,
    interruption: &Interruption,
) -> Result<bool, Trouble> {
    // A log of an older program does not say it.
    let lease = left.lease.unwrap_or_else(|| machines.lease(grace));
    if !machines.are_wanted() {
        return Ok(wait(&left, lease, interruption));
    }
    complain(&"the last run of this log was killed: ending what machines may still run of it");
    let known = machines.clone();
    let asked = aside(interruption, move || ask(&known, left, lease));
    let Some(silent) = asked? else {
        return Ok(false);
    };
    let silent = silent?;
    if !silent.is_empty() {
        let names: Vec<_> = silent.into_iter().collect();
        let names = names.join(", ");
        complain(&format!(
            "{names} did not answer, and by now the lease is over"
        ));
    }
    Ok(true)
}

/// There is nobody to ask: by the end of the lease all calls have ended.
fn wait(left: &Left, lease: Duration, interruption: &Interruption) -> bool {
    let most = lease.saturating_add(lease / 5);
    let names: Vec<_> = left.machines.iter().map(String::as_str).collect();
    let on = match names[..] {
        [] => "other machines".to_owned(),
        _ => names.join(", "),
    };
    complain(&format!(
        "the last run of this log was killed, and {on} may still run calls of it: waiting {} until its lease is over (with the \
         --nats of that run it may be sooner)",
        in_words(most)
    ));
    let until = Instant::now() + most;
    while Instant::now() < until {
        if interruption.code().is_some() {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}

fn in_words(time: Duration) -> String {
    match time.as_secs_f64().ceil() {
        seconds @ 0.0..120.0 => format!("{seconds} s"),
        seconds => format!("{} min", (seconds / 60.0).ceil()),
    }
}

/// Does something on a thread of its own, unless the run is interrupted meanwhile: then it goes on until the program ends.
fn aside<T: Send + 'static>(
    interruption: &Interruption,
    what: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, Trouble> {
    let (done, is_done) = channel();
    let body = move || {
        // Nobody hears it after an interruption.
        let _ = done.send(what());
    };
    thread::Builder::new()
        .name("former run".to_owned())
        .spawn(body)
        .map_err(|error| Trouble::Pool(format!("a thread could not be started: {error}")))?;
    while interruption.code().is_none() {
        match is_done.recv_timeout(LOOK) {
            Ok(done) => return Ok(Some(done)),
            Err(RecvTimeoutError::Timeout) => {}
            // A panic of that thread was printed.
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(None)
}

/// Asks machines to end it. Returns those that have not answered until the lease was over.
#[cfg(feature = "agents")]
fn ask(machines: &MachineArgs, left: Left, lease: Duration) -> Result<BTreeSet<String>, Trouble> {
    let former = coordinator::FormerRun {
        run: left.run,
        agents: left.machines,
    };
    match super::machines::agents(machines)? {
        Some(agents) => Ok(agents.end_run(&former, Some(lease))?),
        None => Ok(BTreeSet::new()),
    }
}

/// The same in a build that can't. It says so when it is to use machines.
#[cfg(not(feature = "agents"))]
fn ask(_: &MachineArgs, _: Left, _: Duration) -> Result<BTreeSet<String>, Trouble> {
    Err(Trouble::Usage(super::machines::WITHOUT.to_owned()))
}
