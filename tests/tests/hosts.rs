//! A library is a guest: whatever the host has done to its process, calls end rightly or say what is in the way.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may fail, and says what it skips"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::{eventually, script, when_written};

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
fn where_addresses_are_scarce_pools_take_few_or_say_that_they_need_more() {
    let limited = |kib: u32, program: &Path, words: &[&str]| {
        let mut command = Command::new("sh");
        let script = format!("ulimit -v {kib}; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(program).args(words);
        command
    };
    // Large payloads, too, though there is little room for them.
    is_well(&mut limited(100_000, Path::new(host()), &["plain"]));
    let map = |workers: &str| {
        // As many as there could be workers for.
        let words = ["map", workers, "square", ":::"];
        let words = [&words[..], &["7"; 300]].concat();
        let output = limited(60_000, tests::coordinator(), &words).output();
        output.unwrap()
    };
    let few = map("-j10");
    assert_eq!(few.stdout, b"49\n".repeat(300), "{few:?}");
    let many = map("-j200");
    let said = String::from_utf8_lossy(&many.stderr);
    assert!(said.contains("(ulimit -v)"), "{said}");
    assert_eq!(many.status.code(), Some(2), "{said}");
}

#[test]
fn a_program_that_is_stopped_while_a_worker_introduces_itself_has_its_pool() {
    let directory = TempDir::new().unwrap();
    let (begun, may_go_on) = (directory.path().join("begun"), directory.path().join("go"));
    let text = format!(
        ": > {}; until [ -e {} ]; do sleep 0.01; done; exec {} \"$@\"",
        begun.display(),
        may_go_on.display(),
        host()
    );
    let worker = script(directory.path(), &text);
    let mut command = Command::new(host());
    command.arg("worker").arg(&worker).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    eventually("the worker begins", || begun.exists());
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    std::fs::write(may_go_on, "").unwrap();
    // Longer than each side lets the other be silent.
    std::thread::sleep(Duration::from_millis(6500));
    kill_process(pid, Signal::CONT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"all is well\n");
}

#[test]
fn a_worker_tells_another_users_coordinator_nothing() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    if !is_root() {
        return;
    }
    let (_directory, program) = public();
    let place = TempDir::new().unwrap();
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(place.path(), open).unwrap();
    let name = place.path().join("worker.sock");
    let listen = || {
        let mut command = Command::new(&program);
        command.arg("listens").arg(&name).uid(NOBODY);
        let mut child = when_written(|| command.stdout(Stdio::piped()).spawn());
        let stdout = child.stdout.as_mut().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(stdout, &mut ready).unwrap();
        child
    };
    let work = || {
        let mut command = Command::new(tests::worker());
        command.arg("--connect").arg(&name);
        let output = command.env("COORDINATOR_TOKEN", "secret").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    // It sees whose the place is, and does not even knock.
    let mut listener = listen();
    let said = work();
    assert!(said.contains("belongs to user 65534"), "{said}");
    // And who listens, where that does not show.
    std::os::unix::fs::chown(&name, Some(0), None).unwrap();
    let said = work();
    assert!(said.contains("user 65534 listens there"), "{said}");
    let mut heard = String::new();
    std::io::Read::read_to_string(listener.stdout.as_mut().unwrap(), &mut heard).unwrap();
    assert_eq!(heard, "0 bytes; all is well\n");
    assert!(listener.wait().unwrap().success());
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
