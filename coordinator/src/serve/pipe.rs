//! The way of an agent to a broker on another machine: its own stdin and stdout, which ssh carries there.
//!
//! The agent's client speaks to brokers over TCP. So it is given an address on this machine, and what comes there goes into the
//! pipe.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use worker::private::spawn::above_stdio;

use crate::agents::broker::{Access, Credentials};
use crate::agents::ssh::hello::{self, Hello};

/// How often the client tries its connection. A pipe stands still while the coordinator is stopped, which may be as long as a
/// pause, and what follows from silence is decided by leases. That a pipe has ended is seen without asking.
const PING: Duration = Duration::from_secs(1800);
/// How many bytes travel at a time.
const PIECE: usize = 64 << 10;

/// A pipe to a broker.
#[derive(Debug)]
pub(super) struct Pipe {
    stdin: File,
    stdout: File,
}

impl Pipe {
    /// Takes this process's stdin and stdout for itself. Nothing else in this program, and nothing that it starts, may read or
    /// write there: stdin is empty from now on, and what is printed goes to stderr.
    pub(super) fn take() -> io::Result<Self> {
        let own = |fd: OwnedFd| -> io::Result<File> { Ok(above_stdio(fd)?.into()) };
        let stdin = own(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?)?;
        let stdout = own(rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?)?;
        let nothing = File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        rustix::stdio::dup2_stdout(io::stderr())?;
        Ok(Pipe { stdin, stdout })
    }

    /// Asks the coordinator what an agent has to know.
    pub(super) fn ask(&mut self) -> io::Result<Hello> {
        hello::wait(&mut self.stdout)?;
        Hello::take(&mut self.stdin)
    }

    /// Makes an address that leads into the pipe, for one connection. `over` is called when the pipe or the connection has
    /// ended: neither can come back.
    pub(super) fn open(
        mut self,
        hello: &Hello,
        over: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Access> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let access = Access {
            url: format!("nats://{}", listener.local_addr()?),
            credentials: Credentials::Password {
                user: hello::USER.to_owned(),
                password: hello.password.clone(),
            },
            inbox: format!("_INBOX_{}", hello.name),
            ping: PING,
            insecure: false,
        };
        hello::open(&mut self.stdout)?;
        let thread = thread::Builder::new().name("pipe".to_owned());
        let over = Arc::new(over);
        thread.spawn(move || {
            if let Err(error) = self.carry(&listener, &over) {
                log::warn!("this agent can't reach its broker: {error}");
            }
            over();
        })?;
        Ok(access)
    }

    /// Carries one connection's bytes, until it or the pipe ends.
    fn carry<F>(self, listener: &TcpListener, over: &Arc<F>) -> io::Result<()>
    where
        F: Fn() + Send + Sync + 'static,
    {
        let (connection, _) = listener.accept()?;
        connection.set_nodelay(true)?;
        let back = connection.try_clone()?;
        let (stdin, stdout, over) = (self.stdin, self.stdout, Arc::clone(over));
        let thread = thread::Builder::new().name("pipe in".to_owned());
        thread.spawn(move || {
            copy(stdin, &connection);
            over();
            shut(&connection);
        })?;
        copy(&back, stdout);
        shut(&back);
        Ok(())
    }
}

fn shut(connection: &TcpStream) {
    // It may be closed already.
    let _ = connection.shutdown(Shutdown::Both);
}

/// Copies until either end is closed.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return,
            Ok(len) => match to.write_all(&piece[..len]) {
                Ok(()) => {}
                Err(_) => return,
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
