//! The names of signals, as both sides' messages use them.

use rustix::process::Signal;

/// The name of a signal, as in `SIGKILL`. `None` for a number without a well-known name.
///
/// ```
/// assert_eq!(protocol::signal_name(9), Some("SIGKILL"));
/// assert_eq!(protocol::signal_name(64), None);
/// ```
#[must_use]
pub fn signal_name(number: i32) -> Option<&'static str> {
    const NAMES: [(Signal, &str); 26] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::SYS, "SIGSYS"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::VTALARM, "SIGVTALRM"),
        (Signal::PROF, "SIGPROF"),
        (Signal::IO, "SIGIO"),
        (Signal::POWER, "SIGPWR"),
        (Signal::STKFLT, "SIGSTKFLT"),
        (Signal::STOP, "SIGSTOP"),
        (Signal::TSTP, "SIGTSTP"),
        (Signal::CONT, "SIGCONT"),
    ];
    NAMES
        .iter()
        .find(|(named, _)| named.as_raw() == number)
        .map(|(_, name)| *name)
}
