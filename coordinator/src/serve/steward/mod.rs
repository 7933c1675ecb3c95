//! The thread of an agent's process.
//!
//! It hears the broker and its own threads, and has to do with one run at a time. `runs` is how it comes to one, and leaves it.

mod runs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use protocol::agent::{self, All, Bulk, Down, Open, Want};

use super::event::Event;
use super::identity::{Identity, Leave};
use super::life::Life;
use super::machine::Lends;
use super::preparing::{self, Preparing};
use super::programs;
use super::serving::Serving;
use crate::agents::broker::{self, Broker, Event as Heard};
use crate::agents::bulk::{Fetched, Fetching, Progress};
use crate::agents::member::UNANSWERED;
use crate::agents::rights::Refusals;
use crate::agents::subjects;
use crate::error::PoolError;
use crate::os::{Fuse, boot_time};

/// How often an agent looks around while it has calls, and while it has none.
const LOOK: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_millis(500);
/// How long an agent stays with a run that has nothing for it, when another is hungry.
const STAYS: Duration = Duration::from_secs(5);
/// After how long an agent says that the broker does not answer.
const SILENCE: Duration = Duration::from_secs(5);
/// How long the agent of one run waits for that run to want it.
const ALONE: Duration = Duration::from_secs(600);
/// How long what was said last may take on its way.
const FLUSH: Duration = Duration::from_millis(500);
/// How many runs that can't be served are remembered.
const MOST_REFUSED: usize = 1024;
/// How many characters of what a run is about are shown to others.
const MOST_SHOWN: usize = 1000;

enum Doing {
    Nothing,
    Preparing(Box<Preparing>),
    Serving(Box<Serving>),
}

pub(super) struct Steward {
    lends: Lends,
    is_for_one_run: bool,
    name: String,
    slots: usize,
    life: Life,
    /// The life that begins with the next run.
    epoch: u64,
    own: (PathBuf, Bulk),
    fuse: Fuse,
    broker: Broker,
    events: Receiver<Event>,
    to: Sender<Event>,
    doing: Doing,
    fetching: Fetching,
    /// Runs that can't be served here, and why.
    refused: BTreeMap<String, String>,
    /// What the broker does not allow.
    refusals: Refusals,
    /// Whether the rights of this agent were tried.
    has_tried: bool,
    /// When to say that the broker has never answered.
    says_silence: Option<Instant>,
    url: String,
    /// Since when nobody has taken what this agent asked.
    unheard_since: Option<Instant>,
    leave: Option<Leave>,
    /// Since when its coordinator has not said a word to it that it needs.
    alone_since: Option<Instant>,
    /// The pipe to the broker has ended, or nobody is at its other end.
    is_cut: bool,
    /// The run for which this agent was started is over.
    is_over: bool,
    failure: Option<PoolError>,
}

impl Steward {
    pub(super) fn new(
        identity: Identity,
        lends: Lends,
        to: Sender<Event>,
        events: Receiver<Event>,
    ) -> Result<Self, PoolError> {
        let Identity {
            name,
            slots,
            life,
            access,
            is_for_one_run,
        } = identity;
        let system = |what: &str, error: std::io::Error| {
            PoolError::System(format!("the agent can't be: {what}: {error}"))
        };
        let own = programs::own().map_err(|error| system("its program", error))?;
        let fuse = Fuse::new().map_err(|error| system("a timer", error))?;
        let subjects = vec![
            subjects::call(),
            subjects::agents(),
            subjects::all("*"),
            subjects::down("*", &name),
        ];
        let hears = to.clone();
        let url = access.url.clone();
        let broker = Broker::connect(access, subjects, move |event| {
            // An agent that has left hears nothing.
            let _ = hears.send(Event::Broker(event));
        });
        Ok(Steward {
            lends,
            is_for_one_run,
            name,
            slots,
            epoch: life.epoch,
            life,
            own,
            fuse,
            broker: broker.map_err(|error| system("its connection", error))?,
            events,
            to,
            doing: Doing::Nothing,
            fetching: Fetching::default(),
            refused: BTreeMap::new(),
            refusals: Refusals::default(),
            has_tried: false,
            says_silence: Some(Instant::now() + SILENCE),
            url,
            unheard_since: None,
            leave: None,
            alone_since: None,
            is_cut: false,
            is_over: false,
            failure: None,
        })
    }

