//! A worker full of misbehaving tasks. It can also be a coordinator, for tests that kill one or look
//! at all that it prints.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Duration;

use coordinator::{Pool, Process};
use tests::ends::{self, End, Stage, Trap, Wrong};
use tests::tasks;

type Anything = Result<(), Box<dyn std::error::Error>>;

fn main() -> Anything {
    worker::init();
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    match what.as_str() {
        "every-way" => every_way(),
        "parts" => parts(),
        "last-words" => last_words(),
        "much" => much(),
        "detached" => detached(),
        "hold-out" => hold_out(&rest),
        "drop" => dropped(),
        "limited" => limited(&rest),
        "soak" => soak(&rest),
        "end-while-decoding" => end_while_decoding(&rest),
        other => Err(format!("unknown: {other}").into()),
    }
}

fn every_way() -> Anything {
    let pool = Pool::new(4)?;
    // The first is the slowest: what finishes first must not come first.
    pool.map(
        tasks::print_every_way,
        [(1, 80), (2, 40), (3, 20), (4, 0), (5, 0)],
    )?;
    Ok(())
}

fn parts() -> Anything {
    let pool = Pool::new(2)?;
    pool.map(
        tasks::print_part,
        ["a", "b\nc", "\n", "d"].map(String::from),
    )?;
    Ok(())
}

fn last_words() -> Anything {
    let pool = Pool::new(2)?;
    for result in pool.map_each(tasks::print_and_abort, ["one", "two"].map(String::from)) {
        let error = result.err().ok_or("it lived")?;
        println!("{:?}: {}", error.why(), error.stderr().trim());
    }
    Ok(())
}

fn much() -> Anything {
    let pool = Pool::new(3)?;
    pool.map(tasks::print_much, (0..30).map(|number| (number, 30_000)))?;
    Ok(())
}

fn detached() -> Anything {
    let pool = Pool::new(1)?;
    drop(pool.submit(tasks::print_part, "nobody waits\n".to_owned()));
    pool.close();
    pool.join()?;
    drop(Process::new(tasks::pid, ()).start()?);
    Ok(())
}

fn hold_out(paths: &[String]) -> Anything {
    let pool = Pool::new(paths.len())?;
    pool.map(tasks::hold_out, paths.iter().map(PathBuf::from))?;
    Ok(())
}

fn dropped() -> Anything {
    let pool = Pool::new(2)?;
    let _pending = pool.submit(tasks::sleep_ms, 100_000);
    println!("leaving");
    Ok(())
}

/// A call that takes as many milliseconds as the second number says and may take the first.
fn limited(numbers: &[String]) -> Anything {
    let numbers: Vec<u64> = numbers
        .iter()
        .map(|word| word.parse())
        .collect::<Result<_, _>>()?;
    let pool = Pool::builder()
        .workers(1)
        .timeout(Duration::from_millis(numbers[0]))
        .build()?;
    let pending = pool.submit(tasks::sleep_ms, numbers[1]);
    tests::eventually("it runs", || pool.stats().running == 1);
    println!("running");
    println!("{:?}", pending.wait());
    Ok(())
}

fn end_while_decoding(how: &[String]) -> Anything {
    let end = match how.concat().as_str() {
        "exit" => End::Exit(5),
        "c-exit" => End::CExit(6),
        _ => End::Segfault,
    };
    let pool = Pool::new(2)?;
    let _pending = pool.submit(tasks::sleep_ms, 100_000);
    pool.call(
        ends::walk,
        Trap(Some((Stage::DecodeOutput, Wrong::End(end)))),
    )?;
    Ok(())
}

fn soak(arguments: &[String]) -> Anything {
    let done = tests::soak::run(arguments[0].parse()?, arguments[1].as_ref())?;
    println!("{done}");
    Ok(())
}
