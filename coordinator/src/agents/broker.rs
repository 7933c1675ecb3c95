//! The broker, as coordinators and agents use it: one thread with one runtime, and the only file that names the client.
//!
//! It carries messages and says who is there. It stores nothing: while it is away, nothing is given to the client, which would
//! keep it and deliver stale beats when the broker is back. Whoever sends something sends it again until it is answered.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use async_nats::{Client, ClientError, ConnectOptions, Message, ServerInfo, StatusCode};
use futures_util::StreamExt as _;
use futures_util::stream::{SelectAll, select_all};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::rights::Refusal;

/// How often a connection is tried: a cut that nobody noticed for minutes would be longer than a lease.
pub(crate) const PING: Duration = Duration::from_secs(2);
/// The longest time between two attempts to connect again.
const RECONNECT: Duration = Duration::from_secs(1);
/// How long one attempt may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How many messages may wait for whoever hears them. Beyond that the client drops some, and they are sent again.
const CAPACITY: usize = 1 << 16;
/// How many messages the client may have that it has not sent. It keeps them while the broker is away.
const UNSENT: usize = 128;
/// How long what was sent last may take on its way when the connection is closed.
const FLUSH: Duration = Duration::from_secs(1);
/// How long the thread may take to end beyond that.
const TO_END: Duration = Duration::from_secs(1);

/// How a broker lets somebody in.
#[derive(Debug, Clone)]
pub(crate) enum Credentials {
    /// With a name and a password: a broker of this run alone.
    Password { user: String, password: String },
    /// With a key, of which the broker knows the public half.
    Key {
        seed: String,
        /// The file with the certificates that the broker may prove itself by, if not those that this system trusts.
        trusts: Option<PathBuf>,
    },
    /// With nothing.
    None,
}

/// A broker, and who one is there.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) url: String,
    pub(crate) credentials: Credentials,
    /// What answers to one's own requests begin with.
    pub(crate) inbox: String,
    /// How often the connection is tried. It is taken for cut when the second answer is missing.
    pub(crate) ping: Duration,
    /// A broker that lets everybody in, or does not encrypt, will do.
    pub(crate) insecure: bool,
}

/// What a broker brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Connected,
    /// It is away. The client tries to connect again, for as long as this lives.
    Disconnected,
    Message {
        subject: String,
        payload: Vec<u8>,
        /// Where an answer is wanted.
        reply: Option<String>,
    },
    /// Nobody has taken what was asked.
    NobodyTakes,
    /// The broker does not allow something.
    Refused(Refusal),
    /// The broker can't be used, and will not be tried again: why.
    Ended(String),
}

#[derive(Debug)]
enum Order {
    Send {
        subject: String,
        payload: Vec<u8>,
        /// Somebody must be there to take it.
        asks: bool,
    },
    /// Say when all that was sent before has left.
    Flush(std::sync::mpsc::Sender<()>),
}

/// A connection to a broker. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Broker {
    orders: Option<UnboundedSender<Order>>,
    /// Dropping it tells the thread to end, also while it waits for the client.
    lives: Option<oneshot::Sender<()>>,
    is_connected: Arc<AtomicBool>,
    /// Its sender is dropped when the thread has ended.
    has_ended: Option<std::sync::mpsc::Receiver<()>>,
}

impl Broker {
    /// Connects to a broker, for as long as that takes, and hears what comes under these subjects. `heard` is called on the
    /// broker's thread, and must not block.
    pub(crate) fn connect(
        access: Access,
        subjects: Vec<String>,
        heard: impl Fn(Event) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (orders, from) = unbounded_channel();
        let (lives, ends) = oneshot::channel();
        let (ended, has_ended) = std::sync::mpsc::channel();
        let is_connected = Arc::new(AtomicBool::new(false));
        let session = Session {
            access,
            subjects,
            heard: Arc::new(heard),
            is_connected: Arc::clone(&is_connected),
        };
        let body = move || {
            runtime.block_on(session.run(from, ends));
            // It may be asking for an address, which nobody needs any more.
            runtime.shutdown_background();
            drop(ended);
        };
        thread::Builder::new()
            .name("broker".to_owned())
            .spawn(body)?;
        Ok(Broker {
            orders: Some(orders),
            lives: Some(lives),
            is_connected,
            has_ended: Some(has_ended),
        })
    }

    /// Sends a message. Returns `false`, and forgets it, while the broker is away.
    pub(crate) fn publish(&self, subject: &str, payload: Vec<u8>) -> bool {
        self.order(subject, payload, false)
    }

    /// As [`publish`](Self::publish). If nobody is there to take the message, the broker says so.
    pub(crate) fn ask(&self, subject: &str, payload: Vec<u8>) -> bool {
        self.order(subject, payload, true)
    }

