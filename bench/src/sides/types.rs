//! Large values of many types and sizes, in single calls.

use std::time::Instant;

use coordinator::{Pool, Task};
use serde_bytes::ByteBuf;

use super::{MIB, Setting, Values, check, median, ours};
use crate::Problem;
use crate::tasks::{Point, Record, types};

/// How often each type's turn comes.
const TURNS: (usize, usize) = (200, 5);

/// How many times as long values of each type take as bytes of the same size. All take turns, so that the machine's mood is the
/// same for all.
pub(crate) fn types(setting: &Setting) -> Result<Values, Problem> {
    let pool = ours::warm(1)?;
    let numbers = || (0..).map(|at: u32| at.wrapping_mul(2_654_435_761));
    let bytes: Vec<u8> = numbers().map(|number| number as u8).take(MIB).collect();
    let floats: Vec<f64> = numbers().map(f64::from).take(MIB / 8).collect();
    let record = Record {
        name: "a record".to_owned(),
        bytes: bytes[..MIB / 2].to_vec(),
        values: floats[..MIB / 16].to_vec(),
    };
    let tuples = numbers().map(|number| (number as f32, 1.5, number));
    let points = numbers().map(|id| Point {
        x: f64::from(id),
        y: 0.5,
        id,
    });
    let mut all: Vec<Box<dyn Timed>> = vec![
        timed("ByteBuf", types::bytes, ByteBuf::from(bytes.clone())),
        timed("Vec<u8>", types::octets, bytes.clone()),
        timed("Vec<f64>", types::floats, floats),
        timed(
            "Vec<u32>",
            types::integers,
            numbers().take(MIB / 4).collect(),
        ),
        timed(
            "Vec<i64>",
            types::long,
            numbers().map(i64::from).take(MIB / 8).collect(),
        ),
        timed(
            "Vec<bool>",
            types::flags,
            bytes.iter().map(|byte| byte % 3 == 0).collect(),
        ),
        timed("Vec<[u8; 16]>", types::arrays, bytes.as_chunks().0.to_vec()),
        timed("String", types::text, "text".repeat(MIB / 4)),
        timed("a struct", types::record, record),
        timed(
            "Vec<(f32, f32, u32)>",
            types::tuples,
            tuples.take(MIB / 12).collect(),
        ),
        timed("Vec<Point>", types::points, points.take(MIB / 24).collect()),
    ];
    for _ in 0..setting.pick(TURNS.0, TURNS.1) {
        for one in &mut all {
            one.turn(&pool)?;
        }
    }
    let mut times: Vec<_> = all.iter_mut().map(|one| one.median()).collect();
    let bytes = times.remove(0).1;
    let of_bytes = |(name, time): (&str, f64)| (name.to_owned(), time / bytes);
    Ok(times.into_iter().map(of_bytes).collect())
}

/// A value that goes there and back.
struct Turns<T, V> {
    name: &'static str,
    task: T,
    value: Option<V>,
    seconds: Vec<f64>,
}

trait Timed {
    fn turn(&mut self, pool: &Pool) -> Result<(), Problem>;
    fn median(&mut self) -> (&'static str, f64);
}

fn timed<T, V>(name: &'static str, task: T, value: V) -> Box<dyn Timed>
where
    T: Task<Input = V, Output = V> + Copy + 'static,
    V: 'static,
{
    Box::new(Turns {
        name,
        task,
        value: Some(value),
        seconds: Vec::new(),
    })
}

impl<T, V> Timed for Turns<T, V>
where
    T: Task<Input = V, Output = V> + Copy,
{
    fn turn(&mut self, pool: &Pool) -> Result<(), Problem> {
        let value = self.value.take().ok_or("the value was lost")?;
        let started = Instant::now();
        let value = pool.call(self.task, value)?;
        self.seconds.push(started.elapsed().as_secs_f64());
        self.value = Some(value);
        Ok(())
    }

    fn median(&mut self) -> (&'static str, f64) {
        // The first calls find things cold.
        (self.name, median(&mut self.seconds[1..]))
    }
}

/// The sizes of the curve, in bytes.
pub(crate) const SIZES: [(&str, usize); 8] = [
    ("1 KiB", 1 << 10),
    ("16 KiB", 16 << 10),
    ("256 KiB", 256 << 10),
    ("1 MiB", MIB),
    ("4 MiB", 4 * MIB),
    ("16 MiB", 16 * MIB),
    ("64 MiB", 64 * MIB),
    ("256 MiB", 256 * MIB),
];

/// How long bytes take in, and out again, for each size.
pub(crate) fn sizes(setting: &Setting) -> Result<Values, Problem> {
    let pool = ours::warm(1)?;
    curve(setting, |bytes| Ok(pool.call(types::bytes, bytes)?))
}

/// The same for what can't be had for less: a copy into memory that is new each time, for each of the two ways.
pub(crate) fn copies(setting: &Setting) -> Result<Values, Problem> {
    curve(setting, |bytes| Ok(ByteBuf::from(bytes.to_vec().to_vec())))
}

fn curve(
    setting: &Setting,
    mut there_and_back: impl FnMut(ByteBuf) -> Result<ByteBuf, Problem>,
) -> Result<Values, Problem> {
    let mut values = Values::new();
    let most = setting.pick(usize::MAX, 4 * MIB);
    for (name, size) in SIZES.into_iter().filter(|(_, size)| *size <= most) {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let expected = ByteBuf::from(bytes);
        let mut seconds = Vec::new();
        for turn in 0..setting.pick((256 * MIB / size).clamp(3, 300), 3) + 1 {
            let bytes = expected.clone();
            let started = Instant::now();
            let back = there_and_back(bytes)?;
            let took = started.elapsed().as_secs_f64();
            // The first finds things cold.
            if turn > 0 {
                seconds.push(took);
            }
            check(back.len() == size && (turn > 0 || back == expected))?;
        }
        values.insert(name.to_owned(), median(&mut seconds));
    }
    Ok(values)
}
