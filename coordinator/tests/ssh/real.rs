//! With a real sshd.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{MARK, Place, has, script, wait_for, waiting_calls};

/// A real sshd on the loopback interface, for this user alone.
struct Sshd {
    place: Place,
    child: Child,
}

impl Sshd {
    fn start() -> Option<Self> {
        let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let Some(sshd) = sshd else {
            assert!(std::env::var_os("CI").is_none(), "CI has no sshd");
            println!("skipped: there is no sshd here");
            return None;
        };
        if !(has("ssh", "-V") && has("ssh-keygen", "-?")) {
            return None;
        }
        let mut place = Place::new()?;
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(place.path(key))
                .status();
            assert!(made.unwrap().success());
        }
        let port = free_port();
        let directory = place.directory.path().display().to_string();
        fs::write(
            place.path("sshd_config"),
            format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nPidFile none\n\
                 AuthorizedKeysFile {directory}/user.pub\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n\
                 PasswordAuthentication no\nSetEnv XDG_CACHE_HOME={directory}/cache {MARK}={directory}\n"
            ),
        )
        .unwrap();
        fs::write(
            place.path("config"),
            format!(
                "Host box*\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {directory}/user\n  IdentitiesOnly yes\n  \
                 UserKnownHostsFile {directory}/known_hosts\n  StrictHostKeyChecking no\n"
            ),
        )
        .unwrap();
        place.ssh = place.path("real");
        script(
            &place.ssh,
            &format!("#!/bin/sh\nexec ssh -F {directory}/config \"$@\"\n"),
        );
        let child = Command::new(sshd)
            .args(["-D", "-e", "-f"])
            .arg(place.path("sshd_config"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sshd = Sshd { place, child };
        wait_for("sshd listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(sshd)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn calls_run_over_a_real_ssh_and_nothing_is_left() {
    let Some(sshd) = Sshd::start() else { return };
    let place = &sshd.place;
    let run = || {
        place.run(&[
            "exec",
            "--on",
            "box2:2",
            "-j0",
            "-c",
            "echo $1 $SSH_CONNECTION",
            ":::",
            "a",
            "b",
            "c",
        ])
    };
    for _ in 0..2 {
        let ran = run();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert_eq!(lines.len(), 3);
        for (line, input) in lines.iter().zip(["a", "b", "c"]) {
            assert!(line.starts_with(&format!("{input} 127.0.0.1 ")), "{ran:?}");
        }
        place.is_clean();
    }
    let mut child = waiting_calls(place, "box2:2");
    child.kill().unwrap();
    child.wait().unwrap();
    place.is_clean();
    let locks = place.path("cache/coordinator/agents");
    wait_for("the lock is gone", || {
        fs::read_dir(&locks).is_ok_and(|mut locks| locks.next().is_none())
    });
}

#[test]
fn a_real_ssh_says_why_it_can_not_connect() {
    let Some(sshd) = Sshd::start() else { return };
    let port = free_port();
    let config = sshd.place.path("config");
    let text = fs::read_to_string(&config).unwrap();
    let there = format!("Host box9\n  Port {port}\n{text}");
    fs::write(config, there).unwrap();
    let words = ["exec", "--on", "box9", "-j0", "-c", "echo $1", ":::", "a"];
    let ran = sshd.place.run(&words);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    ran.says("Connection refused");
    sshd.place.is_clean();
}
