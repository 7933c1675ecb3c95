//! Coordinator and agents, played against each other in a network that does its worst: see `world`.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod broker;
mod network;
mod world;

use std::time::Duration;

use protocol::agent::{
    About, Beat, Carried, Down, Ending, Heard, Join, Lease, Report, Up, Values, What,
};
use protocol::message::{Encoding, Runs};

use super::Broken;
use super::fleet::{self, Fleet};
use super::member::{Deed, Member, Told};
use crate::scheduler::{AgentId, LeaseId};
use world::World;

/// How many plays there are.
fn plays() -> u64 {
    std::env::var("PLAYS").map_or(1500, |plays| plays.parse().unwrap())
}

#[test]
fn each_call_has_one_outcome_and_runs_in_one_place_at_a_time() {
    let first = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    for seed in first..first + plays() {
        if let Err(why) = World::play(seed, None) {
            panic!("seed {seed}: {why}");
        }
    }
}

/// The plays are worth something: each of the rules that keep a call from running twice is missed when it is left out.
#[test]
fn a_rule_that_is_left_out_is_found() {
    let rules = [
        Broken::EarlyEpoch,
        Broken::Forgetful,
        Broken::AnyEpoch,
        Broken::NoGrace,
        Broken::NoMargin,
        Broken::CountsFromAnswer,
        Broken::Silent,
        Broken::NoLock,
        Broken::NoFuse,
        Broken::AnyPause,
        Broken::OldAnswer,
    ];
    for rule in rules {
        let found = (1..=8 * plays()).find(|seed| World::play(*seed, Some(rule)).is_err());
        println!("{rule:?}: found by seed {found:?}");
        assert!(found.is_some(), "{rule:?} was not missed");
    }
}

fn answered(member: &mut Member, deed: &Deed, now: Duration) -> Vec<Deed> {
    answered_for(member, deed, Duration::from_secs(3600), now)
}

/// The same by a coordinator that may be out of sight for so long.
fn answered_for(member: &mut Member, deed: &Deed, patience: Duration, now: Duration) -> Vec<Deed> {
    let (clock, turns) = match deed {
        Deed::Send(Up::Join(join)) => (join.clock, 0),
        Deed::Send(Up::Beat(beat)) => (beat.clock, beat.turns),
        other => panic!("{other:?}"),
    };
    let heard = Heard {
        home: 0,
        epoch: 1,
        clock: Some(clock),
        serial: 0,
        low: 0,
        patience: patience.as_nanos() as u64,
        is_paused: false,
        turns,
    };
    member.hear(Down::Heard(heard), now)
}

/// The broker says at once that nobody takes a beat: the coordinator is gone, and the agent does not wait for its lease.
#[test]
fn an_agent_whose_coordinator_is_gone_ends_soon() {
    let second = Duration::from_secs;
    let mut member = Member::new(About::default(), 1, second(3600), second(1), second(0));
    let deeds = member.tick(second(0), Vec::new());
    answered(&mut member, &deeds[0], second(0));
    assert!(member.is_working());
    for now in 1..=5 {
        let deeds = member.tick(second(now), Vec::new());
        assert!(matches!(deeds[..], [Deed::Send(Up::Beat(_))]), "{deeds:?}");
        member.nobody_answers(second(now));
    }
    assert_eq!(member.next_tick(), second(6));
    assert_eq!(member.tick(second(6), Vec::new()), [Deed::EndAll]);
    assert!(!member.is_working());
    // When all are dead it begins anew, and says so.
    let deeds = member.all_dead(second(7));
    let [Deed::Send(Up::Join(join))] = &deeds[..] else {
        panic!("{deeds:?}");
    };
    assert_eq!(join.epoch, 2);
}

#[test]
fn an_answer_ends_the_worry() {
    let second = Duration::from_secs;
    let mut member = Member::new(About::default(), 1, second(3600), second(1), second(0));
    let deeds = member.tick(second(0), Vec::new());
    answered(&mut member, &deeds[0], second(0));
    member.nobody_answers(second(1));
    let deeds = member.tick(second(2), Vec::new());
    answered(&mut member, &deeds[0], second(2));
    assert!(matches!(
        member.tick(second(6), Vec::new())[..],
        [Deed::Send(Up::Beat(_))]
    ));
}