    fn order(&self, subject: &str, payload: Vec<u8>, asks: bool) -> bool {
        self.give(Order::Send {
            subject: subject.to_owned(),
            payload,
            asks,
        })
    }

    fn give(&self, order: Order) -> bool {
        let orders = self.orders.as_ref().filter(|_| self.is_connected());
        orders.is_some_and(|orders| orders.send(order).is_ok())
    }

    /// Closes the connection, and does not wait until it is closed. For a process that is about to end, whose broker may not
    /// answer any more.
    pub(crate) fn let_go(mut self) {
        self.has_ended = None;
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Acquire)
    }

    /// Waits until all that was sent has left, for at most `limit`.
    pub(crate) fn flush(&self, limit: Duration) {
        let (done, is_done) = std::sync::mpsc::channel();
        if self.give(Order::Flush(done)) {
            // Nobody can do anything about what does not leave in time.
            let _ = is_done.recv_timeout(limit);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.orders = None;
        self.lives = None;
        if let Some(has_ended) = self.has_ended.take() {
            // Nothing is ever sent. A network that swallows all must not keep this process.
            let _ = has_ended.recv_timeout(FLUSH + TO_END);
        }
    }
}

/// What the broker's thread has.
struct Session {
    access: Access,
    subjects: Vec<String>,
    heard: Arc<dyn Fn(Event) + Send + Sync>,
    is_connected: Arc<AtomicBool>,
}

impl Session {
    async fn run(self, mut orders: UnboundedReceiver<Order>, mut ends: oneshot::Receiver<()>) {
        let (changes, mut changed) = unbounded_channel();
        let client = match self.options(changes).connect(&self.access.url).await {
            Ok(client) => client,
            Err(error) => {
                return (self.heard)(Event::Ended(format!(
                    "{} can't be used: {error}",
                    self.access.url
                )));
            }
        };
        let inbox = client.new_inbox();
        let mut messages = match self.subscribe(&client, &inbox).await {
            Ok(messages) => messages,
            Err(why) => return (self.heard)(Event::Ended(why)),
        };
        // One order at a time is given to the client, which makes that wait if the network takes no more. Whatever else happens is
        // heard meanwhile: it may be that the broker is away.
        let mut sending = None;
        loop {
            tokio::select! {
                change = changed.recv() => match self.changes(change, &client) {
                    Ok(()) => {}
                    Err(why) => return (self.heard)(Event::Ended(why)),
                },
                () = wait(&mut sending) => sending = None,
                order = orders.recv(), if sending.is_none() => match order {
                    Some(order) => sending = Some(Box::pin(send(&client, order, &inbox))),
                    None => break,
                },
                message = messages.next() => match message {
                    Some(message) => self.hear(message),
                    None => break,
                },
                _ = &mut ends => break,
            }
            if !self.is_connected.load(Ordering::Acquire) {
                // It would come when the broker is back, and be stale.
                sending = None;
                while orders.try_recv().is_ok() {}
            }
        }
        // What was said last should arrive, if the broker is there.
        let last = async {
            if sending.is_some() {
                wait(&mut sending).await;
            }
            while let Ok(order) = orders.try_recv() {
                send(&client, order, &inbox).await;
            }
            client.flush().await
        };
        let _ = tokio::time::timeout(FLUSH, last).await;
    }

    /// Something has become of the connection. An error says why the broker can't be used.
    fn changes(&self, change: Option<async_nats::Event>, client: &Client) -> Result<(), String> {
        match change {
            Some(async_nats::Event::Connected) => {
                self.trusts(&client.server_info())?;
                self.is_connected.store(true, Ordering::Release);
                (self.heard)(Event::Connected);
            }
            Some(async_nats::Event::Disconnected) => {
                self.is_connected.store(false, Ordering::Release);
                (self.heard)(Event::Disconnected);
            }
            Some(async_nats::Event::ServerError(error)) => {
                (self.heard)(Event::Refused(Refusal::read(&error.to_string())));
            }
            Some(async_nats::Event::ClientError(error)) if is_refusal(&error) => {
                let url = &self.access.url;
                return Err(format!("{url} does not let this user in: {error}"));
            }
            Some(async_nats::Event::ClientError(error)) => log::debug!("broker: {error}"),
            _ => {}
        }
        Ok(())
    }

