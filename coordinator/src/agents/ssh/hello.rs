//! What is said on ssh's pipe before an agent speaks to the broker over it.
//!
//! A shell may print anything there before it runs what it was told to. So each side waits for a line that begins with a mark.
//! The coordinator then says [`Hello`], and the agent answers with such a line when its bytes may be joined to the broker's.

use std::io::{self, Read, Write};

use protocol::agent::{self, Unreadable};
use serde::{Deserialize, Serialize};

/// What each line begins with that is not noise.
pub(crate) const MARK: &str = "coordinator-over-ssh:";
/// As whom agents and the coordinator come to the broker of a run.
pub(crate) const USER: &str = "run";
/// The longest hello, in bytes.
const MOST: usize = 4096;

/// What an agent has to know before it can speak to the broker.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// What lets it in at the broker.
    pub(crate) password: String,
    pub(crate) name: String,
    /// How many calls it runs at once, if that was said.
    pub(crate) slots: Option<u32>,
    /// A number for this machine in this run, which no other has.
    pub(crate) home: u64,
    /// The how manieth process it is there.
    pub(crate) life: u64,
}

/// What the other machine says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// The program is not there, and can be sent.
    Lacks,
    /// The program can't run there: which architecture it is.
    Foreign(String),
    /// An agent waits for its hello.
    Waits,
    /// What follows is for the broker.
    Open,
}

/// An agent says that it waits for its hello.
pub(crate) fn wait(to: &mut impl Write) -> io::Result<()> {
    say(to, "waits")
}

/// An agent says that what follows is for the broker.
pub(crate) fn open(to: &mut impl Write) -> io::Result<()> {
    say(to, "open")
}

fn say(to: &mut impl Write, what: &str) -> io::Result<()> {
    // Whoever has printed before may not have ended its line.
    to.write_all(format!("\n{MARK} {what}\n").as_bytes())?;
    to.flush()
}

/// What a line says. `None` if it is noise.
pub(super) fn read_line(line: &str) -> Option<Said> {
    let said = line.trim_end().strip_prefix(MARK)?.trim_start();
    match said.split_once(' ').unwrap_or((said, "")) {
        ("lacks", "") => Some(Said::Lacks),
        ("foreign", machine) => Some(Said::Foreign(machine.to_owned())),
        ("waits", "") => Some(Said::Waits),
        ("open", "") => Some(Said::Open),
        _ => None,
    }
}

impl Hello {
    /// Sends it, with its length in front.
    pub(super) fn send(&self, to: &mut impl Write) -> io::Result<()> {
        let bytes = agent::encode(self, &[]).map_err(io::Error::other)?;
        // It is shorter than any message, and those fit.
        let length = (bytes.len() as u32).to_le_bytes();
        to.write_all(&[&length[..], &bytes].concat())?;
        to.flush()
    }

    /// Takes one, and no byte more.
    pub(crate) fn take(from: &mut impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MOST {
            return Err(io::Error::other(format!(
                "the coordinator's greeting has {length} bytes, of {MOST} at most"
            )));
        }
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        match agent::decode(&bytes) {
            Ok((hello, _)) => Ok(hello),
            Err(Unreadable::Version(version)) => Err(io::Error::other(format!(
                "the coordinator speaks version {version} of the messages, and this is version {}: install the same \
                 version on both",
                agent::VERSION
            ))),
            Err(Unreadable::Nonsense(why)) => Err(io::Error::other(format!(
                "the coordinator's greeting makes no sense: {why}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn a_hello_comes_through_and_nonsense_is_refused() {
        let hello = Hello {
            password: "secret".to_owned(),
            name: "box2".to_owned(),
            slots: Some(8),
            home: 7,
            life: 1,
        };
        let mut bytes = Vec::new();
        hello.send(&mut bytes).unwrap();
        bytes.extend(b"INFO");
        let mut rest = &bytes[..];
        assert!(Hello::take(&mut rest).unwrap() == hello);
        assert_eq!(rest, b"INFO");
        for cut in 0..bytes.len() - 4 {
            assert!(Hello::take(&mut &bytes[..cut]).is_err());
        }
        assert!(Hello::take(&mut &[0xff; 5000][..]).is_err());
        assert!(Hello::take(&mut &[8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8][..]).is_err());
    }

    #[test]
    fn noise_is_not_taken_for_what_is_said() {
        let mut bytes = b"Welcome to box2".to_vec();
        wait(&mut bytes).unwrap();
        open(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let said: Vec<Said> = text.lines().filter_map(read_line).collect();
        assert_eq!(said, [Said::Waits, Said::Open]);
        assert_eq!(
            read_line("coordinator-over-ssh: foreign aarch64\n"),
            Some(Said::Foreign("aarch64".to_owned()))
        );
        assert_eq!(read_line("coordinator-over-ssh: sings"), None);
        assert_eq!(read_line("echo coordinator-over-ssh: open"), None);
    }
}
