//! A template: a worker that has run the initializer, and is copied instead of being given calls. A copy is a worker
//! from the start, with all that the initializer has left in memory.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use protocol::descriptors::{Giving, Taken, Taking};
use protocol::frame::Caps;
use protocol::link::{self, Link, LinkError, Socket};
use protocol::message::{TemplateReply, ToWorker, Welcome};

use crate::os::{self, NoCopy, Side};
use crate::output;

/// Why a process is no template any more.
pub(crate) enum End {
    /// It is to leave with this exit code.
    Exit(i32),
    /// This process is a copy of the template.
    Copy(Birth),
}

/// What a copy begins with.
pub(crate) struct Birth {
    socket: Socket,
    lifeline: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// The memory that it shares with its coordinator.
    memory: Vec<OwnedFd>,
    welcome: Welcome,
}

impl Birth {
    /// Of the descriptors that came with a message.
    fn new(welcome: Welcome, descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next();
        let birth = Birth {
            socket: link::socket(next()?),
            lifeline: next()?,
            stdout: next()?,
            stderr: next()?,
            memory: descriptors.collect(),
            welcome,
        };
        let is_complete = birth.memory.len() == 1 + usize::from(birth.welcome.board);
        is_complete.then_some(birth)
    }

    /// Gives the copy, which this process is, all that the template's process and it must not have in common. Returns its
    /// socket, the welcome, and the descriptors of the memory; `None` if nobody wants it any more.
    pub(crate) fn begin(self) -> Result<Option<(Socket, Welcome, Vec<OwnedFd>)>, String> {
        let is_wanted = os::become_separate(self.lifeline, self.stdout, self.stderr)
            .map_err(|error| format!("a copy can't be separated from its template: {error}"))?;
        Ok(is_wanted.then_some((self.socket, self.welcome, self.memory)))
    }
}

/// Makes copies of this process, which took `age` to be ready, until the coordinator ends the conversation. Returns in
/// each copy, too.
pub(crate) fn serve(socket: Taking, taken: &Taken, age: Duration) -> Result<End, LinkError> {
    let mut link = Link::new(socket);
    // What was slow to be made ready may take a tenth longer.
    os::use_huge_pages(age / 10);
    link.send(&TemplateReply::Ready, &[])?;
    loop {
        match link.receive::<ToWorker>(Caps::FULL) {
            Ok((ToWorker::Copy(welcome), _)) => {
                if let Some(birth) = copy(&mut link, welcome, taken.take())? {
                    return Ok(End::Copy(birth));
                }
            }
            Ok((ToWorker::Exit(code), _)) => return Ok(End::Exit(code)),
            Ok((other, _)) => return Err(LinkError::Malformed(format!("{other:?} out of turn"))),
            Err(LinkError::Closed) => return Ok(End::Exit(0)),
            Err(error) => return Err(error),
        }
    }
}

/// Makes a copy, and returns in both processes: in the copy with what that begins with, and in the template when it has
/// answered.
fn copy(
    link: &mut Link<Taking>,
    welcome: Welcome,
    descriptors: Vec<OwnedFd>,
) -> Result<Option<Birth>, LinkError> {
    // The copy would print what stands in the buffers a second time.
    output::flush();
    os::flush_c_streams();
    let Some(birth) = Birth::new(welcome, descriptors) else {
        let why = "this process has no room for further files (ulimit -n)".to_owned();
        link.send(&TemplateReply::Failed(why), &[])?;
        return Ok(None);
    };
    match os::copy() {
        Ok(Side::Copy) => return Ok(Some(birth)),
        Ok(Side::Original(pid, pidfd)) => {
            let giving = Giving {
                stream: link.stream_mut(),
                descriptors: &[pidfd.as_fd()],
            };
            Link::new(giving).send(&TemplateReply::Copied(pid), &[])?;
        }
        Err(NoCopy::Never(why)) => link.send(&TemplateReply::Refused(why), &[])?,
        Err(NoCopy::Failed(error)) => {
            link.send(&TemplateReply::Failed(error.to_string()), &[])?;
        }
    }
    Ok(None)
}
