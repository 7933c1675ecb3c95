//! A worker full of misbehaving tasks. It can also be a coordinator, for tests that kill one or look
//! at all that it prints.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use coordinator::{Pool, Process};
use tests::brief::{self, Print};
use tests::ends::{self, End, Stage, Trap, Wrong};
use tests::{eventually, tasks, warm};

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
        "end" => end(&rest),
        "churn" => churn(&rest),
        "nested" => nested(&rest),
        "leaks" => leaks(),
        "freed" => freed(),
        "kept" => kept(),
        "flow" => flow(&rest),
        "idle" => idle(),
        "initialize" => initialize(),
        "warm" => warm(&rest),
        "warm-churn" => warm_churn(),
        "sigpipe" => sigpipe(),
        "print-some" => print_some(),
        "end-while-decoding" => end_while_decoding(&rest),
        other => Err(format!("unknown: {other}").into()),
    }
}

/// Has copies, of which some hold out.
fn warm(paths: &[String]) -> Anything {
    let builder = Pool::builder().workers(paths.len());
    let builder = builder.initializer(warm::load, (0, 1)).warm_copies(true);
    let pool = builder.build()?;
    pool.map(tasks::hold_out, paths.iter().map(PathBuf::from))?;
    Ok(())
}

/// Has a new copy for each call.
fn warm_churn() -> Anything {
    let builder = Pool::builder().workers(2).recycle_after(1);
    let builder = builder.initializer(warm::load, (0, 1)).warm_copies(true);
    let pool = builder.build()?;
    loop {
        pool.map(tasks::square, 0..8)?;
        println!("round");
    }
}

/// Has an initializer that prints, and a call that does not.
fn initialize() -> Anything {
    let builder = Pool::builder().workers(1);
    let pool = builder
        .initializer(tasks::print_part, "ready \n".to_owned())
        .build()?;
    let value = pool.call(tasks::square, 3)?;
    pool.close();
    pool.join()?;
    println!("{value}");
    Ok(())
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

/// Ends in the middle of everything: a worker that resists, with a child, another one that is idle,
/// and calls that wait.
fn end(arguments: &[String]) -> Anything {
    let [how, file] = arguments else {
        return Err("how, and where are the processes written?".into());
    };
    let file = Path::new(file);
    let pool = Pool::builder()
        .workers(2)
        .grace(Duration::from_millis(100))
        .build()?;
    eventually("both are there", || pool.workers().len() == 2);
    let _resisting = pool.submit(tasks::hold_out, file.to_owned());
    let _waiting: Vec<_> = (0..10)
        .map(|_| pool.submit(tasks::sleep_ms, 100_000))
        .collect();
    eventually("it holds out", || file.exists());
    match how.as_str() {
        "return" => {}
        "error" => return Err("on purpose".into()),
        "panic" => panic!("on purpose"),
        "exit" => std::process::exit(3),
        "abort" => std::process::abort(),
        "forget" => std::mem::forget(pool),
        // Its end comes from outside.
        _ => loop {
            std::thread::park();
        },
    }
    Ok(())
}

/// Replaces its workers all the time.
fn churn(rounds: &[String]) -> Anything {
    let pool = Pool::builder()
        .workers(3)
        .recycle_after(2)
        .restart_limit(100, Duration::from_secs(1))
        .build()?;
    for _ in 0..rounds.concat().parse::<u32>()? {
        pool.map(tasks::sleep_ms, vec![1; 12])?;
        assert!(pool.call(tasks::exit_with, 1).is_err());
        println!("round");
    }
    Ok(())
}

fn nested(paths: &[String]) -> Anything {
    let pool = Pool::new(1)?;
    pool.call(tasks::hold_out_nested, paths.concat().into())?;
    Ok(())
}

/// How many files and threads this program has, and how many children, zombies included.
fn holdings() -> Result<[usize; 3], std::io::Error> {
    let count = |what| std::fs::read_dir(what).map(Iterator::count);
    let mut children = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        // One that has just ended has none.
        let list = std::fs::read_to_string(thread?.path().join("children"));
        children += list.unwrap_or_default().split_whitespace().count();
    }
    Ok([count("/proc/self/fd")?, count("/proc/self/task")?, children])
}

/// Has workers die, pools end and processes run, and prints what is left of it.
fn leaks() -> Anything {
    let before = holdings()?;
    let pool = Pool::builder()
        .workers(2)
        .restart_limit(1000, Duration::from_secs(1))
        .build()?;
    eventually("both are there", || pool.workers().len() == 2);
    let with_pool = holdings()?;
    for _ in 0..30 {
        assert!(pool.call(tasks::raise, 9).is_err());
        let short = pool.with().timeout(Duration::from_millis(5));
        assert!(short.call(tasks::sleep_ms, 100_000).is_err());
        assert_eq!(Process::new(tasks::square, 3).start()?.join()?, 9);
        assert_eq!(Pool::new(1)?.map(tasks::square, [2, 3])?, [4, 9]);
        assert!(
            Pool::builder()
                .workers(1)
                .worker("/bin/true")
                .build()
                .is_err()
        );
        drop(pool.stream(tasks::square, 0..).next());
    }
    eventually("both are there", || pool.workers().len() == 2);
    // A thread that has ended and was joined may be listed for another moment.
    eventually("no more than before", || {
        holdings().is_ok_and(|now| now == with_pool)
    });
    drop(pool);
    eventually("no more than at first", || {
        holdings().is_ok_and(|now| now == before)
    });
    println!("nothing");
    Ok(())
}

