//! The runs of a steward: how it comes to one, serves it, and leaves it; and what it sends.

use std::sync::Arc;
use std::time::Duration;

use protocol::agent::{self, About, Bulk, Open, Presence, Up};

use super::{Doing, MOST_REFUSED, MOST_SHOWN, STAYS, Steward};
use crate::agents::bulk::{Fetching, Target};
use crate::agents::member::Member;
use crate::agents::subjects;
use crate::error::PoolError;
use crate::os::boot_time;
use crate::pool::Pool;
use crate::serve::building::Building;
use crate::serve::identity::Leave;
use crate::serve::machine::load;
use crate::serve::preparing::{self, Preparing};
use crate::serve::serving::{Answer, Letter, Serving};

impl Steward {
    /// A run wants machines.
    pub(super) fn opened(&mut self, open: Open, input: &[u8]) {
        self.alone_since = None;
        if let Some(why) = self.refused.get(&open.run) {
            // Its coordinator may not have heard that yet.
            let why = why.clone();
            return self.send_to(&open.run, &Up::Cannot { why }, &[]);
        }
        let can_change = match &mut self.doing {
            Doing::Nothing => true,
            Doing::Preparing(preparing) => {
                if preparing.open.run == open.run {
                    preparing.is_wanted_again();
                    // What nobody has taken may have been a word to the run before.
                    self.unheard_since = None;
                }
                false
            }
            Doing::Serving(serving) => {
                let is_idle = !serving.has_calls() && serving.member.is_done();
                let is_other = serving.open.run != open.run;
                is_other && open.is_hungry && is_idle && serving.idle_since.elapsed() >= STAYS
            }
        };
        if !can_change || self.leave.is_some() || !self.lends.is_free() {
            return;
        }
        self.stop_serving();
        log::info!("serving the run {}", open.about);
        let run = open.run.clone();
        match Preparing::new(open, input.to_vec(), &self.own, self.life.home) {
            Ok(preparing) => {
                self.doing = Doing::Preparing(Box::new(preparing));
                self.go_on_preparing();
            }
            Err(why) => self.cannot_serve(&run, why),
        }
    }

    pub(super) fn go_on_preparing(&mut self) {
        let Doing::Preparing(preparing) = &mut self.doing else {
            return;
        };
        let missing: Vec<Bulk> = preparing.missing().collect();
        if !missing.is_empty() {
            return self.fetch(
                missing
                    .into_iter()
                    .map(|bulk| (bulk, Target::Anywhere))
                    .collect(),
            );
        }
        if !preparing.is_building() {
            let run = preparing.open.run.clone();
            if let Err(why) = preparing.build(self.slots, self.life.mark(), self.to.clone()) {
                self.cannot(&run, why);
            }
        }
    }

    pub(super) fn fetch(&mut self, bulks: Vec<(Bulk, Target)>) {
        for (bulk, place) in bulks {
            // All comes from the coordinator.
            self.fetching.begin(bulk, "", place);
        }
        self.ask_due();
    }

    /// Asks for what is to be asked for now.
    pub(super) fn ask_due(&mut self) {
        for (_, want) in self.fetching.due(boot_time()) {
            self.send(&Up::Want(want), &[]);
        }
    }

    pub(super) fn built(&mut self, building: &Building, built: Result<Arc<Pool>, PoolError>) {
        let Doing::Preparing(preparing) = &self.doing else {
            return;
        };
        // Those of a run that was given up meanwhile are ended, and the run may have come again.
        if !preparing.has_begun(building) {
            return;
        }
        let tasks = built.and_then(|pool| Ok((pool.tasks()?, pool)));
        let (tasks, pool) = match tasks {
            Ok(built) => built,
            Err(error) => return self.cannot_go_on(preparing::why(&error)),
        };
        let Doing::Preparing(preparing) = &mut self.doing else {
            return;
        };
        let about = About {
            slots: u32::try_from(self.slots).unwrap_or(u32::MAX),
            home: self.life.home,
            tasks: tasks.to_vec(),
        };
        let open = preparing.open.clone();
        let (lease, grace) = (
            Duration::from_nanos(open.lease),
            Duration::from_nanos(open.grace),
        );
        let member = Member::new(about, self.epoch, lease, grace, boot_time());
        self.unheard_since = None;
        let files = preparing.files.take();
        let serving = Serving::new(open, pool, member, files, self.to.clone());
        self.doing = Doing::Serving(Box::new(serving));
        self.look_around();
    }

    /// This agent can't serve the run that it has to do with.
    pub(super) fn cannot(&mut self, run: &str, why: String) {
        self.cannot_serve(run, why);
        self.stop_serving();
    }

