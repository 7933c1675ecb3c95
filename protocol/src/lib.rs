//! What a coordinator and a worker say to each other.
//!
//! This page is the wire specification: with it, a worker can be written in any language. The
//! modules hold the one implementation both sides of this project share. There are no threads and
//! no processes here.
//!
//! # Where they meet
//!
//! The coordinator makes a directory that only its user may enter (mode 0700) and listens in it on
//! a local socket (a Unix stream socket; a named pipe on Windows), one for each worker. It starts
//! the worker as
//!
//! ```text
//! COORDINATOR_TOKEN=<32 hexadecimal digits> worker --connect <path of the socket>
//! ```
//!
//! For a worker that the coordinator starts itself, the path stands for a descriptor that the worker inherits
//! (`/proc/self/fd/N`), so that nobody else finds the socket.
//!
//! The worker connects once and uses this one stream for everything; its standard streams carry
//! nothing of the protocol. Socket and directory are removed as soon as the two have met.
//!
//! # Frames
//!
//! Each message is a frame:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the header, `u32`, little-endian, at most [`frame::MAX_HEADER`] |
//! | 4 | length of the payload, `u32`, little-endian, at most [`frame::MAX_PAYLOAD`]; [`frame::SHARED`] may be set |
//! | … | the header: a message in [postcard](https://postcard.jamesmunns.com/wire-format) encoding |
//! | … | the payload: the encoded inputs or outputs the header speaks of, one after another |
//!
//! A length above its maximum ends the link. A length is never trusted with memory: buffers grow
//! as bytes arrive. Until the handshake is over the maximum of both is [`frame::MAX_GREETING`].
//!
//! After it either side may put a large payload into the [lane], a part of the memory that the
//! two share. Then three numbers stand in the payload's place, `u32`, little-endian: a word of the lane,
//! how many bytes of the payload stand before it, and how many from there on are best received into memory
//! of their own, because they are one large thing (0 if there is none). The rest of the payload follows.
//! A coordinator may put a single large input onto the [board], too, memory which it shares with all of its
//! workers: the words of that are counted on from the lane's. They stay as they are until the worker has
//! answered for the batch.
//!
//! # Handshake
//!
//! The worker speaks first. Its first frame is the only one whose header is not plain postcard; it
//! begins with six bytes that will never change, so that two versions can tell each other apart:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `C O O R` |
//! | 2 | the protocol's version, `u16`, little-endian: [`handshake::VERSION`] |
//! | … | [`message::Hello`], postcard |
//!
//! The coordinator answers with [`message::ToWorker::Welcome`], or with
//! [`message::ToWorker::Refused`] and a reason, and closes. It refuses another version, another
//! token, and, where the system tells, a process of another user or (for a worker that it
//! started itself) another process; and a worker of another [build](message::Hello::build) than those it has. With
//! the welcome come descriptors (`SCM_RIGHTS`): of the worker's [black box](black_box) and, behind it, of the
//! [board], if there is one. The worker maps them before it answers with [`message::Ready`].
//!
//! # Conversation
//!
//! From then on one side speaks at a time, so no size of payload can block both. Before a batch whose inputs refer
//! to shared memory that the worker has not been given yet, the coordinator sends [`message::ToWorker::Here`], and
//! the descriptors with it, at most [`descriptors::MOST`] with each.
//!
//! 1. The coordinator sends one [`message::ToWorker::Batch`]: a task's name, how the payload is
//!    encoded, and for each call the length of its input. The inputs follow in the payload, in the
//!    same order, and fill it: a batch whose lengths do not add up to its payload is refused before
//!    any of its calls runs.
//! 2. The worker reads the whole frame, then runs the calls in order, each with a ticket from its black
//!    box. It sends a [`message::Reply`] when a call is worth one (it failed, or it has printed
//!    something: then the reply says how far the files behind its stdout and stderr have grown), and
//!    else gathers the outputs of several calls, for a few milliseconds at most. The outputs are the
//!    payload.
//! 3. After the last reply it is the coordinator's turn again: another batch, or
//!    [`message::ToWorker::Exit`] with the exit code the worker is to leave with. The last reply is the
//!    one to the last call, or [`message::Reply::Stopped`] if the worker got no ticket for one.
//!
//! If the stream ends, the worker leaves: its coordinator is gone.
//!
//! # Encodings
//!
//! | [`message::Encoding`] | input | output |
//! |---|---|---|
//! | `Postcard` | the task's input type in postcard; several parameters are a tuple | the same |
//! | `Text` | raw bytes: JSON of the input type, or else a plain string | JSON; empty for a unit |
//! | `Check` | the same | empty: the task is not run |

pub mod black_box;
pub mod board;
pub mod descriptors;
mod encode;
pub mod frame;
pub mod handshake;
pub mod lane;
pub mod link;
mod load;
pub mod message;
pub mod parcel;
mod reader;
pub mod sheet;
pub mod spin;
mod writer;

pub use encode::{decode, encode};
pub use link::{Link, LinkError};
pub use writer::ValueError;