    pub(super) fn run(mut self, told: &Receiver<Leave>) -> Result<(), PoolError> {
        loop {
            match self.events.recv_timeout(self.nap()) {
                Ok(event) => self.happens(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // What has come together is heard together: the clock is looked at once.
            for _ in 0..1000 {
                match self.events.try_recv() {
                    Ok(event) => self.happens(event),
                    Err(_) => break,
                }
            }
            if let Ok(leave) = told.try_recv() {
                self.leaves(leave);
            }
            self.look_around();
            self.set_fuse();
            if let Some(failure) = self.failure.take() {
                self.stop_serving();
                return Err(failure);
            }
            if self.is_cut || self.is_over {
                self.stop_serving();
                break;
            }
            if self.leave.is_some() && self.has_left() {
                break;
            }
        }
        if self.is_cut {
            self.broker.let_go();
            let why = "the connection to the coordinator has ended";
            return Err(PoolError::System(why.to_owned()));
        }
        self.broker.flush(FLUSH);
        Ok(())
    }

    fn nap(&self) -> Duration {
        match &self.doing {
            Doing::Serving(serving) => {
                let next = serving.member.next_tick().saturating_sub(boot_time());
                let look = if serving.has_calls() { LOOK } else { IDLE };
                next.min(look)
            }
            Doing::Nothing | Doing::Preparing(_) => IDLE,
        }
    }

    fn set_fuse(&mut self) {
        let at = match &self.doing {
            Doing::Serving(serving) if serving.has_calls() => serving.member.fuse(),
            _ => None,
        };
        if let Err(error) = self.fuse.set(at) {
            log::error!("the timer that would end this agent in time can't be set: {error}");
        }
    }

    fn happens(&mut self, event: Event) {
        let now = boot_time();
        match event {
            Event::Broker(heard) => self.hear(heard),
            Event::News(news) => {
                if let Doing::Serving(serving) = &mut self.doing {
                    let letters = serving.news(news);
                    self.send_all(letters);
                }
            }
            Event::Over { epoch, lease } => {
                if let Doing::Serving(serving) = &mut self.doing {
                    let letters = serving.over(epoch, lease, now);
                    self.send_all(letters);
                }
            }
            Event::LaidOut { epoch, lease, done } => {
                if let Doing::Serving(serving) = &mut self.doing {
                    let answer = serving.laid_out(epoch, lease, done, now);
                    self.answer(answer);
                }
            }
            Event::Built { building, built } => self.built(&building, built),
            Event::Cut => self.is_cut = true,
        }
    }

    fn look_around(&mut self) {
        let now = boot_time();
        let takes_none = self.leave.is_some() || !self.lends.is_free();
        if let Doing::Serving(serving) = &mut self.doing {
            serving.member.takes_none(takes_none);
            let answer = serving.tick(now);
            self.answer(answer);
        }
        self.ask_due();
        self.look_whether_wanted();
        self.look_whether_alone();
        self.look_at_refusals();
        if self.says_silence.is_some_and(|at| Instant::now() >= at) {
            self.says_silence = None;
            log::warn!("{}; waiting for it", broker::silence(&self.url));
        }
    }

    /// Says what the broker does not allow. An agent that can't serve any run has no reason to wait for one.
    fn look_at_refusals(&mut self) {
        let Some(told) = self.refusals.take() else {
            return;
        };
        let why = format!(
            "the broker does not give the agent {} the rights it needs: {}",
            self.name, told.what
        );
        let why = match told.is_needed {
            true => format!("{why}; it needs agent.key or its own, or a key with the same rights"),
            false => why,
        };
        match self.doing {
            Doing::Nothing if told.is_needed => self.failure = Some(PoolError::System(why)),
            _ => log::warn!("{why}"),
        }
    }

    /// Tries what this agent will have to publish, so that a missing right is told of before it is needed. There is no such
    /// run, so nobody hears that.
    fn try_rights(&mut self) {
        if !self.has_tried {
            let subject = subjects::up("none", &self.name);
            self.has_tried = self.broker.publish(&subject, Vec::new());
        }
    }

    /// Leaves a run whose coordinator is gone, or whose pool can't work.
    fn look_whether_wanted(&mut self) {
        let is_unheard = self
            .unheard_since
            .is_some_and(|since| since.elapsed() >= UNANSWERED);
        let serving = match &self.doing {
            Doing::Nothing => return,
            Doing::Preparing(preparing) => {
                if is_unheard || preparing.is_forgotten() {
                    log::info!("the run {} is gone", preparing.open.about);
                    self.stop_serving();
                }
                return;
            }
            Doing::Serving(serving) => serving,
        };
        if let (Some(failure), false) = (serving.pool.failure(), serving.has_calls()) {
            let why = preparing::why(&failure);
            self.cannot(&serving.open.run.clone(), why);
            return;
        }
        if is_unheard && !serving.member.is_working() && !serving.has_calls() {
            log::info!("the run {} is gone", serving.open.about);
            self.stop_serving();
        }
    }

    /// The agent of one run ends when its coordinator is out of sight: nobody else needs it, and what carries the bytes may never
    /// notice that the machine at its other end has vanished. If that comes back, it starts another agent.
    fn look_whether_alone(&mut self) {
        let most = match &self.doing {
            Doing::Nothing => Some(ALONE),
            Doing::Serving(serving) if !serving.member.is_working() && !serving.has_calls() => {
                Some(Duration::from_nanos(serving.open.lease))
            }
            Doing::Preparing(_) | Doing::Serving(_) => None,
        };
        let Some(most) = most.filter(|_| self.is_for_one_run) else {
            self.alone_since = None;
            return;
        };
        let since = *self.alone_since.get_or_insert_with(Instant::now);
        self.is_cut |= since.elapsed() >= most;
    }

    // ---- The broker ------------------------------------------------------------------------

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Connected => {
                log::info!("{} waits for runs", self.name);
                self.says_silence = None;
                self.try_rights();
            }
            Heard::Disconnected => log::info!("the broker is away: waiting for it"),
            Heard::Refused(refusal) => self.refusals.add(refusal),
            Heard::Ended(why) => self.failure = Some(PoolError::System(why)),
            Heard::NobodyTakes => {
                self.unheard_since.get_or_insert_with(Instant::now);
                if let Doing::Serving(serving) = &mut self.doing {
                    serving.member.nobody_answers(boot_time());
                }
            }
            Heard::Message {
                subject,
                payload,
                reply,
            } => self.message(&subject, &payload, reply),
        }
    }