/// A coordinator that was stopped finds the beats of all that time, and answers the oldest first.
#[test]
fn a_pause_that_was_longer_than_a_lease_costs_nothing() {
    let second = Duration::from_secs;
    let mut member = Member::new(About::default(), 1, second(15), second(1), second(0));
    let join = member.tick(second(0), Vec::new());
    answered_for(&mut member, &join[0], second(15), second(0));
    member.pause(second(3600), 1);
    let beats: Vec<Deed> = (1..=100)
        .map(|at| member.tick(second(at), Vec::new()).remove(0))
        .collect();
    member.resume(2);
    for beat in &beats {
        let deeds = answered_for(&mut member, beat, second(15), second(100));
        assert!(deeds.is_empty(), "{deeds:?}");
        assert!(member.fuse().is_some_and(|fuse| fuse > second(100)));
    }
    // From the first beat of its own on, it may be out of sight for a lease.
    let beat = member.tick(second(101), Vec::new()).remove(0);
    answered_for(&mut member, &beat, second(15), second(102));
    assert_eq!(member.fuse(), Some(second(101 + 15)));
}

/// What a coordinator said of a pause comes when it is over.
#[test]
fn a_pause_that_is_over_is_not_heeded() {
    let second = Duration::from_secs;
    for broken in [None, Some(Broken::AnyPause)] {
        let mut member = Member::new(About::default(), 1, second(15), second(1), second(0));
        member.broken = broken;
        let join = member.tick(second(0), Vec::new());
        answered_for(&mut member, &join[0], second(15), second(0));
        assert_eq!(member.resume(2), None);
        let is_heeded = member.pause(second(3600), 1).is_some();
        assert_eq!(is_heeded, broken.is_some());
        assert_eq!(member.fuse() == Some(second(15)), broken.is_none());
    }
}

/// A coordinator has heard of the reports up to one, when it answers a beat.
fn heard(clock: Option<Duration>, serial: u64) -> Down {
    Down::Heard(Heard {
        home: 0,
        epoch: 1,
        clock: clock.map(|clock| clock.as_nanos() as u64),
        serial,
        low: 0,
        patience: Duration::from_secs(3600).as_nanos() as u64,
        is_paused: false,
        turns: 0,
    })
}

/// Reports are sent again when a beat has overtaken them, and not all at once.
#[test]
fn what_was_not_heard_is_sent_again_bit_by_bit() {
    let second = Duration::from_secs;
    let mut member = Member::new(About::default(), 1, second(3600), second(1), second(0));
    member.tick(second(0), Vec::new());
    member.hear(heard(Some(second(0)), 0), second(0));
    let lens: Runs = std::iter::repeat_n(1, 40).collect();
    let mut lease = lease(0, lens);
    lease.epoch = 1;
    member.hear(Down::Lease(lease), second(0));
    for _ in 0..40 {
        let told = Told {
            bytes: 100 << 10,
            ..Told::default()
        };
        let what = What::Returned(Vec::new());
        assert!(member.ended(0, 1, what, told).is_some());
    }
    let serials = |deeds: Vec<Deed>| -> Vec<u64> {
        let serial = |deed| match deed {
            Deed::Send(Up::Report(report)) => Some(report.serial),
            _ => None,
        };
        deeds.into_iter().filter_map(serial).collect()
    };
    // As long as nothing is answered, it may all be on its way.
    for at in 1..10 {
        assert!(serials(member.tick(second(at), Vec::new())).is_empty());
    }
    assert!(serials(member.hear(heard(None, 20), second(10))).is_empty());
    // A beat has overtaken what was sent before it.
    let again = serials(member.hear(heard(Some(second(1)), 20), second(10)));
    assert_eq!(again, [21, 22]);
    assert!(serials(member.hear(heard(None, 21), second(10))).is_empty());
    assert_eq!(serials(member.hear(heard(None, 22), second(10))), [23, 24]);
    // One that waits for something there does not keep the others waiting.
    let again = serials(member.hear(heard(Some(second(9)), 22), second(10)));
    assert_eq!(again, [25, 26]);
}

/// A lease of some calls, from the first on.
fn lease(number: u64, lens: Runs) -> Lease {
    Lease {
        epoch: 0,
        number,
        task: "square".to_owned(),
        types: None,
        encoding: Encoding::Postcard,
        first: 0,
        attempt: 1,
        timeout: None,
        grace: 0,
        memory: None,
        inputs: Carried::Here,
        shared: Vec::new(),
        files: Vec::new(),
        lens,
    }
}

