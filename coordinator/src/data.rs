//! What calls carry: encoded inputs on their way to the workers, and what comes back.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use protocol::board::{Board, Region};
use protocol::message::Encoding;
use protocol::parcel::{Apart, Parcel};
use protocol::sheet::InputSheet;
use worker::private::Kept;

use crate::buffers;
use crate::output::Printed;
use crate::scheduler;

/// What the calls of a map run.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) task: String,
    pub(crate) types: Option<String>,
    pub(crate) encoding: Encoding,
}

/// The encoded inputs of consecutive calls. Shared, because a call that is tried again needs its input
/// again.
#[derive(Debug, Clone)]
pub(crate) struct Inputs(Arc<Chunk>);

/// How large the inputs of a chunk are, all together, before it is closed.
const CHUNK: usize = 64 << 10;

/// Inputs being gathered, one after another.
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<u32>,
    /// The last of them, if it is a large one: then it stands here.
    region: Option<Region>,
    /// What they refer to.
    kept: Vec<Kept>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.bytes));
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Chunk {
            bytes: buffers::take(),
            ends: Vec::new(),
            region: None,
            kept: Vec::new(),
        }
    }
}

impl Chunk {
    /// Adds an input by encoding it, on the board if it is large. One that can't be encoded leaves nothing
    /// behind. The chunk must not be full.
    #[inline]
    pub(crate) fn add(
        &mut self,
        board: Option<&Arc<Board>>,
        encode: impl FnOnce(&mut InputSheet<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let start = self.bytes.len();
        let mut sheet = InputSheet::new(&mut self.bytes, board);
        let encoded = encode(&mut sheet);
        if encoded.is_err() {
            sheet.clear();
        }
        let region = sheet.region();
        worker::private::take_kept(|kept| {
            // Calls side by side usually refer to the same.
            if self
                .kept
                .last()
                .is_none_or(|last| !Arc::ptr_eq(last, &kept))
            {
                self.kept.push(kept);
            }
        });
        encoded?;
        let large = region.as_ref().map_or(0, |region| region.len());
        match u32::try_from(self.bytes.len() + large) {
            Ok(end) => {
                self.ends.push(end);
                if large > 0 {
                    self.region = region;
                }
            }
            Err(_) => {
                self.bytes.truncate(start);
                return Err("the input is too large: it has more than 4 GiB".to_owned());
            }
        }
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= CHUNK || self.region.is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// What was gathered; the chunk is empty afterwards.
    pub(crate) fn take(&mut self) -> Inputs {
        let bytes = match self.bytes.len() {
            0..CHUNK => Vec::with_capacity(self.bytes.len()),
            _ => buffers::take(),
        };
        let next = Chunk {
            bytes,
            ends: Vec::with_capacity(self.ends.len()),
            region: None,
            kept: Vec::new(),
        };
        Inputs(Arc::new(std::mem::replace(self, next)))
    }
}

impl From<Vec<u8>> for Inputs {
    /// One input.
    fn from(bytes: Vec<u8>) -> Self {
        let ends = vec![u32::try_from(bytes.len()).unwrap_or(u32::MAX)];
        Inputs(Arc::new(Chunk {
            bytes,
            ends,
            region: None,
            kept: Vec::new(),
        }))
    }
}

impl Inputs {
    fn start(&self, at: u32) -> usize {
        match at.checked_sub(1) {
            Some(before) => self.0.ends[before as usize] as usize,
            None => 0,
        }
    }

    /// Some of them, one after another.
    pub(crate) fn slices(&self, at: u32, count: u32) -> impl Iterator<Item = Piece<'_>> {
        let chunk = &*self.0;
        let (start, end) = (self.start(at), self.start(at + count));
        let region = chunk.region.as_ref().filter(|_| end > chunk.bytes.len());
        let bytes = &chunk.bytes[start..end.min(chunk.bytes.len())];
        let bytes = Some(bytes).filter(|bytes| !bytes.is_empty() || region.is_none());
        let bytes = bytes.map(Piece::Bytes);
        bytes.into_iter().chain(region.map(Piece::OnBoard))
    }

    /// Whether one of them is on the board.
    pub(crate) fn is_on_board(&self) -> bool {
        self.0.region.is_some()
    }

    /// How long each of some of them is.
    pub(crate) fn lens(&self, at: u32, count: u32) -> impl Iterator<Item = u32> {
        let mut start = self.start(at) as u32;
        self.0.ends[at as usize..(at + count) as usize]
            .iter()
            .map(move |end| end - std::mem::replace(&mut start, *end))
    }
}

/// Inputs that stand one behind the other.
#[derive(Debug)]
pub(crate) enum Piece<'c> {
    Bytes(&'c [u8]),
    /// One of them.
    OnBoard(&'c Region),
}

impl Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Piece::Bytes(bytes) => bytes,
            Piece::OnBoard(region) => region,
        }
    }
}