    /// The same, whichever run it is.
    fn cannot_go_on(&mut self, why: String) {
        if let Some(run) = self.current_run().map(str::to_owned) {
            self.cannot(&run, why);
        }
    }

    pub(super) fn cannot_serve(&mut self, run: &str, why: String) {
        match self.is_for_one_run {
            // Its coordinator says so where it is read.
            true => log::info!("a run can't be served: {why}"),
            false => log::warn!("a run can't be served: {why}"),
        }
        if self.refused.len() >= MOST_REFUSED {
            self.refused.pop_first();
        }
        self.refused.insert(run.to_owned(), why.clone());
        self.send_to(run, &Up::Cannot { why }, &[]);
    }

    /// The run is over.
    pub(super) fn ended(&mut self) {
        log::info!("the run is over");
        self.stop_serving();
        self.is_over = self.is_for_one_run;
    }

    /// Ends what runs of a run, and forgets it. What is told of it afterwards is of nobody.
    pub(super) fn stop_serving(&mut self) {
        if let Doing::Serving(serving) = &mut self.doing {
            let leave = serving.member.leave();
            self.epoch = serving.member.epoch() + 1;
            serving.end_laying_out();
            // Returns when all is dead. The kernel's timer stays set meanwhile.
            serving.pool.terminate();
            self.send(&leave, &[]);
        }
        if let Doing::Preparing(preparing) = &mut self.doing {
            preparing.end();
        }
        self.doing = Doing::Nothing;
        self.fetching = Fetching::default();
        self.unheard_since = None;
    }

    // ---- Leaving ---------------------------------------------------------------------------

    pub(super) fn leaves(&mut self, leave: Leave) {
        self.leave = Some(leave);
        if let Doing::Serving(serving) = &mut self.doing {
            let letters = serving.leaves(leave == Leave::Now, boot_time());
            self.send_all(letters);
        }
    }

    /// Whether nothing is left to do or to say.
    pub(super) fn has_left(&mut self) -> bool {
        match &self.doing {
            Doing::Nothing => true,
            Doing::Preparing(_) => {
                self.stop_serving();
                true
            }
            Doing::Serving(serving) => {
                let is_gone = !serving.member.is_working() && !serving.has_calls();
                let is_done = serving.member.is_done() && !serving.has_calls();
                if is_done || is_gone {
                    self.stop_serving();
                    return true;
                }
                false
            }
        }
    }

    // ---- Sending ---------------------------------------------------------------------------

    pub(super) fn answer(&mut self, answer: Answer) {
        self.send_all(answer.letters);
        self.fetch(answer.fetch);
        if let Some(why) = answer.cannot {
            self.cannot_go_on(why);
        }
        if let Some(why) = answer.refused {
            self.failure = Some(PoolError::System(why));
        }
    }

    pub(super) fn send_all(&self, letters: Vec<Letter>) {
        for letter in letters {
            self.send(&letter.up, &letter.payload);
        }
    }

    pub(super) fn send(&self, up: &Up, payload: &[u8]) {
        if let Some(run) = self.current_run() {
            self.send_to(run, up, payload);
        }
    }

    pub(super) fn send_to(&self, run: &str, up: &Up, payload: &[u8]) {
        let subject = subjects::up(run, &self.name);
        match agent::encode(up, payload) {
            // If it is lost, it is sent again.
            Ok(bytes) => _ = self.broker.ask(&subject, bytes),
            Err(error) => log::error!("a message can't be sent: {error}"),
        }
    }

    /// Says what this agent is doing to whoever asks.
    pub(super) fn show(&self, reply: &str) {
        let (busy, run) = match &self.doing {
            Doing::Serving(serving) => {
                let seconds = serving.since.elapsed().as_secs();
                let run = (short(&serving.open.about), seconds);
                (serving.pool.stats().running, Some(run))
            }
            Doing::Preparing(preparing) => (0, Some((short(&preparing.open.about), 0))),
            Doing::Nothing => (0, None),
        };
        let presence = Presence {
            name: self.name.clone(),
            slots: u32::try_from(self.slots).unwrap_or(u32::MAX),
            busy: u32::try_from(busy).unwrap_or(u32::MAX),
            run,
            serves: self.current_run().map(str::to_owned),
            load: load(),
            version: format!("{} {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH),
        };
        if let Ok(bytes) = agent::encode(&presence, &[]) {
            self.broker.publish(reply, bytes);
        }
    }
}

/// What a run is about, as far as it is shown to others.
fn short(about: &str) -> String {
    about.chars().take(MOST_SHOWN).collect()
}