/// What the kernel says of this program's memory.
fn kib(what: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(what));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.ok_or("it does not say")?.parse()?)
}

/// Sends 1 GiB back and forth, and prints by how many KiB this program has grown by it.
fn freed() -> Anything {
    let pool = Pool::new(2)?;
    let text = "x".repeat(1 << 20);
    let texts = |count| std::iter::repeat_n(text.clone(), count);
    let some = || -> Anything {
        for result in pool.stream(ends::echo_text, texts(100)) {
            assert_eq!(result?.len(), 1 << 20);
        }
        assert_eq!(pool.map(ends::echo_text, texts(20))?.len(), 20);
        assert_eq!(pool.map_each(tasks::fail, texts(20)).len(), 20);
        for _ in 0..20 {
            drop(pool.submit(ends::echo_text, text.clone()));
            pool.submit(ends::echo_text, text.clone()).cancel();
        }
        // What nobody waits for is done when what comes behind it is.
        pool.map(tasks::square, 0..1000)?;
        eventually("all is done", || pool.stats().running == 0);
        Ok(())
    };
    some()?;
    let before = kib("VmRSS:")?;
    for _ in 0..5 {
        some()?;
    }
    println!("{}", kib("VmRSS:")?.saturating_sub(before));
    Ok(())
}

/// Makes 100,000 calls of 500 bytes each, of which five are kept, and prints by how many KiB this program has grown by it.
fn kept() -> Anything {
    let pool = Pool::new(2)?;
    let text = "x".repeat(500);
    let some = || -> Result<_, Box<dyn std::error::Error>> {
        let submit = || pool.submit(ends::echo_text, text.clone());
        let first = submit();
        let others: Vec<_> = (0..20_000).map(|_| submit()).collect();
        for call in others {
            assert_eq!(call.wait()?.len(), 500);
        }
        assert!(first.is_done());
        Ok(first)
    };
    let mut kept = vec![some()?];
    let before = kib("VmRSS:")?;
    for _ in 0..5 {
        kept.push(some()?);
    }
    println!("{}", kib("VmRSS:")?.saturating_sub(before));
    for call in kept {
        assert_eq!(call.wait()?, text);
    }
    Ok(())
}

/// Streams so many inputs of so many bytes, and prints the most memory that this program has had, in KiB:
/// after a tenth of them, and at the end.
fn flow(numbers: &[String]) -> Anything {
    let (count, size): (usize, usize) = (numbers[0].parse()?, numbers[1].parse()?);
    let pool = Pool::new(2)?;
    let text = "x".repeat(size);
    let texts = std::iter::repeat_with(|| text.clone()).take(count);
    for (number, result) in pool.stream(ends::echo_text, texts).enumerate() {
        assert_eq!(result?.len(), size);
        if number == count / 10 {
            println!("{}", kib("VmHWM:")?);
        }
    }
    println!("{}", kib("VmHWM:")?);
    Ok(())
}

/// Has a pool that has done all sorts of things, and nothing to do. Prints the process ids of its workers,
/// and ends when its stdin does.
/// As a program that does not ignore broken pipes, as Rust's do.
fn sigpipe() -> Anything {
    tasks::heed(libc::SIGPIPE);
    for _ in 0..20 {
        let pool = Pool::new(2)?;
        pool.call(tasks::square, 2)?;
        for worker in pool.workers() {
            tests::processes::signal(worker.pid, rustix::process::Signal::KILL);
        }
        pool.with().retries(3).map(tasks::square, 0..100)?;
        pool.close();
        pool.join()?;
    }
    Ok(())
}

fn idle() -> Anything {
    let pool = Pool::builder()
        .workers(3)
        .restart_limit(100, Duration::from_secs(1))
        .build()?;
    pool.map(tasks::square, 0..20_000)?;
    drop(pool.stream(tasks::square, 0..).next());
    (0..100).try_for_each(|x| pool.call(tasks::square, x).map(|_| ()))?;
    let limited = pool
        .with()
        .timeout(Duration::from_millis(50))
        .memory_limit(1 << 30)
        .retries(1)
        .backoff(Duration::from_millis(10));
    limited.map(tasks::square, 0..1000)?;
    assert!(limited.call(tasks::sleep_ms, 100_000).is_err());
    assert!(pool.call(tasks::raise, 9).is_err());
    // These stay open.
    let (_inputs, _reports) = pool.with().open(tasks::square);
    let _done = pool.submit(tasks::square, 1);
    eventually("all are there", || pool.workers().len() == 3);
    eventually("all is done", || pool.stats().running == 0);
    for worker in pool.workers() {
        println!("{}", worker.pid);
    }
    std::io::read_to_string(std::io::stdin())?;
    Ok(())
}

/// Every 500th of many calls prints its number, each in another way.
fn print_some() -> Anything {
    const WAYS: [Print; 4] = [Print::Line, Print::Part, Print::C, Print::Child];
    let pool = Pool::new(2)?;
    let how = |n: u64| n.is_multiple_of(500).then(|| WAYS[(n / 500) as usize % 4]);
    pool.map(brief::print_if, (0..20_000).map(|n| (n, how(n))))?;
    Ok(())
}
