//! A worker's life as `life.md` has it, held against what happens in the random world: nothing else happens, and all of that
//! does.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::deeds::step;
use super::world::World;

/// The rows of the table: state, event, next state.
fn table() -> BTreeSet<[String; 3]> {
    let text = include_str!("../life.md");
    let rows = text.lines().filter(|line| line.starts_with("| **"));
    rows.map(|row| {
        let cells: Vec<String> = row
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().replace("**", ""))
            .collect();
        [cells[0].clone(), cells[1].clone(), cells[2].clone()]
    })
    .collect()
}

#[test]
fn workers_live_as_the_table_says() {
    let mut runner = TestRunner::deterministic();
    let plays = prop::collection::vec(step(), 1..150);
    let mut seen = BTreeSet::new();
    for _ in 0..1200 {
        let steps = plays.new_tree(&mut runner).unwrap().current();
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        world.finish();
        let changes = world.life.iter();
        seen.extend(
            changes.map(|(state, event, next)| [state, event, next].map(|it| (*it).to_owned())),
        );
    }
    let table = table();
    let lines = |rows: Vec<&[String; 3]>| -> String {
        rows.iter()
            .map(|[a, b, c]| format!("\n| **{a}** | {b} | **{c}** |"))
            .collect()
    };
    assert!(
        seen == table,
        "not in the table:{}\nnot seen:{}",
        lines(seen.difference(&table).collect()),
        lines(table.difference(&seen).collect())
    );
}
