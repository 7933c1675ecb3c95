//! The broker's client against a real `nats-server`: what comes through, who is there, and what happens when it is away.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::broker::{Access, Broker, Credentials, Event, PING};

/// How long a thing may take that comes soon.
const SOON: Duration = Duration::from_secs(20);

/// A `nats-server` on the loopback interface. `None`, with a message, where there is none.
struct Server {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Server {
    fn start(port: Option<u16>, users: &[&str]) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let path = directory.path().display();
        let mut command = Command::new("nats-server");
        command
            .args([
                "-a",
                "127.0.0.1",
                "-p",
                &port.map_or(-1, i32::from).to_string(),
            ])
            .args(["--ports_file_dir", &path.to_string()])
            .args(users)
            .stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            assert!(std::env::var_os("CI").is_none(), "CI has no nats-server");
            println!("skipped: there is no nats-server here");
            return None;
        };
        let file = directory
            .path()
            .join(format!("nats-server_{}.ports", child.id()));
        let port = port_in(&file);
        Some(Server {
            child,
            port,
            _directory: directory,
        })
    }

    fn access(&self, password: &str) -> Access {
        Access {
            url: format!("nats://127.0.0.1:{}", self.port),
            credentials: Credentials::Password {
                user: "u".to_owned(),
                password: password.to_owned(),
            },
            inbox: "_INBOX_u".to_owned(),
            ping: PING,
            insecure: false,
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The port that the server says it listens on, when it does.
fn port_in(file: &Path) -> u16 {
    let until = Instant::now() + SOON;
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut port = text
            .split(|byte: char| !byte.is_ascii_digit())
            .filter_map(|number| number.parse().ok());
        if let Some(port) = port.rfind(|port: &u32| *port > 1023) {
            return u16::try_from(port).unwrap();
        }
        assert!(Instant::now() < until, "the server did not start: {text}");
        std::thread::yield_now();
    }
}

const USER: [&str; 4] = ["--user", "u", "--pass", "p"];

fn connect(access: Access, subjects: &[&str]) -> (Broker, Receiver<Event>) {
    let (to, events) = channel();
    let subjects = subjects
        .iter()
        .map(|subject| (*subject).to_owned())
        .collect();
    let broker = Broker::connect(access, subjects, move |event| {
        let _ = to.send(event);
    });
    (broker.unwrap(), events)
}

fn expect(events: &Receiver<Event>, wanted: &Event) {
    let mut event = events.recv_timeout(SOON).expect("something happens");
    // Where an answer is wanted is the client's affair.
    if let Event::Message { reply, .. } = &mut event {
        *reply = None;
    }
    assert_eq!(event, *wanted);
}

fn message(subject: &str, payload: &[u8]) -> Event {
    Event::Message {
        subject: subject.to_owned(),
        payload: payload.to_vec(),
        reply: None,
    }
}

#[test]
fn messages_come_through_and_an_empty_room_is_told_of() {
    let Some(server) = Server::start(None, &USER) else {
        return;
    };
    let (one, of_one) = connect(server.access("p"), &["co.main.up.*"]);
    expect(&of_one, &Event::Connected);
    let (two, of_two) = connect(server.access("p"), &["co.main.down.a"]);
    expect(&of_two, &Event::Connected);
    // A subscription is there when a message that was sent behind it has come.
    assert!(one.publish("co.main.up.self", b"me".to_vec()));
    expect(&of_one, &message("co.main.up.self", b"me"));
    for number in 0..100_u8 {
        assert!(two.ask("co.main.up.a", vec![number]));
    }
    for number in 0..100_u8 {
        expect(&of_one, &message("co.main.up.a", &[number]));
    }
    assert!(one.publish("co.main.down.a", vec![7; 400_000]));
    expect(&of_two, &message("co.main.down.a", &[7; 400_000]));
    drop(one);
    // The broker knows at once that nobody is there.
    let until = Instant::now() + SOON;
    loop {
        assert!(two.ask("co.main.up.a", b"anybody".to_vec()));
        if of_two.recv_timeout(Duration::from_millis(100)) == Ok(Event::NobodyTakes) {
            break;
        }
        assert!(Instant::now() < until, "nobody was told");
    }
}

#[test]
fn a_broker_that_comes_back_brings_nothing_stale() {
    let Some(mut server) = Server::start(None, &USER) else {
        return;
    };
    let (broker, events) = connect(server.access("p"), &["co.x"]);
    expect(&events, &Event::Connected);
    server.kill();
    expect(&events, &Event::Disconnected);
    assert!(!broker.publish("co.x", b"stale".to_vec()));
    let again = Server::start(Some(server.port), &USER).unwrap();
    expect(&events, &Event::Connected);
    assert!(broker.publish("co.x", b"fresh".to_vec()));
    expect(&events, &message("co.x", b"fresh"));
    drop(again);
}

#[test]
fn a_broker_that_is_not_there_yet_is_waited_for() {
    let Some(server) = Server::start(None, &USER) else {
        return;
    };
    let (access, port) = (server.access("p"), server.port);
    drop(server);
    let (broker, events) = connect(access, &["co.x"]);
    assert!(!broker.publish("co.x", b"early".to_vec()));
    let _server = Server::start(Some(port), &USER).unwrap();
    expect(&events, &Event::Connected);
    assert!(broker.publish("co.x", b"now".to_vec()));
    expect(&events, &message("co.x", b"now"));
}

fn refusal(events: &Receiver<Event>) -> String {
    match events.recv_timeout(SOON).expect("something happens") {
        Event::Refused(refusal) => refusal.to_string(),
        Event::Ended(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn strangers_are_refused_on_both_sides() {
    let Some(server) = Server::start(None, &USER) else {
        return;
    };
    let (_broker, events) = connect(server.access("wrong"), &["co.x"]);
    let why = refusal(&events).to_lowercase();
    assert!(why.contains("authorization"), "{why}");
    // A broker that lets everybody in could be anybody's.
    let Some(open) = Server::start(None, &[]) else {
        return;
    };
    let (_broker, events) = connect(open.access("p"), &["co.x"]);
    let why = refusal(&events);
    assert!(
        why.contains("lets everybody in") && why.contains("--insecure"),
        "{why}"
    );
    let access = Access {
        insecure: true,
        ..open.access("p")
    };
    let (_broker, events) = connect(access, &["co.x"]);
    expect(&events, &Event::Connected);
}

#[test]
fn what_may_not_be_published_is_told() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("nats.conf");
    let config = "authorization { users = [{ user: u, password: p, permissions: { publish: [\"co.up.*\"], subscribe: [\"co.down.*\", \"_INBOX_u.>\"] } }] }";
    fs::write(&file, config).unwrap();
    let Some(server) = Server::start(None, &["-c", file.to_str().unwrap()]) else {
        return;
    };
    let (broker, events) = connect(server.access("p"), &["co.down.a"]);
    expect(&events, &Event::Connected);
    assert!(broker.publish("co.call", b"run this".to_vec()));
    let why = refusal(&events);
    assert!(why.contains("publish") && why.contains("co.call"), "{why}");
}

/// The way to a server, which swallows all that is sent once it is told to: no connection ends, and nothing comes.
fn black_hole(server: u16) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let is_cut = Arc::new(AtomicBool::new(false));
    let cut = Arc::clone(&is_cut);
    let carry = move |mut from: TcpStream, mut to: TcpStream| {
        let cut = Arc::clone(&cut);
        std::thread::spawn(move || {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                while cut.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                if to.write_all(&bytes[..read]).is_err() {
                    return;
                }
            }
        });
    };
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                return;
            };
            carry(client.try_clone().unwrap(), server.try_clone().unwrap());
            carry(server, client);
        }
    });
    (port, is_cut)
}