impl scheduler::Inputs for Inputs {
    fn count(&self) -> u32 {
        // A chunk is closed long before.
        u32::try_from(self.0.ends.len()).unwrap_or(u32::MAX)
    }

    fn bytes(&self, from: u32, count: u32) -> usize {
        self.start(from + count) - self.start(from)
    }
}

/// What is left of an attempt, or of consecutive calls that returned values and printed nothing.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(crate) by: By,
    pub(crate) printed: Printed,
    pub(crate) note: Option<String>,
    outputs: Outputs,
}

/// The worker that ran something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct By {
    pub(crate) slot: scheduler::SlotId,
    pub(crate) pid: u32,
}

#[derive(Debug, Clone)]
enum Outputs {
    /// Of one call.
    One {
        elapsed: Duration,
        value: Arc<Payload>,
    },
    Many(Arc<Values>),
}

/// Encoded outputs, as they came.
#[derive(Debug, Default)]
pub(crate) struct Payload(Parcel);

impl Payload {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes, if they are in one piece.
    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Parcel::Whole(owned) => owned.payload(),
            Parcel::Apart(_) => &[],
        }
    }
}

impl From<Parcel> for Payload {
    fn from(parcel: Parcel) -> Self {
        Payload(parcel)
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Parcel::Whole(owned) = std::mem::take(&mut self.0) {
            buffers::give(owned.into_buffer());
        }
    }
}

/// One call's encoded output, for whoever decodes it.
#[derive(Debug)]
pub(crate) enum Encoded<'t> {
    Bytes(&'t [u8]),
    /// With a large piece that becomes part of the value.
    Apart(Apart),
}

/// The outputs of consecutive calls.
#[derive(Debug)]
pub(crate) struct Values {
    /// The index of the first.
    pub(crate) first: u64,
    pub(crate) nanos: Vec<u32>,
    /// Where each output ends.
    ends: Vec<u32>,
    payload: Payload,
}

impl Values {
    /// Fails if the lengths do not add up to the payload.
    pub(crate) fn new(
        first: u64,
        lens: Vec<u32>,
        nanos: Vec<u32>,
        payload: Payload,
    ) -> Result<Self, String> {
        let mut end = 0_u32;
        let mut ends = lens;
        for len in &mut ends {
            end = end
                .checked_add(*len)
                .ok_or_else(|| "outputs of more than 4 GiB".to_owned())?;
            *len = end;
        }
        if let Parcel::Apart(_) = payload.0 {
            return Err("a large output among several".to_owned());
        }
        if end as usize != payload.len() || ends.len() != nanos.len() {
            return Err(format!(
                "{} outputs of {end} bytes, with {} times, in a payload of {}",
                ends.len(),
                nanos.len(),
                payload.len()
            ));
        }
        Ok(Values {
            first,
            nanos,
            ends,
            payload,
        })
    }

