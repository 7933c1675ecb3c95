//! The handshake: the version first, then the token.

use std::fmt;
use std::io::{self, Read, Write};

use super::frame::Caps;
use super::link::{self, Link, LinkError};
use super::message::{Hello, Ready, ToWorker, Welcome};

/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 9;
/// The first bytes of a worker's first message, in every version.
const MAGIC: [u8; 4] = *b"COOR";
const PREAMBLE: usize = MAGIC.len() + 2;

/// The environment variable that carries the token to a worker.
pub const TOKEN_VARIABLE: &str = "COORDINATOR_TOKEN";
/// The argument that makes a process a worker; the socket's name follows it.
pub const CONNECT_ARGUMENT: &str = "--connect";

/// A secret that a worker must present: 128 random bits.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Makes a token of random bytes. The caller has to take them from the operating system.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(32);
        for byte in bytes {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        Token(text)
    }

    /// The token as 32 hexadecimal digits, for [`TOKEN_VARIABLE`].
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Compares in constant time, so that its duration does not tell how much of the token was right.
    fn admits(&self, presented: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), presented.as_bytes());
        let differing = ours.iter().zip(theirs).fold(0, |sum, (a, b)| sum | (a ^ b));
        ours.len() == theirs.len() && differing == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// The other side does not speak this protocol at all.
    NotAWorker,
    /// The other side speaks another version.
    Version {
        /// The other side's version.
        theirs: u16,
    },
    /// The worker presented a wrong token.
    Token,
    /// The worker's program is another build than that of the pool's other workers.
    OtherBuild,
    /// The coordinator refused, and said why.
    Refused(String),
    /// There is no memory to share with the worker.
    NoMemory(io::Error),
    /// The link broke.
    Link(LinkError),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAWorker => f.write_str("it does not speak this protocol"),
            Self::Version { theirs } => write!(
                f,
                "the worker speaks protocol version {theirs}, the coordinator version {VERSION}: \
                 build both from the same source"
            ),
            Self::Token => f.write_str(
                "wrong token: copy the whole line that the coordinator printed, \
                 with COORDINATOR_TOKEN",
            ),
            Self::OtherBuild => f.write_str(
                "it is another build than this pool began with: its file was replaced meanwhile, and a \
                 new pool runs the new build",
            ),
            Self::Refused(why) => write!(f, "the coordinator refused this worker: {why}"),
            Self::NoMemory(error) => write!(f, "there is no memory to share with it: {error}"),
            Self::Link(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for HandshakeError {}

impl From<LinkError> for HandshakeError {
    fn from(error: LinkError) -> Self {
        HandshakeError::Link(error)
    }
}

/// The coordinator's side: reads the worker's [`Hello`] and checks it, but does not answer yet.
///
/// # Errors
///
/// The caller should [`refuse`] the worker, with the error as the reason.
pub fn receive<S: Read + Write>(
    link: &mut Link<S>,
    token: &Token,
) -> Result<Hello, HandshakeError> {
    let (header, _) = link.receive_raw(Caps::GREETING)?;
    let (preamble, rest) = header
        .split_at_checked(PREAMBLE)
        .ok_or(HandshakeError::NotAWorker)?;
    let theirs = match *preamble {
        [a, b, c, d, low, high] if [a, b, c, d] == MAGIC => u16::from_le_bytes([low, high]),
        _ => return Err(HandshakeError::NotAWorker),
    };
    if theirs != VERSION {
        return Err(HandshakeError::Version { theirs });
    }
    let hello: Hello = link::decode(rest)?;
    if !token.admits(&hello.token) {
        return Err(HandshakeError::Token);
    }
    Ok(hello)
}

/// The coordinator's side: admits the worker. The link's stream sends the descriptors that belong to the
/// welcome.
///
/// # Errors
///
/// The link broke.
pub fn admit<S: Read + Write>(link: &mut Link<S>, welcome: Welcome) -> Result<(), LinkError> {
    link.send(&ToWorker::Welcome(welcome), &[])
}

/// The coordinator's side: waits until the admitted worker says that it is ready.
///
/// # Errors
///
/// The link broke.
pub fn await_ready<S: Read + Write>(link: &mut Link<S>) -> Result<(), LinkError> {
    link.receive::<Ready>(Caps::GREETING).map(|_| ())
}

/// The coordinator's side: tells the worker why it is not admitted. It does not matter whether that arrives, so there
/// is no error.
pub fn refuse<S: Read + Write>(link: &mut Link<S>, why: &HandshakeError) {
    let _ = link.send(&ToWorker::Refused(why.to_string()), &[]);
}

/// The worker's side: says that it is ready, once it was admitted and has mapped its black box.
///
/// # Errors
///
/// The link broke.
pub fn ready<S: Read + Write>(link: &mut Link<S>) -> Result<(), LinkError> {
    link.send(&Ready, &[])
}

/// The worker's side: introduces itself and waits to be admitted.
///
/// # Errors
///
/// The coordinator refused, or the link broke.
pub fn introduce<S: Read + Write>(
    link: &mut Link<S>,
    hello: &Hello,
) -> Result<Welcome, HandshakeError> {
    let mut header = Vec::with_capacity(256);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    let header = postcard::to_extend(hello, header).map_err(LinkError::malformed)?;
    link.send_raw(&header, &[])?;
    match link.receive::<ToWorker>(Caps::GREETING)? {
        (ToWorker::Welcome(welcome), _) => Ok(welcome),
        (ToWorker::Refused(why), _) => Err(HandshakeError::Refused(why)),
        (other, _) => Err(LinkError::Malformed(format!("{other:?} instead of a welcome")).into()),
    }
}
