//! What comes back of calls.

use std::sync::Arc;
use std::time::Duration;

use protocol::parcel::{Apart, Owned, Parcel};

use crate::payload::buffers;
use crate::payload::printed::Printed;
use crate::scheduler;

/// What is left of an attempt, or of consecutive calls that returned values and printed nothing.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(crate) by: By,
    pub(crate) printed: Printed,
    pub(crate) note: Option<String>,
    outputs: Outputs,
}

/// The worker that ran something.
#[derive(Debug, Clone)]
pub(crate) struct By {
    pub(crate) slot: scheduler::SlotId,
    /// 0 if nobody knows.
    pub(crate) pid: u32,
    /// The agent of that machine; `None` if it ran here.
    pub(crate) machine: Option<Arc<str>>,
}

impl By {
    /// A worker on this machine.
    pub(crate) fn here(slot: scheduler::SlotId, pid: u32) -> Self {
        By {
            slot,
            pid,
            machine: None,
        }
    }
}

#[derive(Debug, Clone)]
enum Outputs {
    /// None, of one call: it failed, or returned nothing.
    Nothing {
        elapsed: Duration,
    },
    /// The output of one call.
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
    /// The bytes, and a large piece that becomes part of the value without being copied.
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
    /// Takes outputs apart. Fails if their lengths do not add up to the payload.
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

    /// How long one of them ran, and a copy of its output, which keeps nothing of the others.
    pub(crate) fn one(&self, at: u32) -> (Duration, Payload) {
        let nanos = self.nanos.get(at as usize).copied().unwrap_or(0);
        let range = self.end(at)..self.end(at.saturating_add(1));
        let bytes = self.payload.bytes().get(range).unwrap_or_default();
        let output = Parcel::Whole(Owned::new(bytes.to_vec()));
        (Duration::from_nanos(nanos.into()), Payload(output))
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
            outputs: match value.len() {
                0 => Outputs::Nothing { elapsed },
                _ => Outputs::One {
                    elapsed,
                    value: Arc::new(value),
                },
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

    /// Whether the output of its one call is not in one piece.
    #[cfg_attr(
        not(feature = "agents"),
        allow(dead_code, reason = "only agents need it")
    )]
    pub(crate) fn is_apart(&self) -> bool {
        matches!(&self.outputs, Outputs::One { value, .. } if matches!(value.0, Parcel::Apart(_)))
    }

    /// The encoded output of a call, if it is in one piece.
    #[inline]
    pub(crate) fn value(&self, index: u64) -> &[u8] {
        match &self.outputs {
            Outputs::Nothing { .. } => &[],
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
            Outputs::Nothing { .. } | Outputs::One { .. } => (&[][..], &[][..], 0),
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
            Outputs::Nothing { elapsed } | Outputs::One { elapsed, .. } => *elapsed,
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

    use protocol::parcel::Owned;

    use super::*;

    #[test]
    fn outputs_are_found_by_index() {
        let payload = || Payload::from(Parcel::Whole(Owned::new(b"oneoutput".to_vec())));
        let values = Values::new(10, vec![3, 0, 6], vec![1, 2, 3], payload()).unwrap();
        assert_eq!(values.size(1, 3), 6);
        let by = By::here(scheduler::SlotId(0), 7);
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
