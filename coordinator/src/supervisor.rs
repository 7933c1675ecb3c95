//! The supervisor: sees workers die, and lets deadlines take effect. It sleeps until one of both.

use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::os::{self, WorkerProcess};
use crate::shared::{Shared, State};

/// Runs until all slots have ended.
pub(crate) fn run(shared: &Shared, mut wake: PipeReader) {
    loop {
        let (watched, deadline) = {
            let state = shared.state();
            if state.slots_left == 0 {
                return;
            }
            (alive(&state), state.jobs.next_deadline())
        };
        let limit = deadline.map(|deadline| deadline.saturating_sub(shared.now()));
        let mut fds = vec![wake.as_fd()];
        fds.extend(watched.iter().map(|(_, process)| process.as_fd()));
        let readable = os::wait_readable(&fds, limit);
        for ((slot, process), _) in watched
            .iter()
            .zip(&readable[1..])
            .filter(|(_, died)| **died)
        {
            bury(shared, *slot, process);
        }
        if readable[0] {
            // One read takes what has gathered; a pipe that fails is looked at again anyway.
            let _ = wake.read(&mut [0; 256]);
        }
        // A hair later than the deadline, so that it has passed when we look.
        let now = shared.now() + Duration::from_micros(50);
        shared.act(|state| state.jobs.overdue(now));
    }
}

fn alive(state: &State) -> Vec<(usize, Arc<WorkerProcess>)> {
    let posts = state
        .posts
        .iter()
        .enumerate()
        .filter(|(_, post)| !post.dead);
    posts
        .filter_map(|(slot, post)| Some((slot, Arc::clone(post.process.as_ref()?))))
        .collect()
}

/// A worker has died: its children die, too, and its slot hears of it, whatever it waits for.
fn bury(shared: &Shared, slot: usize, process: &Arc<WorkerProcess>) {
    process.reap();
    let mut state = shared.state();
    let post = &mut state.posts[slot];
    // By now the slot may have a new one.
    if post
        .process
        .as_ref()
        .is_some_and(|current| Arc::ptr_eq(current, process))
    {
        post.dead = true;
        // A grandchild that keeps the socket open must not keep the slot waiting.
        if let Some(socket) = &post.socket {
            socket.stop_reading();
        }
    }
    drop(state);
    shared.milestone();
}