/// What can't be sent must not keep the client from noticing that, nor from ending.
#[test]
fn a_network_that_swallows_all_is_noticed_and_nothing_of_it_is_sent_later() {
    let Some(server) = Server::start(None, &USER) else {
        return;
    };
    let (port, is_cut) = black_hole(server.port);
    let through = Access {
        url: format!("nats://127.0.0.1:{port}"),
        ..server.access("p")
    };
    let (hears, heard) = connect(server.access("p"), &["co.x"]);
    expect(&heard, &Event::Connected);
    let (broker, events) = connect(through.clone(), &[]);
    expect(&events, &Event::Connected);
    is_cut.store(true, Ordering::SeqCst);
    let mut sent = 0;
    for _ in 0..4000 {
        sent += u32::from(broker.publish("co.x", vec![0; 10_000]));
    }
    assert_eq!(sent, 4000);
    expect(&events, &Event::Disconnected);
    assert!(!broker.is_connected());
    is_cut.store(false, Ordering::SeqCst);
    expect(&events, &Event::Connected);
    assert!(broker.publish("co.x", b"fresh".to_vec()));
    // What the client had taken comes, and what it had not does not.
    let mut stale = 0;
    while heard.recv_timeout(SOON).unwrap() != message("co.x", b"fresh") {
        stale += 1;
    }
    assert!(stale < 2000, "{stale} came late");
    // The same, if it is to end meanwhile.
    is_cut.store(true, Ordering::SeqCst);
    while broker.is_connected() && sent < 8000 {
        sent += u32::from(broker.publish("co.x", vec![0; 10_000]));
    }
    let began = Instant::now();
    drop(broker);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    drop(hears);
}