    /// How large some of them are.
    pub(crate) fn size(&self, from: u32, to: u32) -> usize {
        self.end(to) - self.end(from)
    }

    #[inline]
    fn end(&self, count: u32) -> usize {
        match count.checked_sub(1) {
            Some(last) => self.ends.get(last as usize).copied().unwrap_or(0) as usize,
            None => 0,
        }
    }
}

impl Trace {
    /// Of one call.
    pub(crate) fn one(by: By, elapsed: Duration, printed: Printed, value: Payload) -> Self {
        Trace {
            by,
            printed,
            note: None,
            outputs: Outputs::One {
                elapsed,
                value: Arc::new(value),
            },
        }
    }

    /// Of calls that returned values and printed nothing.
    pub(crate) fn many(by: By, values: Arc<Values>) -> Self {
        Trace {
            by,
            printed: Printed::default(),
            note: None,
            outputs: Outputs::Many(values),
        }
    }

    /// The encoded output of a call, to be decoded once.
    pub(crate) fn take_output(&mut self, index: u64) -> Encoded<'_> {
        if let Outputs::One { value, .. } = &mut self.outputs {
            if let Some(Payload(Parcel::Apart(apart))) = Arc::get_mut(value) {
                return Encoded::Apart(std::mem::take(apart));
            }
            if let Parcel::Apart(apart) = &value.0 {
                return Encoded::Apart(apart.clone());
            }
        }
        Encoded::Bytes(self.value(index))
    }

    /// The encoded output of a call, if it is in one piece.
    #[inline]
    pub(crate) fn value(&self, index: u64) -> &[u8] {
        match &self.outputs {
            Outputs::One { value, .. } => value.bytes(),
            Outputs::Many(values) => {
                let at = u32::try_from(index.saturating_sub(values.first)).unwrap_or(u32::MAX);
                let range = values.end(at)..values.end(at.saturating_add(1));
                values.payload.bytes().get(range).unwrap_or_default()
            }
        }
    }

    /// The encoded outputs from a call on, if they came together.
    pub(crate) fn values(&self, index: u64) -> impl Iterator<Item = &[u8]> {
        let (ends, bytes, mut start) = match &self.outputs {
            Outputs::One { .. } => (&[][..], &[][..], 0),
            Outputs::Many(values) => {
                let at = u32::try_from(index.saturating_sub(values.first)).unwrap_or(u32::MAX);
                let ends = values.ends.get(at as usize..).unwrap_or_default();
                (ends, values.payload.bytes(), values.end(at))
            }
        };
        ends.iter().map(move |end| {
            let range = std::mem::replace(&mut start, *end as usize)..*end as usize;
            bytes.get(range).unwrap_or_default()
        })
    }

    /// How long a call ran.
    pub(crate) fn elapsed(&self, index: u64) -> Duration {
        match &self.outputs {
            Outputs::One { elapsed, .. } => *elapsed,
            Outputs::Many(values) => {
                let at = usize::try_from(index.saturating_sub(values.first)).unwrap_or(usize::MAX);
                let nanos = values.nanos.get(at).copied().unwrap_or(0);
                Duration::from_nanos(nanos.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use protocol::frame::Owned;

    use super::*;
    use crate::scheduler::Inputs as _;

    /// The bytes of some of them.
    fn bytes(inputs: &Inputs, at: u32, count: u32) -> Vec<u8> {
        let pieces = inputs.slices(at, count);
        pieces.flat_map(|piece| piece.to_vec()).collect()
    }

    #[test]
    fn inputs_stand_one_behind_the_other() {
        let mut chunk = Chunk::default();
        for input in [&b"one"[..], b"", b"three"] {
            chunk
                .add(None, |sheet| {
                    sheet.write(input);
                    Ok(())
                })
                .unwrap();
        }
        assert!(chunk.add(None, |_| Err("no".to_owned())).is_err());
        let inputs = chunk.take();
        assert!(chunk.is_empty());
        assert_eq!(inputs.count(), 3);
        assert_eq!(bytes(&inputs, 0, 3), b"onethree");
        assert_eq!(bytes(&inputs, 2, 1), b"three");
        assert_eq!(inputs.lens(0, 3).collect::<Vec<_>>(), [3, 0, 5]);
        assert_eq!(inputs.lens(1, 2).collect::<Vec<_>>(), [0, 5]);
        assert_eq!(inputs.bytes(1, 2), 5);
    }

    #[test]
    fn a_large_input_is_the_last_one_of_its_chunk() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * protocol::board::REGION as u64).unwrap();
        let board = Board::map(&file).unwrap();
        let large: Vec<u8> = (0..1_u32 << 20).map(|at| at as u8).collect();
        let fill = |chunk: &mut Chunk| {
            for input in [&b"one"[..], b"two", &large] {
                assert!(!chunk.is_full());
                let write = |sheet: &mut InputSheet<'_>| {
                    sheet.write(input);
                    Ok(())
                };
                chunk.add(Some(&board), write).unwrap();
            }
            chunk.take()
        };
        let mut chunk = Chunk::default();
        // There is room for two on the board: the third stands with the others.
        let all = [0, 1, 2].map(|_| fill(&mut chunk));
        let whole = [b"onetwo", &large[..]].concat();
        for (inputs, on_board) in all.iter().zip([true, true, false]) {
            assert_eq!(inputs.is_on_board(), on_board);
            assert_eq!(inputs.count(), 3);
            assert!(bytes(inputs, 0, 3) == whole);
            assert!(bytes(inputs, 1, 2) == whole[3..]);
            assert!(bytes(inputs, 2, 1) == large);
            assert_eq!(bytes(inputs, 0, 2), b"onetwo");
            assert_eq!(bytes(inputs, 1, 1), b"two");
            assert_eq!(inputs.lens(1, 2).collect::<Vec<_>>(), [3, 1 << 20]);
            assert_eq!(inputs.bytes(1, 2), 3 + (1 << 20));
            let last = inputs.slices(2, 1).collect::<Vec<_>>();
            assert_eq!(matches!(last[..], [Piece::OnBoard(_)]), on_board);
        }
        drop(all);
        assert!(fill(&mut chunk).is_on_board());
        // One that can't be encoded gives its place back.
        for _ in 0..3 {
            let write = |sheet: &mut InputSheet<'_>| {
                sheet.write(&large);
                Err("no".to_owned())
            };
            assert!(chunk.add(Some(&board), write).is_err());
            assert!(chunk.is_empty() && !chunk.is_full());
        }
        assert!(fill(&mut chunk).is_on_board());
    }

    #[test]
    fn outputs_are_found_by_index() {
        let payload = || Payload::from(Parcel::Whole(Owned::new(b"oneoutput".to_vec())));
        let values = Values::new(10, vec![3, 0, 6], vec![1, 2, 3], payload()).unwrap();
        assert_eq!(values.size(1, 3), 6);
        let by = By {
            slot: scheduler::SlotId(0),
            pid: 7,
        };
        let trace = Trace::many(by, Arc::new(values));
        assert_eq!(trace.value(10), b"one");
        assert_eq!(trace.value(11), b"");
        assert_eq!(trace.value(12), b"output");
        assert_eq!(trace.value(13), b"");
        let values = |from| trace.values(from).collect::<Vec<_>>();
        assert_eq!(values(10), [&b"one"[..], b"", b"output"]);
        assert_eq!(values(12), [b"output"]);
        assert_eq!(trace.values(13).count(), 0);
        assert_eq!(trace.elapsed(12), Duration::from_nanos(3));
        for (lens, nanos) in [
            (vec![3, 5], vec![1, 2]),
            (vec![9], vec![1, 2]),
            (vec![u32::MAX; 2], vec![1, 2]),
        ] {
            assert!(Values::new(0, lens, nanos, payload()).is_err());
        }
    }
}
