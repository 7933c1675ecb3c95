//! A library is a guest: whatever the host has done to its process, calls end rightly or say what is in the way.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may fail, and says what it skips"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tests::when_written;

fn host() -> &'static str {
    env!("CARGO_BIN_EXE_host")
}

/// Runs it; all has to be well.
fn is_well(command: &mut Command) -> String {
    let output = when_written(|| command.output());
    let (stdout, stderr) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(stdout).unwrap();
    assert!(
        stdout.ends_with("all is well\n"),
        "{command:?}: {stdout}{stderr}"
    );
    stdout
}

fn is_well_as(what: &str) -> String {
    is_well(Command::new(host()).arg(what))
}

/// Whether this is allowed here, and there is such a command.
fn can(command: &mut Command) -> bool {
    let can = command.output().is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("skipped: {command:?} does not work here");
    }
    can
}

/// Where everybody may run it.
fn public() -> (TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everybody).unwrap();
    let program = directory.path().join("host");
    std::fs::copy(host(), &program).unwrap();
    (directory, program)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn deaths_are_known_or_unknown_also_where_others_wait_for_children() {
    is_well_as("ignores-deaths");
    is_well_as("waits-for-all");
}

#[test]
fn workers_and_commands_begin_with_default_signals() {
    // Rust's own programs ignore broken pipes. Nobody can change what becomes of the two signals that C keeps for itself.
    let pipe = 1_u64 << (libc::SIGPIPE - 1);
    let of_c = 0b11 << 31;
    let of_worker = is_well_as("blocks-signals");
    let of_command = Command::new(host())
        .args(["blocks-and-runs", tests::coordinator().to_str().unwrap()])
        .args([
            "exec",
            "--",
            "grep",
            "-E",
            "Sig(Blk|Ign)",
            ":::",
            "/proc/self/status",
        ])
        .output()
        .unwrap();
    let of_command = String::from_utf8(of_command.stdout).unwrap();
    for (said, ignored) in [(&of_worker, pipe), (&of_command, 0)] {
        let mask = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap() & !of_c
        };
        assert_eq!((mask("SigBlk:"), mask("SigIgn:")), (0, ignored), "{said}");
    }
}

#[test]
fn a_pool_works_where_others_may_not_look_into_its_process() {
    is_well_as("undumpable");
    if is_root() {
        let (_directory, program) = public();
        is_well(
            Command::new(program)
                .arg("another-user")
                .env("TMPDIR", "/tmp")
                .current_dir("/"),
        );
    }
}

#[test]
fn a_pool_works_where_proc_is_another_or_none() {
    if can(Command::new("unshare").args(["-pf", "true"])) {
        is_well(Command::new("unshare").args(["-pf", host(), "plain"]));
    }
    let hidden = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
    let without = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", hidden, program, "plain"]);
        command
    };
    if can(&mut without("true")) {
        is_well(&mut without(host()));
    }
}

#[test]
fn a_program_that_the_loader_was_told_to_start_is_its_own_worker() {
    let loader = "/lib64/ld-linux-x86-64.so.2";
    if Path::new(loader).exists() {
        is_well(Command::new(loader).args([host(), "plain"]));
    }
}

#[test]
fn a_worker_that_may_not_be_signalled_dies_all_the_same() {
    if is_root() {
        let (_directory, program) = public();
        let mut command = Command::new(program);
        is_well(
            command
                .arg("another-user-later")
                .env("TMPDIR", "/tmp")
                .current_dir("/"),
        );
    }
}

#[test]
fn the_first_process_of_a_container_leaves_no_zombies() {
    let first = ["-pf", "--mount-proc"];
    if can(Command::new("unshare").args(first).arg("true")) {
        is_well(
            Command::new("unshare")
                .args(first)
                .args([host(), "first-process"]),
        );
    }
}

#[test]
fn workers_begin_where_the_pool_was_built() {
    is_well_as("moves");
}

#[test]
fn workers_hold_none_of_the_hosts_files() {
    is_well_as("leaks");
}

#[test]
fn nothing_takes_the_place_of_a_closed_stream() {
    is_well_as("closed-streams");
}

#[test]
fn workers_leave_in_peace_however_often_a_signal_comes() {
    let directory = TempDir::new().unwrap();
    is_well(
        Command::new(host())
            .arg("alarms")
            .env("TMPDIR", directory.path()),
    );
}

#[test]
fn a_panic_is_no_timeout_however_long_its_stack_takes() {
    is_well(
        Command::new(host())
            .arg("panics")
            .env("RUST_BACKTRACE", "1"),
    );
}

#[test]
fn a_host_that_may_write_no_files_is_told_so() {
    is_well_as("no-files");
}

#[test]
fn under_valgrind_all_is_as_ever() {
    let valgrind = || {
        let mut command = Command::new("valgrind");
        command.args(["-q", "--error-exitcode=99"]);
        command
    };
    if !can(valgrind().arg("true")) {
        return;
    }
    // The host alone, and with it its workers.
    for children in ["no", "yes"] {
        let mut command = valgrind();
        command.arg(format!("--trace-children={children}"));
        is_well(command.args([host(), "plain"]));
    }
}
