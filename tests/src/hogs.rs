//! Tasks that take much, for tests of limits.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use worker::task;

/// Takes this much memory, a little at a time, and uses it; returns how much it took.
#[task]
pub fn take_memory(bytes: usize) -> usize {
    let mut taken = Vec::new();
    while taken.len() * (1 << 20) < bytes {
        taken.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
    taken.len() << 20
}

/// Takes this much memory in one piece.
#[task]
pub fn take_memory_at_once(bytes: usize) -> usize {
    std::hint::black_box(vec![1_u8; bytes]).len()
}

/// Has a child take this much memory.
#[task]
pub fn child_takes_memory(bytes: usize) -> Result<(), String> {
    // `tail` keeps all of what has no newline.
    let status = Command::new("sh")
        .args([
            "-c",
            &format!("head -c {bytes} /dev/zero | tail -n1 | wc -c >/dev/null"),
        ])
        .status();
    status.map_err(|error| error.to_string())?;
    Ok(())
}

/// Keeps this much memory for as long as the worker lives.
#[task]
pub fn leak(bytes: usize) -> u32 {
    std::mem::forget(std::hint::black_box(vec![1_u8; bytes]));
    std::process::id()
}

/// Spins for this long, by the clock.
#[task]
pub fn spin_ms(ms: u64) {
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(ms) {
        std::hint::spin_loop();
    }
}

/// Says that it runs by making a file, and waits for another.
#[task]
pub fn wait_for(runs: PathBuf, go_on: PathBuf) -> Result<u32, std::io::Error> {
    std::fs::write(runs, std::process::id().to_string())?;
    while !go_on.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(std::process::id())
}

/// Ignores SIGTERM, but leaves when it is told that it is being stopped; notes that in a file.
#[task]
pub fn leave_when_told(note: PathBuf) -> Result<(), std::io::Error> {
    // SAFETY: ignoring a signal runs no code.
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
    while !worker::current().is_some_and(|call| call.cancelled) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::write(note, "told")
}

/// Goes on until it is told to stop, and says then that it has tidied up. Its worker must not heed SIGTERM.
#[task]
pub fn tidy_when_stopped() -> String {
    while !worker::current().is_some_and(|call| call.cancelled) {
        std::thread::sleep(Duration::from_millis(1));
    }
    #[expect(clippy::print_stdout, reason = "it is what is to be found")]
    {
        println!("tidied");
    }
    "tidied".to_owned()
}
