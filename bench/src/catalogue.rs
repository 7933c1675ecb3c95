//! What is measured: each measure, its sides, and what ours is to reach.

use crate::measure::Comparison::{Share, TimesAsFast, TimesAsLong};
use crate::measure::{
    MIB, Measure, Quantity, Unit, counted, limited, ours, python, rust, seconds, size,
    stream_memory, times,
};
use crate::sides::{
    counts, ends, floor, kills, life, machines, many, ours, processes, shell, spawned, threads,
    types,
};

/// All measures. Two workers, if nothing else is said.
pub(crate) static MEASURES: &[Measure] = &[
    Measure {
        name: "map",
        title: "a map of a million squares; peers send them in large chunks",
        once: false,
        quantities: &[seconds("time a call")],
        sides: &[
            ours(ours::map),
            python("Python Pool.map", "pool.py", &["map"]).target(4.0),
            python("ProcessPoolExecutor", "executor.py", &["map", "futures"]),
            python("loky", "executor.py", &["map", "loky"]),
        ],
    },
    Measure {
        name: "each",
        title: "the same; peers track each call by itself, as ours always does",
        once: false,
        quantities: &[seconds("time a call")],
        sides: &[
            ours(ours::map),
            python("Python Pool.map", "pool.py", &["each"]).target(100.0),
            python("Python Pool.imap", "pool.py", &["imap"]),
            python("ProcessPoolExecutor", "executor.py", &["each", "futures"]),
            python("loky", "executor.py", &["each", "loky"]),
            rust("procspawn", spawned::each, TimesAsFast).target(100.0),
        ],
    },
    Measure {
        name: "many-workers",
        title: "a map of a million squares with 100 workers",
        once: false,
        quantities: &[seconds("time a call")],
        sides: &[
            ours(ours::map_with_many),
            rust("ours with 2", ours::map, TimesAsLong).target(1.5),
            python("Python Pool.map, 100", "pool.py", &["many"]).target(4.0),
        ],
    },
    Measure {
        name: "call",
        title: "one call, there and back",
        once: false,
        quantities: &[seconds("time a call")],
        sides: &[
            ours(ours::call),
            rust("bare ping-pong, 16 B", floor::ping_pong, TimesAsLong).target(1.5),
            python("Python Pool.apply", "pool.py", &["call"]),
            python("ProcessPoolExecutor", "executor.py", &["call", "futures"]),
            python("loky", "executor.py", &["call", "loky"]),
            rust("procspawn", spawned::call, TimesAsFast),
        ],
    },
    Measure {
        name: "submits",
        title: "100,000 calls submitted one by one, then waited for",
        once: false,
        quantities: &[
            limited("time", "time a call", Unit::Seconds, 1e-6),
            limited("memory", "memory of a call in flight", Unit::Bytes, 300.0),
        ],
        sides: &[
            ours(many::submits),
            rust("ours, as a map", many::as_map, TimesAsLong),
            python("Python Pool.apply_async", "pool.py", &["submits"]),
            python(
                "ProcessPoolExecutor",
                "executor.py",
                &["submits", "futures"],
            ),
            python("loky", "executor.py", &["submits", "loky"]),
        ],
    },
    Measure {
        name: "fail",
        title: "a map whose calls return an error",
        once: false,
        quantities: &[limited("time", "time a call", Unit::Seconds, 1e-6)],
        sides: &[
            ours(ends::fails),
            python("Python Pool.imap", "pool.py", &["fail"]),
        ],
    },
    Measure {
        name: "panic",
        title: "a map whose calls panic",
        once: false,
        quantities: &[limited("time", "time a call", Unit::Seconds, 20e-6)],
        sides: &[ours(ends::panics)],
    },
    Measure {
        name: "print",
        title: "a map whose calls print a line; ours shows them in the inputs' order",
        once: false,
        quantities: &[limited("time", "time a call", Unit::Seconds, 2e-6)],
        sides: &[
            ours(ends::prints),
            python("Python Pool.map, no order", "pool.py", &["print"]),
        ],
    },
    Measure {
        name: "maps",
        title: "1,024 maps of 200 squares at once, each from a thread of its own",
        once: false,
        quantities: &[limited("time", "time a call", Unit::Seconds, 0.5e-6)],
        sides: &[
            ours(many::maps),
            rust("ours, one after another", many::maps_in_turn, TimesAsLong),
            rust("ours, as one map", many::one_map, TimesAsLong),
        ],
    },
    Measure {
        name: "call-8",
        title: "single calls from 8 threads at once",
        once: false,
        quantities: &[Quantity {
            pictured: false,
            ..seconds("time a call")
        }],
        sides: &[
            ours(many::calls_from_many),
            rust("ours, from one thread", many::calls_from_one, TimesAsLong).target(1.0),
        ],
    },
    Measure {
        name: "payload-map",
        title: "1 MiB in and out, by map",
        once: false,
        quantities: &[seconds("time a call")],
        sides: &[
            ours(ours::payload_map),
            rust("bare echoes, all kept", floor::payloads_kept, Share).target(0.5),
            rust("bare echo, 2 processes", floor::payloads, Share),
            python("Python Pool.map", "pool.py", &["payload"]),
            python(
                "ProcessPoolExecutor",
                "executor.py",
                &["payload", "futures"],
            ),
            python("loky", "executor.py", &["payload", "loky"]),
        ],
    },
    Measure {
        name: "payload-calls",
        title: "1 MiB in and out, by single calls from two threads",
        once: false,
        quantities: &[Quantity {
            pictured: false,
            ..seconds("time a call")
        }],
        sides: &[
            ours(ours::payload_calls),
            rust("bare echo, 2 processes", floor::payloads, Share).target(0.5),
        ],
    },
    Measure {
        name: "payload-call",
        title: "1 MiB in and out, by single calls one after another",
        once: false,
        quantities: &[Quantity {
            pictured: false,
            ..seconds("time a call")
        }],
        sides: &[
            ours(ours::payload_call),
            rust("bare echo, 1 process", floor::payload, Share).target(0.5),
        ],
    },
    Measure {
        name: "types",
        title: "1 MiB in and out, by single calls: how many times as long as bytes (`ByteBuf`)",
        once: false,
        quantities: &[
            times("Vec<u8>", 1.2),
            times("Vec<f64>", 1.2),
            times("Vec<u32>", 1.2),
            times("Vec<i64>", 1.2),
            times("Vec<bool>", 1.2),
            times("Vec<[u8; 16]>", 1.2),
            times("String", 1.2),
            times("a struct", 1.2),
            times("Vec<(f32, f32, u32)>", 2.0),
            times("Vec<Point>", 2.0),
        ],
        sides: &[ours(types::types)],
    },
    Measure {
        name: "sizes",
        title: "bytes in and out, by single calls, from 1 KiB to 256 MiB",
        once: false,
        quantities: &[
            size("1 KiB"),
            size("16 KiB"),
            size("256 KiB"),
            size("1 MiB"),
            size("4 MiB"),
            size("16 MiB"),
            size("64 MiB"),
            size("256 MiB"),
        ],
        sides: &[
            ours(types::sizes),
            rust("a copy into new memory each way", types::copies, Share),
        ],
    },
    Measure {
        name: "share",
        title: "calls that look into the same 8 MiB: the pool's start, and 200 of them",
        once: false,
        quantities: &[seconds("all in all")],
        sides: &[
            ours(ours::share),
            rust("ours, in each call", ours::share_not, TimesAsFast),
            python("Python, in each call", "pool.py", &["table", "call"]),
            python("Python, global by fork", "pool.py", &["table", "fork"]),
        ],
    },
    Measure {
        name: "start",
        title: "a pool of four, a map of eight, and its end",
        once: false,
        quantities: &[seconds("from nothing to nothing")],
        sides: &[
            ours(ours::start),
            rust("4 bare processes", floor::start, TimesAsLong).target(2.0),
            python("Python Pool, fork", "pool.py", &["start", "fork"]),
            python("Python Pool, spawn", "pool.py", &["start", "spawn"]),
            python("ProcessPoolExecutor", "executor.py", &["start", "futures"]),
            python("loky", "executor.py", &["start", "loky"]),
            rust("procspawn", spawned::start, TimesAsFast),
        ],
    },
    Measure {
        name: "process",
        title: "a process for each call, two at a time",
        once: false,
        quantities: &[Quantity {
            pictured: false,
            ..seconds("time a call")
        }],
        sides: &[
            ours(ours::process),
            rust("xargs -P2, bare processes", processes::xargs, TimesAsLong),
        ],
    },
    Measure {
        name: "exec",
        title: "`true` for each of 1,000 inputs; ours in order and logged",
        once: false,
        quantities: &[seconds("time a call, two at once")],
        sides: &[
            ours(shell::exec),
            rust("xargs -P2", shell::xargs, TimesAsLong).target(1.0),
        ],
    },
    Measure {
        name: "exec-counts",
        title: "system calls of `true` under strace, beyond its own; ours in order and logged",
        once: true,
        // 40 and 41 are seen: how many of them wake a thread is a matter of luck.
        quantities: &[limited("calls", "system calls a call", Unit::Count, 44.0)],
        sides: &[
            ours(counts::exec),
            rust("xargs -P2", counts::xargs, TimesAsLong),
        ],
    },
    Measure {
        name: "pipe",
        title: "200,000 lines through two `cat`s, each answered before the next",
        once: false,
        quantities: &[seconds("time a line, two at once")],
        sides: &[
            ours(shell::pipe),
            rust("one bare loop for both", shell::one_loop, Share).target(0.8),
            rust("a bare loop for each", shell::loops, Share),
        ],
    },
    Measure {
        name: "cpu",
        title: "calls of 100 µs of pure work",
        once: false,
        quantities: &[seconds("time a call, two at once")],
        sides: &[
            ours(ours::cpu),
            rust("rayon, 2 threads", threads::cpu, Share).target(0.95),
            rust("procspawn", spawned::cpu, TimesAsFast),
        ],
    },
    Measure {
        name: "straggler",
        title: "10,000 calls of 10 µs, one of the first 100 takes 2 s",
        once: false,
        quantities: &[
            Quantity {
                pictured: true,
                ..limited("others", "until all others are done", Unit::Seconds, 0.3)
            },
            limited("whole", "until the end", Unit::Seconds, 2.2),
        ],
        sides: &[
            ours(ours::straggler),
            python(
                "imap_unordered, chunks of 100",
                "pool.py",
                &["straggler", "100"],
            ),
            python(
                "imap_unordered, chunks of 1",
                "pool.py",
                &["straggler", "1"],
            ),
        ],
    },
    Measure {
        name: "memory",
        title: "a stream of ten million small inputs",
        once: true,
        quantities: &stream_memory(MIB),
        sides: &[ours(life::stream_small)],
    },
    Measure {
        name: "memory-1k",
        title: "a stream of ten million inputs and outputs of 1 KiB",
        once: true,
        // With blocks of many sizes an allocator takes long to settle: after 100 million it holds 20 MiB.
        quantities: &stream_memory(8.0 * MIB),
        sides: &[ours(life::stream_kib)],
    },
    Measure {
        name: "idle",
        title: "a pool at rest for 10 s",
        once: true,
        quantities: &[
            limited("cpu", "processor time, all threads", Unit::Seconds, 0.0),
            limited("switches", "voluntary context switches", Unit::Count, 0.0),
        ],
        sides: &[
            ours(life::idle),
            python("Python Pool", "pool.py", &["idle"]),
            python("ProcessPoolExecutor", "executor.py", &["idle", "futures"]),
            python("loky", "executor.py", &["idle", "loky"]),
        ],
    },
    Measure {
        name: "worker",
        title: "one worker",
        once: false,
        quantities: &[
            limited("ready", "from exec to ready", Unit::Seconds, 0.002),
            limited("memory", "resident at rest", Unit::Bytes, 4.0 * MIB),
        ],
        sides: &[ours(life::worker)],
    },
    Measure {
        name: "warm",
        title: "from a worker's death to a call in the next, with an initializer of 2 s and 200 MiB",
        once: false,
        quantities: &[limited(
            "time",
            "from the kill to the result",
            Unit::Seconds,
            0.005,
        )],
        sides: &[
            ours(life::warm_copy),
            rust("started anew", life::cold_start, TimesAsFast),
        ],
    },
    Measure {
        name: "kills",
        title: "a million calls with an effect; 20 times a worker is killed from outside",
        once: true,
        quantities: &[
            Quantity {
                pictured: false,
                ..seconds("time a call")
            },
            counted("kills", "kills"),
            counted("charged", "calls charged with them"),
            limited("most", "most calls charged with one kill", Unit::Count, 1.0),
            limited("twice", "calls that ran twice", Unit::Count, 0.0),
            limited("lost", "results of calls that never ran", Unit::Count, 0.0),
        ],
        sides: &[ours(kills::killed)],
    },
    Measure {
        name: "deaths",
        title: "the same; 20 of the calls kill their own worker",
        once: true,
        quantities: &[
            Quantity {
                pictured: false,
                ..seconds("time a call")
            },
            counted("kills", "deaths"),
            counted("charged", "calls charged with them"),
            limited(
                "wrong",
                "wrongly charged, or wrongly spared",
                Unit::Count,
                0.0,
            ),
            limited("twice", "calls that ran twice", Unit::Count, 0.0),
            limited("lost", "results of calls that never ran", Unit::Count, 0.0),
        ],
        sides: &[ours(kills::died)],
    },
    Measure {
        name: "agents-20ms",
        title: "2,000 calls of 20 ms over three agents of two slots, all on this machine",
        once: false,
        quantities: &[Quantity {
            pictured: false,
            ..seconds("time a call")
        }],
        sides: &[
            ours(machines::sleeps),
            rust("one pool of six", machines::sleeps_here, TimesAsLong).target(1.02),
        ],
    },
    Measure {
        name: "agents-map",
        title: "a map of a million squares over the same agents",
        once: false,
        quantities: &[limited("time", "time a call", Unit::Seconds, 1e-6)],
        sides: &[
            ours(machines::map),
            rust("one pool of two", ours::map, TimesAsLong),
        ],
    },
    Measure {
        name: "agents-call",
        title: "one call to an agent, there and back",
        once: false,
        quantities: &[limited("time", "time a call", Unit::Seconds, 1e-3)],
        sides: &[ours(machines::call)],
    },
    Measure {
        name: "agents-payload",
        title: "64 MiB to an agent, and back",
        once: false,
        quantities: &[limited("time", "time a call", Unit::Seconds, 0.5)],
        sides: &[
            ours(machines::payload),
            rust("one pool of two", machines::payload_here, TimesAsLong),
        ],
    },
    Measure {
        name: "agents-idle",
        title: "agents of a run that has nothing for them",
        once: true,
        quantities: &[limited(
            "messages",
            "messages of each in a second, with the answers",
            Unit::Count,
            2.1,
        )],
        sides: &[ours(machines::idle)],
    },
];
