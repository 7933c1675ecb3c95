//! What a coordinator and a worker say to each other.
//!
//! This page is the wire specification: with it, a worker can be written in any language. The
//! modules hold the one implementation both sides of this project share: `wire` has the messages and frames, `memory` what
//! both sides map, and `value` how values become bytes. There are no threads and no processes here.
//!
//! A worker need not do all of this. A [plain worker](#plain-workers) shares no memory with its coordinator, and takes
//! a page of code: `examples/worker.py` in the repository is one, in Python.
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
//! For a worker that the coordinator starts itself, the path names a descriptor that the worker inherits
//! (`/proc/self/fd/N`), so that no other process finds the socket.
//!
//! The worker connects once and uses this one stream for everything; its standard streams carry
//! nothing of the protocol. Socket and directory are removed as soon as the two have met.
//!
//! **Stdin is the lifeline.** The worker leaves it open and does not read it, and neither does a program that it starts.
//! When the coordinator ends, in whatever way, the kernel kills the worker's process group.
//!
//! **The process that was started must connect itself**: the coordinator turns away every other process. A wrapper, such
//! as a shell script that sets something up, ends with `exec worker "$@"`.
//!
//! **Time.** A worker has 30 seconds to connect. It then has 5 seconds for its first message, and 5 seconds for its answer
//! to the welcome. Time during which the worker is stopped does not count.
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
//! **Postcard in short.** A struct is its fields, one after another, with nothing between them. `u16`, `u32` and `u64` are
//! varints: seven bits a byte, the lowest first, the top bit set in each byte but the last. `i16`, `i32` and `i64` are
//! zigzag varints (0, -1, 1, -2 are 0, 1, 2, 3). `u8`, `i8` and `bool` are one byte, `f32` and `f64` are little-endian. A string, a
//! byte string and a sequence have their length in front, a varint. An `Option` is a byte, 0 or 1, and the value if it is 1. An
//! enum is its variant's number, a varint from 0, and the variant's fields. A tuple is its elements, a unit is nothing.
//! [`message::Runs`] is a sequence of pairs: a number and how often it comes, both `u32`.
//!
//! **Packed integers.** This is not in postcard. A sequence of integers may stand there packed, so that it can be copied whole. In
//! the place of its length stands a mark, a varint of 64 bits: 2⁶⁴−1 for `u16`, 2⁶⁴−2 for `i16`, and so on down for `u32`, `i32`,
//! `u64`, `i64`, `u128` and `i128`. The length follows, a varint, and then each integer in its full width, little-endian. Items
//! that are arrays of integers are packed likewise, one behind the other. A reader has to know packed sequences. A writer need not
//! make any.
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
//! started itself) another process; and a worker of another [build](message::Hello::build) than those it has.
//!
//! The worker answers with [`message::Ready`], a frame whose header and payload are empty. Then it waits for a batch.
//!
//! # Conversation
//!
//! One side speaks at a time, so no size of payload can block both.
//!
//! 1. The coordinator sends one [`message::ToWorker::Batch`]: a task's name, how the payload is
//!    encoded, and for each call the length of its input. The inputs follow in the payload, in the
//!    same order, and fill it: a batch whose lengths do not add up to its payload is refused before
//!    any of its calls runs.
//! 2. The worker reads the whole frame, then runs the calls in order. It gathers what became of them, for a few milliseconds
//!    at most, and sends it in one [`message::Reply`], whose payload is the outputs. The first call of a batch that failed or
//!    printed something is told of at once, and later ones as soon as a call ends 50 µs after that. Until then the black box has
//!    them. A call with a large output, or one that ran for more than four seconds, gets a reply of its own.
//! 3. After the last reply it is the coordinator's turn again. It sends another batch, or
//!    [`message::ToWorker::Exit`] with the worker's exit code. The last reply is the
//!    one to the last call, or [`message::Reply::Stopped`] if the worker got no ticket for a call.
//!
//! Each reply repeats the batch's serial number, and says at which call of the batch it begins: the first call that no
//! reply has answered yet. If the stream ends, the worker exits, because its coordinator is gone.
//!
//! **A call that did not succeed** has a [`message::Verdict`] that says why. A task that the worker does not have, an input that it
//! can't decode, and types that differ from [those the coordinator knows](message::Batch::types) are `Undecodable`. A worker
//! that dies has died of the call that it was running.
//!
//! **What a call prints** goes into two files, the worker's stdout and stderr. The worker flushes both when a call has ended. A
//! call that has printed gets a [`message::CallEnd`], which says how long the files are: the bytes up to there, from where the
//! end before it said, belong to this call.
//!
//! # Templates
//!
//! A worker that shares memory may be asked, instead of for a batch, to become a template ([`message::ToWorker::Template`]). It
//! answers with [`message::TemplateReply::Ready`], and from then on is asked for copies alone, one at a time, by the socket and
//! never by mail; or with [`message::TemplateReply::Refused`], and goes on as a worker. [`message::ToWorker::Copy`] brings what
//! a welcome says, and descriptors: the copy's socket, its lifeline, its stdout and stderr, and the memory that comes with every
//! welcome. The template answers with [`message::TemplateReply::Copied`], the copy's process id, and its pidfd. The copy is a child
//! of the coordinator. It takes its streams, a process group of its own and its lifeline, says [`message::Ready`] on its own
//! socket, and is a worker that waits for a batch.
//!
//! # Encodings
//!
//! | [`message::Encoding`] | input | output |
//! |---|---|---|
//! | `Postcard` | the task's input type in postcard; several parameters are a tuple | the same |
//! | `Text` | raw bytes: JSON of the input type, or else a plain string | JSON; empty for a unit |
//! | `Check` | the same | empty: the task is not run |
//!
//! # Plain workers
//!
//! A worker whose greeting says that it [shares](message::Hello::shares) no memory is a plain worker. It gets batches of one
//! call, all by the socket, and answers each with one [`message::Reply::Call`]. The call counts as started when it is sent.
//! The rest of this page does not concern a plain worker: it gets no descriptors, takes no tickets, and ignores
//! [`message::ToWorker::Here`]. A short call costs it some 20 µs, instead of 0.1 µs, and shared values don't reach it.
//!
//! # Shared memory
//!
//! With the welcome come descriptors (`SCM_RIGHTS`): of the worker's [black box](black_box) and, behind it, of the
//! [board], if there is one. The worker maps both before it says that it is ready. Before a batch whose inputs refer
//! to shared values that the worker has not been given yet, the coordinator sends [`message::ToWorker::Here`], and
//! the descriptors with it, at most [`descriptors::MOST`] with each.
//!
//! All words are `u64` in the machine's byte order, and both sides touch them with atomic instructions only.
//!
//! **The order of accesses to the box.** Coordinator and worker see each other's words only if both keep to these rules:
//!
//! - Before it sends a batch the coordinator sets words 0, 1 and 4, and no others. The worker does not touch the box from its
//!   last reply on until it has read the next batch.
//! - Before its first ticket of a batch the worker counts the upper half of word 2 up and sets the lower to 0, in one store, and
//!   then sets word 1 to 0.
//! - Before each call the worker stores word 3, and then takes a ticket: by compare-and-exchange it adds one to the upper half
//!   of word 0, if that is below the lower half. If it is not, the batch ends here.
//! - The worker records a call in this order: its output, its entry, and then word 1 plus one, with
//!   release order. Word 1 counts all finished calls of the batch. A call that failed or printed something has two entries: the
//!   first, with the topmost bit set in its length, is of its [`message::CallEnd`], and the second of its output.
//! - When the worker has sent outputs over the link, it throws them away: one store to word 2 (upper half plus one; lower half:
//!   how many calls of the batch have been answered), a release fence, and then word 1 with the same number. The next entry is
//!   entry 0 again, and the next output begins at the first word for outputs. Both belong to the call that the
//!   lower half of word 2 names.
//! - Words 5 and 6 are never set back. They count for as long as the link lives.
//!
//! **The lane.** Either side may put a large payload into the [lane], the last part of the box, and set [`frame::SHARED`] in
//! the payload's length. Then three numbers stand in the payload's place, `u32`, little-endian: a word of the lane;
//! how many bytes of the payload stand before that word; and the length of the large piece that begins at the word, which is
//! best received into memory of its own. The third number is 0 if there is no large piece, and in all messages but
//! [`message::Reply::Call`]. The rest of the payload follows the piece. A receiver that has copied a payload out, or is done
//! with it, adds one to a counter: word 5 for the coordinator's payloads, word 6 for the worker's.
//!
//! **In parts.** A payload that does not fit into the lane, of 1 MiB or more, may cross it in parts. Then the first number is
//! 4,294,967,295, the second says how many bytes stand before the large piece, and the third how long that piece is. When the
//! receiver has read this, and so has taken all that was sent before, it writes a byte to the socket. The sender then puts parts
//! of [256 KiB](memory::ferry::PART) into the second half of the lane, one behind the other, and in front again when there is no
//! room for another; the last may be shorter. Behind each it writes a byte to the socket, and the receiver writes one when it has
//! taken the part. No more parts are under way than have room. The bytes are ones. All of them come before the sender's next frame.
//!
//! **Mail.** A few bytes for a reader that is awake need not go by the socket: [`spin`] has mail for both directions in the box.
//! Mail and socket are one stream of bytes. A worker need not use it: while the word says that its reader sleeps (it is 0 at
//! first), nothing is posted to it, and what it sends by the socket is read. Of the 528 words of a direction the sender writes
//! 0 (how often it has posted), 1 (the bytes of the mail), 2 (how many bytes it had sent by the socket since they met) and 3 (the number of a
//! byte on the socket that is a nudge, from 1), and the reader 8 (what word 0 was when it took the mail), 9 (whether it is
//! awake) and 10 (how many bytes it has received by the socket). The mail stands from word 16 on. The sender posts when word 9
//! is 1, words 0 and 8 are equal, and word 10 is all that it has sent. It stores the bytes and word 0, then looks at word 9: if
//! that is 0 now, it stores word 3 and sends a byte. A reader stores 0 in word 9 and looks at word 0 again before it sleeps.
//! Between the store and the look of each there is a full fence.
//!
//! **The board.** A coordinator may put a single large input onto the [board], memory that it shares with all of its
//! workers. The numbers of its words go on from the lane's: where the first number is 524,288 or more, the payload begins at
//! that number less 524,288 on the board, and the second number is 0. The payload does not change until the worker has
//! answered the batch.

pub mod agent;
pub mod memory;
mod pages;
mod signal;
pub mod value;
pub mod wire;

pub use memory::{black_box, board, lane};
pub use value::{ValueError, decode, encode, parcel};
pub use wire::{descriptors, frame, handshake, link, message, spin};

pub use signal::signal_name;
pub use wire::link::{Link, LinkError};
