//! Agents and their leases, by hand.

use super::super::leases::Recall;
use super::*;
use crate::error::Death;

/// A pool without workers of its own, and two agents.
fn two_agents(spec: MapSpec<u32>, calls: u32) -> (Jobs, MapId) {
    let mut jobs = jobs(0);
    let map = jobs
        .open(MapSpec {
            window: Window {
                calls: 1000,
                ..spec.window
            },
            ..spec
        })
        .unwrap();
    jobs.join(AgentId(1), 4);
    jobs.join(AgentId(2), 4);
    jobs.push(
        map,
        Numbers {
            first: 0,
            count: calls,
        },
    );
    (jobs, map)
}

#[test]
fn what_an_agent_holds_that_leaves_waits_again() {
    let (mut jobs, _) = two_agents(spec(), 20);
    let (lease, batch, _) = jobs.lease(AgentId(1), 4, 1 << 20, millis(1)).unwrap();
    assert_eq!(jobs.calls_of(lease), Some(0..u64::from(batch.count)));
    assert_eq!(jobs.recalled_from(lease), None);
    jobs.recall_of(None, 2, false);
    assert_eq!(jobs.recalled_from(lease), Some(2));
    jobs.has_left(AgentId(1));
    assert_eq!((jobs.calls_of(lease), jobs.held_by(AgentId(1))), (None, 0));
    assert!(jobs.lease(AgentId(1), 4, 1 << 20, millis(2)).is_none());
}

#[test]
fn an_agent_gets_half_of_its_share() {
    let (mut jobs, _) = two_agents(spec(), 80);
    assert!(jobs.take_effects().agents.offer);
    let (_, batch, _) = jobs.lease(AgentId(1), 100, 1 << 20, millis(1)).unwrap();
    // Half of 40, and then of what the others leave.
    assert_eq!((batch.first, batch.count), (0, 20));
    let (_, batch, _) = jobs.lease(AgentId(2), 100, 1 << 20, millis(1)).unwrap();
    assert_eq!((batch.first, batch.count), (20, 15));
    // The inputs have 10 bytes each.
    let (_, batch, _) = jobs.lease(AgentId(2), 100, 35, millis(1)).unwrap();
    assert!((1..=3).contains(&batch.count), "{}", batch.count);
    assert!(jobs.lease(AgentId(3), 100, 1 << 20, millis(1)).is_none());
}

#[test]
fn where_failures_end_a_map_agents_hold_no_more_than_they_run() {
    let most = MapSpec {
        failures: Failures::Most {
            calls: 1,
            now: false,
        },
        ..spec()
    };
    let workers = Workers::default();
    let (mut jobs, map) = two_agents(most, 80);
    let (one, batch, _) = jobs.lease(AgentId(1), 100, 1 << 20, millis(1)).unwrap();
    assert_eq!(batch.count, 4);
    assert!(jobs.lease(AgentId(1), 100, 1 << 20, millis(1)).is_none());
    let (two, ..) = jobs.lease(AgentId(2), 100, 1 << 20, millis(1)).unwrap();
    let why = Why::Failed("no".to_owned());
    assert!(jobs.leased_ended(one, 2, Err(why), (0, 0), millis(2), &workers));
    // Those that run are finished, and those that have not begun come back.
    let recalls = jobs.take_effects().agents.recalls;
    let of = |recall: &Recall| (recall.agent, recall.lease, recall.kill);
    let recalled: Vec<_> = recalls.iter().map(of).collect();
    assert_eq!(
        recalled,
        [(AgentId(1), one, false), (AgentId(2), two, false)]
    );
    assert_eq!(jobs.returned(two, 4..8), 4);
    assert!(jobs.is_sealed(map));
    assert!(jobs.lease(AgentId(2), 100, 1 << 20, millis(3)).is_none());
}

#[test]
fn an_idle_agent_gets_back_what_another_has_not_begun() {
    let (mut jobs, _) = two_agents(spec(), 40);
    let (_, batch, _) = jobs.lease(AgentId(1), 100, 1 << 20, millis(1)).unwrap();
    assert_eq!(batch.count, 10);
    let (two, batch, _) = jobs.lease(AgentId(1), 100, 1 << 20, millis(1)).unwrap();
    assert_eq!((batch.first, batch.count), (10, 8));
    while jobs.lease(AgentId(1), 100, 1 << 20, millis(1)).is_some() {}
    // A lease that is young will soon be through by itself.
    assert!(jobs.lease(AgentId(2), 100, 1 << 20, millis(2)).is_none());
    assert!(jobs.take_effects().agents.recalls.is_empty());
    assert!(jobs.lease(AgentId(2), 100, 1 << 20, millis(200)).is_none());
    let recalls = jobs.take_effects().agents.recalls;
    // Of the first four run and six wait, of the second all eight; half of these are wanted.
    let expected = Recall {
        agent: AgentId(1),
        lease: two,
        from: 14,
        kill: false,
    };
    assert_eq!(recalls, [expected]);
    // It is asked once.
    assert!(jobs.lease(AgentId(2), 100, 1 << 20, millis(201)).is_none());
    assert!(!jobs.take_effects().agents.recalls.contains(&expected));
    assert_eq!(jobs.returned(two, 14..18), 4);
    assert!(jobs.take_effects().agents.offer);
    let (_, batch, _) = jobs.lease(AgentId(2), 100, 1 << 20, millis(202)).unwrap();
    assert_eq!(batch.first, 14);
}