    fn options(&self, changes: UnboundedSender<async_nats::Event>) -> ConnectOptions {
        let is_encrypted = self.access.url.starts_with("tls://");
        let options = ConnectOptions::new()
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempts| {
                RECONNECT.min(Duration::from_millis(50 * attempts as u64))
            })
            .connection_timeout(CONNECT)
            .ping_interval(self.access.ping)
            .subscription_capacity(CAPACITY)
            .client_capacity(UNSENT)
            .require_tls(is_encrypted)
            .custom_inbox_prefix(&self.access.inbox)
            .event_callback(move |event| {
                // The session has ended if it does not want to hear it.
                let _ = changes.send(event);
                async {}
            });
        // A broker names others of its cluster. Without TLS only the one that was asked for is known to be on this machine.
        let options = match is_encrypted || self.access.insecure {
            true => options,
            false => options.ignore_discovered_servers(),
        };
        match &self.access.credentials {
            Credentials::Password { user, password } => {
                options.user_and_password(user.clone(), password.clone())
            }
            Credentials::Key { seed, trusts } => {
                let options = options.nkey(seed.clone());
                match trusts {
                    Some(file) => options.add_root_certificates(file.clone()),
                    None => options,
                }
            }
            Credentials::None => options,
        }
    }

    async fn subscribe(
        &self,
        client: &Client,
        inbox: &str,
    ) -> Result<SelectAll<async_nats::Subscriber>, String> {
        let mut all = Vec::new();
        for subject in self.subjects.iter().map(String::as_str).chain([inbox]) {
            let subscriber = client.subscribe(subject.to_owned()).await;
            all.push(
                subscriber
                    .map_err(|error| format!("`{subject}` can't be subscribed to: {error}"))?,
            );
        }
        Ok(select_all(all))
    }

    fn hear(&self, message: Message) {
        let event = match message.status {
            Some(StatusCode::NO_RESPONDERS) => Event::NobodyTakes,
            Some(status) => return log::debug!("broker: {status} for {}", message.subject),
            None => Event::Message {
                subject: message.subject.to_string(),
                payload: message.payload.into(),
                reply: message.reply.map(|reply| reply.to_string()),
            },
        };
        (self.heard)(event);
    }

    /// Whether a broker may carry what machines are told to run.
    fn trusts(&self, info: &ServerInfo) -> Result<(), String> {
        if self.access.insecure {
            return Ok(());
        }
        let url = &self.access.url;
        if !info.auth_required {
            return Err(format!(
                "{url} lets everybody in, so anybody could tell its machines what to run: give the broker users (`coordinator \
                 agents --new-keys DIR` makes their keys), or say --insecure"
            ));
        }
        // What the broker says of encryption proves nothing: whoever is on the way can say it, too. With tls:// the client
        // goes on only if the connection is encrypted.
        match url.starts_with("tls://") || is_loopback(url) {
            true => Ok(()),
            false if info.tls_required => Err(format!(
                "{url} would also be used without encryption if somebody on the way wanted that: say tls:// in place of \
                 nats://, or say --insecure"
            )),
            false => Err(format!(
                "{url} does not encrypt, so anybody on the way could read and change what is run: give the broker a \
                 certificate, or say --insecure"
            )),
        }
    }
}

/// Whether a broker does not want this user. The client has no kind for that, and would try again for ever.
fn is_refusal(error: &ClientError) -> bool {
    let said = error.to_string().to_lowercase();
    said.contains("authorization") || said.contains("authentication")
}

/// What to say of a broker that has not let this user in yet, nor turned it away.
pub(crate) fn silence(url: &str) -> String {
    format!(
        "the broker {url} does not answer, or with a certificate that is not trusted here: see that a nats-server runs \
         there, and that you use a key of that broker"
    )
}

/// Whether a broker is on this machine.
fn is_loopback(url: &str) -> bool {
    let host = url.split("://").last().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let is_name = host == "localhost" || host.starts_with("localhost:");
    let address = host
        .parse::<std::net::SocketAddr>()
        .map(|address| address.ip());
    let address = address.or_else(|_| host.trim_matches(['[', ']']).parse());
    is_name || address.is_ok_and(|address| address.is_loopback())
}

/// An order that is being given to the client.
type Sending<'s> = Pin<Box<dyn Future<Output = ()> + 's>>;

/// Waits until an order is given to the client; for ever if there is none.
async fn wait(sending: &mut Option<Sending<'_>>) {
    match sending {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}

async fn send(client: &Client, order: Order, inbox: &str) {
    let sent = match order {
        Order::Send {
            subject,
            payload,
            asks: true,
        } => {
            client
                .publish_with_reply(subject, inbox.to_owned(), payload.into())
                .await
        }
        Order::Send {
            subject,
            payload,
            asks: false,
        } => client.publish(subject, payload.into()).await,
        Order::Flush(done) => {
            // If the broker is away, that would take until it is back.
            let _ = tokio::time::timeout(FLUSH, client.flush()).await;
            // Whoever wanted to know may have stopped waiting.
            let _ = done.send(());
            return;
        }
    };
    if let Err(error) = sent {
        log::debug!("broker: a message was not sent: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_names() {
        for url in [
            "nats://127.0.0.1:4222",
            "localhost",
            "nats://u:p@[::1]:4222",
            "127.0.0.2",
            "tls://localhost:1",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "nats://hub",
            "nats://localhost.example.org:4222",
            "nats://127.0.0.1@hub:4222",
            "10.0.0.1:4222",
            "",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
