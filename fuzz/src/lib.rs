//! What the fuzz targets share: a stream that arrives in pieces, and messages that must survive
//! another journey.

use std::io::{self, Read, Write};
use std::mem::discriminant;
use std::sync::{Arc, LazyLock};

use protocol::black_box::{BlackBox, SIZE};
use protocol::frame::Caps;
use protocol::lane::Side;
use protocol::{Link, LinkError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Memory that a worker and its coordinator share. Nobody writes payloads into it: that they may be anything
/// is what the other targets are for.
static SHARED: LazyLock<Arc<BlackBox>> = LazyLock::new(|| {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE as u64).unwrap();
    Arc::new(BlackBox::map(&file).unwrap())
});

/// What has arrived, in pieces of a length that the input itself says. It takes what is written and
/// forgets it.
#[derive(Debug)]
pub struct Pieces<'d> {
    bytes: &'d [u8],
    at_once: usize,
}

impl<'d> Pieces<'d> {
    /// The first byte says how long the pieces are; 0 for no pieces.
    pub fn new(data: &'d [u8]) -> Self {
        match data.split_first() {
            Some((0, bytes)) => Pieces {
                bytes,
                at_once: usize::MAX,
            },
            Some((at_once, bytes)) => Pieces {
                bytes,
                at_once: usize::from(*at_once),
            },
            None => Pieces {
                bytes: data,
                at_once: usize::MAX,
            },
        }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(self.at_once);
        self.bytes.read(&mut buffer[..len])
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads messages to the end, with memory that both sides share and without. Whatever decodes must mean the
/// same after another journey, and handed over.
///
/// # Panics
///
/// If it does not.
pub fn read_all<M>(data: &[u8], side: Side)
where
    M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    read_with::<M>(data, None);
    read_with::<M>(data, Some(side));
}

fn read_with<M>(data: &[u8], shared: Option<Side>)
where
    M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    // What stands there comes without being sent.
    let most = match shared {
        Some(_) => usize::MAX,
        None => data.len(),
    };
    let mut link = Link::new(Pieces::new(data));
    let mut owned = Link::new(Pieces::new(data));
    if let Some(side) = shared {
        link.share(&SHARED, side);
        owned.share(&SHARED, side);
    }
    let mut received = 0;
    loop {
        let handed_over = owned.receive_owned::<M>(Caps::FULL, Vec::new);
        match link.receive::<M>(Caps::FULL) {
            Ok((message, payload)) => {
                let (same, parcel) = handed_over.unwrap();
                assert_eq!((&same, &*parcel.join()), (&message, payload));
                received += 8 + payload.len();
                assert!(received <= most, "more than was sent");
                let bytes = postcard::to_stdvec(&message).unwrap();
                assert_eq!(postcard::from_bytes::<M>(&bytes).unwrap(), message);
            }
            Err(LinkError::TooLarge(why)) => panic!("nothing was sent: {why}"),
            Err(error) => {
                let same = handed_over.map(|_| ()).unwrap_err();
                // Where both message and place are wrong, either may be said.
                assert_eq!(discriminant(&error), discriminant(&same), "{error}; {same}");
                return;
            }
        }
    }
}