/// A second lease that is not larger than the agent waits as well as a large one.
#[test]
fn an_idle_agent_gets_the_few_calls_of_a_second_lease() {
    let (mut jobs, _) = two_agents(spec(), 5);
    while jobs.lease(AgentId(1), 4, 1 << 20, millis(1)).is_some() {}
    jobs.take_effects();
    assert!(jobs.lease(AgentId(2), 4, 1 << 20, millis(200)).is_none());
    let recalls = jobs.take_effects().agents.recalls;
    assert!(
        matches!(
            recalls[..],
            [Recall {
                from: 4,
                kill: false,
                ..
            }]
        ),
        "{recalls:?}"
    );
}

#[test]
fn few_calls_are_left_to_workers_here() {
    let mut jobs = jobs(2);
    let map = jobs.open(spec()).unwrap();
    let _idle = [jobs.ready(SlotId(0)), jobs.ready(SlotId(1))];
    jobs.join(AgentId(1), 4);
    jobs.push(map, Numbers { first: 0, count: 2 });
    assert!(jobs.lease(AgentId(1), 100, 1 << 20, millis(1)).is_none());
    jobs.push(map, Numbers { first: 2, count: 1 });
    assert!(jobs.lease(AgentId(1), 100, 1 << 20, millis(1)).is_some());
}

#[test]
fn a_map_or_a_pool_that_is_ended_ends_what_agents_run() {
    let workers = Workers::default();
    let (mut jobs, map) = two_agents(spec(), 80);
    let (one, ..) = jobs.lease(AgentId(1), 100, 1 << 20, millis(1)).unwrap();
    jobs.cancel(map, millis(2), "enough", &workers);
    let kills = |jobs: &mut Jobs| {
        jobs.take_effects()
            .agents
            .recalls
            .iter()
            .filter(|recall| recall.kill)
            .count()
    };
    assert_eq!(kills(&mut jobs), 1);
    // They say so, and it counts.
    assert_eq!(jobs.load(), (4, 16));
    assert_eq!(jobs.returned(one, 0..20), 20);
    assert_eq!(jobs.load(), (0, 0));
    let (mut jobs, _) = two_agents(spec(), 80);
    assert!(jobs.lease(AgentId(1), 100, 1 << 20, millis(1)).is_some());
    jobs.terminate(millis(2), "the pool was terminated", &workers);
    assert_eq!(kills(&mut jobs), 1);
    let (mut jobs, _) = two_agents(spec(), 80);
    assert!(jobs.lease(AgentId(1), 100, 1 << 20, millis(1)).is_some());
    jobs.stop(millis(2), "the pool was stopped");
    assert_eq!(kills(&mut jobs), 0);
}

#[test]
fn the_third_loss_of_a_call_is_charged() {
    let workers = Workers::default();
    let (mut jobs, map) = two_agents(spec(), 1);
    for loss in 1..=3 {
        let (lease, batch, _) = jobs.lease(AgentId(1), 1, 1 << 20, millis(loss)).unwrap();
        assert_eq!((batch.first, batch.attempt), (0, 1));
        // Nobody has such a call, and what is said of it is nothing, however large its number is.
        let named = BTreeSet::from([(lease, u64::MAX)]);
        let what = (0, 0);
        let counts = jobs.leased_ended(lease, u64::MAX, Ok(()), what, millis(loss), &workers);
        assert!(!counts);
        let charged = jobs.agent_lost(AgentId(1), &named, |_, _| 0, millis(loss), &workers);
        assert_eq!(charged, u64::from(loss == 3));
        // What it says later does not count.
        assert_eq!(jobs.leased_values(lease, 0..1, |_| (0, 0)), 0);
        assert_eq!(jobs.has_result(map), loss == 3);
    }
    let Take::Ready(0, 1, ended) = jobs.take(map) else {
        panic!("it was charged");
    };
    assert_eq!(ended.result, Err(Why::Died(Death::Machine)));
    assert_eq!(ended.attempts, 1);
}