/// What an agent says of a lease that another holds, or nobody, is nothing.
#[test]
fn an_agent_speaks_for_its_own_leases_only() {
    let now = Duration::from_secs(1);
    let mut fleet = Fleet::new(Duration::from_secs(5));
    for name in ["honest", "liar"] {
        let join = Join {
            epoch: 1,
            clock: 0,
            about: About::default(),
        };
        fleet.hear(name, Up::Join(join), now);
    }
    let mut lens = Runs::default();
    lens.push(1);
    let lease = lease(3, lens.clone());
    let sent = fleet.leased(AgentId(0), lease, now);
    assert!(matches!(sent, Some(fleet::Deed::Send { to, .. }) if to == "honest"));
    let report = |serial, lease| {
        let what = What::Values(vec![Values {
            first: 0,
            lens: lens.clone(),
            nanos: lens.clone(),
            slot: 1,
            worker: 1,
        }]);
        Up::Report(Report {
            epoch: 1,
            serial,
            lease,
            what,
            payload: Carried::Here,
            files: Vec::new(),
        })
    };
    let is_answer_only = |deeds: &[fleet::Deed]| {
        matches!(
            deeds,
            [fleet::Deed::Send {
                what: Down::Heard(_),
                ..
            }]
        )
    };
    assert!(is_answer_only(&fleet.hear("liar", report(1, 3), now)));
    assert!(is_answer_only(&fleet.hear(
        "liar",
        report(u64::MAX, 4),
        now
    )));
    let unknown = fleet.hear("stranger", report(1, 3), now);
    assert!(matches!(
        &unknown[..],
        [fleet::Deed::Send {
            what: Down::Unknown { epoch: 1 },
            ..
        }]
    ));
    // The one who holds it is heard once.
    let deeds = fleet.hear("honest", report(1, 3), now);
    assert!(
        matches!(deeds[..], [fleet::Deed::Values { .. }, _]),
        "{deeds:?}"
    );
    assert!(is_answer_only(&fleet.hear("honest", report(1, 3), now)));
}

/// A machine where all fails, while others do well, gets one call at a time.
#[test]
fn an_agent_whose_calls_all_fail_gets_few() {
    let now = Duration::from_secs(1);
    let mut fleet = Fleet::new(Duration::from_secs(5));
    for name in ["good", "bad"] {
        let join = Join {
            epoch: 1,
            clock: 0,
            about: About {
                slots: 2,
                ..About::default()
            },
        };
        fleet.hear(name, Up::Join(join), now);
    }
    let mut report = |agent: u64, number: u64, ending: Ending| {
        let name = ["good", "bad"][agent as usize];
        let mut lens = Runs::default();
        lens.push(1);
        fleet.leased(AgentId(agent), lease(number, lens), now);
        let what = What::Ended {
            index: 0,
            ending,
            nanos: 0,
            slot: 1,
            worker: 1,
            stdout: 0,
            stderr: 0,
            note: None,
        };
        let report = Report {
            epoch: 1,
            serial: number,
            lease: number,
            what,
            payload: Carried::Here,
            files: Vec::new(),
        };
        fleet.hear(name, Up::Report(report), now);
        match fleet.closed(AgentId(agent), LeaseId(number), now) {
            Some(fleet::Deed::Wants { most, .. }) => most,
            other => panic!("{other:?}"),
        }
    };
    let no = || Ending::Failed("no space left".to_owned());
    for number in 1..=6 {
        assert!(report(1, number, no()) > 1, "nobody has done better");
    }
    report(0, 1, Ending::Value);
    assert_eq!(report(1, 7, no()), 1);
    // One success, and it is trusted again.
    assert!(report(1, 8, Ending::Value) > 1);
}

/// Numbers that no honest agent says.
#[test]
fn an_agent_is_not_believed_what_nobody_can_have_told_it() {
    let second = Duration::from_secs;
    let mut fleet = Fleet::new(second(5));
    let join = Join {
        epoch: 1,
        clock: 0,
        about: About::default(),
    };
    fleet.hear("a", Up::Join(join), second(1));
    let mut lens = Runs::default();
    lens.push(1);
    fleet.leased(AgentId(0), lease(3, lens), second(1));
    let report = |serial| Report {
        epoch: 1,
        serial,
        lease: 3,
        what: What::Returned(Vec::new()),
        payload: Carried::Here,
        files: Vec::new(),
    };
    assert!(fleet.expects("a", &report(1)) && fleet.expects("a", &report(1000)));
    assert!(!fleet.expects("a", &report(1 << 20)) && !fleet.expects("a", &report(u64::MAX)));
    let beat = Beat {
        epoch: 1,
        clock: 1,
        leases: Vec::new(),
        running: Vec::new(),
        takes_none: false,
        patience: u64::MAX,
        turns: 0,
    };
    fleet.hear("a", Up::Beat(beat), second(2));
    assert_eq!(fleet.next_tick(), Some(second(8)));
    let lost = fleet.tick(second(8));
    assert!(matches!(lost[..], [fleet::Deed::Lost { .. }]), "{lost:?}");
    // It gets nothing that it could keep.
    assert_eq!(
        fleet.leased(AgentId(0), lease(4, Runs::default()), second(9)),
        None
    );
}