    fn message(&mut self, subject: &str, payload: &[u8], reply: Option<String>) {
        if subject == subjects::call() {
            if let Ok((open, input)) = agent::decode::<Open>(payload) {
                self.opened(open, input);
            }
        } else if subject == subjects::agents() {
            if let Some(reply) = reply.filter(|reply| subjects::is_inbox(reply)) {
                self.show(&reply);
            }
        } else if subjects::run_of(subject) == self.current_run() {
            match subjects::last(subject) {
                "all" => match agent::decode::<All>(payload) {
                    Ok((All::End, _)) => self.ended(),
                    Ok((all, _)) => {
                        if let Doing::Serving(serving) = &mut self.doing {
                            let answer = serving.hear_all(all, boot_time());
                            self.answer(answer);
                        }
                    }
                    Err(error) => log::debug!("a message can't be read: {error:?}"),
                },
                _ => match agent::decode::<Down>(payload) {
                    Ok((down, payload)) => self.hear_down(down, payload),
                    Err(error) => log::debug!("a message can't be read: {error:?}"),
                },
            }
        }
    }

    /// The run that this agent has to do with.
    fn current_run(&self) -> Option<&str> {
        match &self.doing {
            Doing::Nothing => None,
            Doing::Preparing(preparing) => Some(&preparing.open.run),
            Doing::Serving(serving) => Some(&serving.open.run),
        }
    }

    fn hear_down(&mut self, down: Down, payload: &[u8]) {
        self.unheard_since = None;
        let now = boot_time();
        if let Down::Piece(want) = down {
            return self.piece(want, payload, now);
        }
        if let Down::Gone { bulk, why } = down {
            if self.fetching.gone("", &bulk) {
                self.gone(bulk, why);
            }
            return;
        }
        if let Doing::Serving(serving) = &mut self.doing {
            let answer = serving.hear(down, payload, now);
            self.answer(answer);
        }
    }

    fn piece(&mut self, want: Want, bytes: &[u8], now: Duration) {
        if let Doing::Preparing(preparing) = &mut self.doing {
            preparing.heard();
        }
        match self.fetching.arrived("", want, bytes, now) {
            Progress::More => {}
            Progress::Whole(fetched) => self.whole(want.bulk, Ok(fetched)),
            Progress::Failed(why) => self.whole(want.bulk, Err(why)),
            Progress::Gone(why) => self.gone(want.bulk, why),
        }
        self.ask_due();
    }

    /// The coordinator does not have something that it has named. That is no fault of this machine.
    fn gone(&mut self, bulk: Bulk, why: String) {
        let Doing::Serving(serving) = &mut self.doing else {
            return self.whole(bulk, Err(why));
        };
        let answer = serving.gone(bulk, &why);
        self.fetching.retain("", |bulk| serving.waits_for(bulk));
        self.answer(answer);
    }

    /// Something large has come, or will not.
    fn whole(&mut self, bulk: Bulk, fetched: Result<Fetched, String>) {
        match &mut self.doing {
            Doing::Nothing => {}
            Doing::Serving(serving) => {
                let answer = serving.arrived(bulk, fetched);
                self.answer(answer);
            }
            Doing::Preparing(preparing) => {
                let run = preparing.open.run.clone();
                match fetched.and_then(|fetched| preparing.arrived(bulk, fetched)) {
                    Ok(()) => self.go_on_preparing(),
                    Err(why) => self.cannot(&run, why),
                }
            }
        }
    }
}
