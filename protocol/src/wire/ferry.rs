//! How a payload is told of that crosses the lane in parts.
//!
//! The receiver says with a byte that it has read the frame, and so has taken all that the lane held before. Then the sender
//! tells of each part with a byte, and the receiver says with a byte that it has taken the part. These bytes mean nothing
//! else. The sender waits for all of them, so the lane is free again.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;

use super::frame::{self, FrameError, Reader};
use crate::memory::ferry::{Arriving, Ferry, PART};
use crate::memory::place::Placed;
use crate::value::parcel::Parcel;

pub(super) use crate::memory::ferry::LEAST;

/// What each of the bytes is.
const BYTE: u8 = 1;

/// Sends a frame whose payload crosses in parts.
pub(super) fn send(
    stream: &mut (impl Read + Write),
    header: &[u8],
    payload: &[&[u8]],
    piece: &Range<usize>,
    ferry: &Ferry,
) -> io::Result<()> {
    let len = frame::check(header, payload)?;
    frame::write_placed(stream, header, Placed::in_parts(len, piece))?;
    let mut taken = 0;
    wait(stream, 1)?;
    let parts = (len as usize).div_ceil(PART);
    let mut rest = Rest(payload.to_vec());
    for part in 0..parts {
        while part - taken >= ferry.berths() {
            taken += wait(stream, part - taken)?;
        }
        ferry.put(part, &rest.next(PART));
        stream.write_all(&[BYTE])?;
    }
    while taken < parts {
        taken += wait(stream, parts - taken)?;
    }
    Ok(())
}

/// Waits for bytes of the receiver, and returns how many have come.
fn wait(stream: &mut impl Read, most: usize) -> io::Result<usize> {
    let mut bytes = [0; 64];
    let most = most.min(bytes.len());
    loop {
        match stream.read(&mut bytes[..most]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) if bytes[..read].iter().all(|byte| *byte == BYTE) => return Ok(read),
            Ok(_) => return Err(ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What is still to be sent.
struct Rest<'p>(Vec<&'p [u8]>);

impl<'p> Rest<'p> {
    /// The next bytes, so many of them if there are that many.
    fn next(&mut self, mut most: usize) -> Vec<&'p [u8]> {
        let mut next = Vec::new();
        while let Some(first) = self.0.first_mut()
            && most > 0
        {
            let (some, rest) = first.split_at(first.len().min(most));
            next.push(some);
            most -= some.len();
            *first = rest;
            if rest.is_empty() {
                self.0.remove(0);
            }
        }
        next
    }
}

/// Receives the payload of a frame that was just read.
pub(super) fn receive(
    reader: &mut Reader,
    stream: &mut (impl Read + Write),
    placed: Placed,
) -> Result<Parcel, FrameError> {
    let ferry = reader.ferry().ok_or(FrameError::NoSuchPlace)?;
    let mut arriving = Arriving::new(ferry, placed).ok_or(FrameError::NoSuchPlace)?;
    stream.write_all(&[BYTE]).map_err(FrameError::Io)?;
    for _ in 0..arriving.parts() {
        reader.read_byte(stream)?;
        let taken = arriving.take();
        taken.map_err(|_| FrameError::Io(ErrorKind::OutOfMemory.into()))?;
        stream.write_all(&[BYTE]).map_err(FrameError::Io)?;
    }
    Ok(arriving.parcel())
}
