//! Who may do what at a broker with the keys that `coordinator agents --new-keys` makes.
//!
//! They need a `nats-server` in PATH, and are skipped without; CI has one.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and says why it is skipped"
)]

mod programs;
mod raw;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, UdpSocket};

use async_nats::{ConnectErrorKind, ConnectOptions};
use protocol::agent::{self, Open};

use programs::{Broker, Ended, wait_until};
use raw::Raw;

fn set(subjects: &[&str]) -> BTreeSet<String> {
    subjects
        .iter()
        .map(|subject| (*subject).to_owned())
        .collect()
}

/// A call that has nothing to do but to end.
const ECHO: [&str; 6] = ["exec", "-j0", "--", "echo", ":::", "a"];

fn assert_refused(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word}: {ended:?}");
    }
}

// ---- Those who may -------------------------------------------------------------------------

#[test]
fn an_agent_serves_a_run_and_can_be_looked_at() {
    let Some(broker) = Broker::with_keys(&[]) else {
        return;
    };
    let nobody = broker.run_as("look", &["agents"]).end();
    assert_refused(&nobody, 1, &["no agent answers"]);
    let _agent = broker.agent("agent", "n1");
    let go = broker.directory.path().join("go");
    let script = format!(
        "until test -e '{}'; do sleep 0.01; done; echo \"$1\"",
        go.display()
    );
    let run = broker.run_as("submit", &["exec", "-j0", "-c", &script, ":::", "a", "b"]);
    run.says("n1 joins with 2 slots");
    // An answer has come too early if the calls had not begun.
    let table = wait_until("both calls run", || {
        let looked = broker.run_as("look", &["agents"]).end();
        assert_eq!(looked.code, Some(0), "{looked:?}");
        let is_busy = |line: &str| line.split_whitespace().take(3).eq(["n1", "2", "2"]);
        looked.stdout.lines().any(is_busy).then_some(looked.stdout)
    });
    let (head, row) = table.split_once('\n').unwrap();
    let heads = ["NAME", "SLOTS", "BUSY", "RUN", "SINCE", "LOAD", "VERSION"];
    assert!(head.split_whitespace().eq(heads), "{table}");
    // Columns stand below their heads.
    let column = |text: &str, word: &str| {
        let at = text.find(word).unwrap_or_else(|| panic!("{word}: {text}"));
        text[..at].chars().count()
    };
    assert_eq!(
        column(row, env!("CARGO_PKG_VERSION")),
        column(head, "VERSION"),
        "{table}"
    );
    assert!(row.contains(": exec"), "{table}");
    let looked = broker.run_as("submit", &["agents", "--json"]).end();
    let object: serde_json::Value = serde_json::from_str(&looked.stdout).unwrap();
    assert_eq!(
        (&object["name"], &object["busy"]),
        (&"n1".into(), &2.into()),
        "{object}"
    );
    fs::write(&go, "").unwrap();
    let ended = run.end();
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "a\nb"),
        "{ended:?}"
    );
}

/// That nobody is there to hear an agent comes to the agent's own inbox.
#[test]
fn an_agent_hears_that_its_run_is_gone() {
    let Some(broker) = Broker::with_keys(&["--each", "a"]) else {
        return;
    };
    let agent = broker.run_as("a", &["agent", "-j1"]);
    agent.says("waits for runs");
    let run = broker.run_as("submit", &["exec", "-j0", "--", "sleep", ":::", "1000"]);
    run.says("a joins with 1 slot");
    // Kills it.
    drop(run);
    agent.says("is gone");
    let run = broker.run_as("submit", &ECHO);
    run.says("a joins with 1 slot");
    assert_eq!(run.end().stdout, "a");
}

#[test]
fn a_broker_is_known_by_its_certificate_and_its_names() {
    let Some(broker) = Broker::with_keys(&["--host", "hub.example.org"]) else {
        return;
    };
    let Some(other) = Broker::with_keys(&[]) else {
        return;
    };
    let key = broker.key("look");
    let look = |url: String| broker.run(&url, Some(&key), &["agents"]).end();
    for name in ["localhost", "127.0.0.1"] {
        let looked = look(format!("tls://{name}:{}", broker.port));
        assert_refused(&looked, 1, &["no agent answers"]);
    }
    // The certificate does not hold for this address, and the other broker's is another.
    let looked = look(format!("tls://127.0.0.2:{}", broker.port));
    assert_refused(&looked, 3, &["certificate that is not trusted"]);
    let looked = look(format!("tls://localhost:{}", other.port));
    assert_refused(&looked, 3, &["certificate that is not trusted"]);
}

// ---- Those who may not ---------------------------------------------------------------------

/// All that anybody might publish on, and subscribe to.
const PUBLISH: [&str; 11] = [
    "co.main.call",
    "co.main.agents",
    "co.main.run.r.all",
    "co.main.run.r.down.a",
    "co.main.run.r.down.b",
    "co.main.run.r.up.a",
    "co.main.run.r.up.b",
    "_INBOX_submit.x",
    "_INBOX_look.x",
    "_INBOX_agent.x",
    "$SYS.REQ.SERVER.PING",
];
const SUBSCRIBE: [&str; 14] = [
    "co.main.call",
    "co.main.agents",
    "co.main.run.*.all",
    "co.main.run.*.down.a",
    "co.main.run.*.down.b",
    "co.main.run.*.down.*",
    "co.main.run.*.up.*",
    "_INBOX_submit.x",
    "_INBOX_look.x",
    "_INBOX_agent.x",
    "_INBOX_a.x",
    "_INBOX_b.x",
    "co.>",
    ">",
];

/// Checks that a user may do this of all that, and nothing else.
fn may_only(broker: &Broker, user: &str, publish: &[&str], subscribe: &[&str]) {
    let raw = Raw::with_key_of(broker, user);
    let refused = raw.refused_to_publish(&PUBLISH);
    assert_eq!(refused, &set(&PUBLISH) - &set(publish), "{user} publishes");
    let refused = raw.refused_to_subscribe(&SUBSCRIBE);
    assert_eq!(
        refused,
        &set(&SUBSCRIBE) - &set(subscribe),
        "{user} subscribes"
    );
}

#[test]
fn each_key_opens_what_its_user_needs_and_no_more() {
    let Some(broker) = Broker::with_keys(&[]) else {
        return;
    };
    may_only(
        &broker,
        "submit",
        &[
            "co.main.call",
            "co.main.agents",
            "co.main.run.r.all",
            "co.main.run.r.down.a",
            "co.main.run.r.down.b",
        ],
        &["co.main.run.*.up.*", "_INBOX_submit.x"],
    );
    may_only(&broker, "look", &["co.main.agents"], &["_INBOX_look.x"]);
    may_only(
        &broker,
        "agent",
        &[
            "co.main.run.r.up.a",
            "co.main.run.r.up.b",
            "_INBOX_submit.x",
            "_INBOX_look.x",
        ],
        &[
            "co.main.call",
            "co.main.agents",
            "co.main.run.*.all",
            "co.main.run.*.down.a",
            "co.main.run.*.down.b",
            "co.main.run.*.down.*",
            "_INBOX_agent.x",
        ],
    );
}

#[test]
fn an_agent_with_a_key_of_its_own_is_no_other() {
    let Some(broker) = Broker::with_keys(&["--each", "a", "b"]) else {
        return;
    };
    assert!(!broker.key("agent").exists());
    may_only(
        &broker,
        "a",
        &["co.main.run.r.up.a", "_INBOX_submit.x", "_INBOX_look.x"],
        &[
            "co.main.call",
            "co.main.agents",
            "co.main.run.*.all",
            "co.main.run.*.down.a",
            "_INBOX_a.x",
        ],
    );
    let other = broker.run_as("a", &["agent", "--name", "b"]).end();
    assert_refused(&other, 2, &["the key is that of the agent a"]);
    // Its key says what it is called.
    let agent = broker.run_as("b", &["agent", "-j1"]);
    agent.says("b waits for runs");
    let run = broker.run_as("submit", &ECHO);
    run.says("b joins with 1 slot");
    assert_eq!(run.end().stdout, "a");
}

#[test]
fn a_stolen_key_neither_submits_nor_serves_unless_it_is_one_for_that() {
    let Some(broker) = Broker::with_keys(&[]) else {
        return;
    };
    // The agent would run what they submit.
    let agent = broker.agent("agent", "n1");
    for user in ["agent", "look"] {
        let ended = broker.run_as(user, &ECHO).end();
        assert_refused(
            &ended,
            3,
            &["may not publish on", "co.main.call", "submit.key"],
        );
        assert_eq!(ended.stdout, "");
        let here = ["exec", "-j1", "--", "echo", ":::", "a"];
        // Where there are workers, the run goes on without agents.
        let ended = broker.run_as(user, &here).end();
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(0), "a"),
            "{ended:?}"
        );
    }
    for user in ["submit", "look"] {
        let ended = broker.run_as(user, &["agent", "--name", user]).end();
        assert_refused(
            &ended,
            3,
            &["may not subscribe to co.main.call", "agent.key"],
        );
    }
    let ended = broker.run_as("agent", &["agents"]).end();
    assert_refused(
        &ended,
        3,
        &["may not publish on co.main.agents", "look.key"],
    );
    let run = broker.run_as("submit", &ECHO);
    run.says("n1 joins");
    assert_eq!(run.end().stdout, "a");
    drop(agent);
}

#[test]
fn a_stranger_does_not_get_in() {
    let Some(broker) = Broker::with_keys(&[]) else {
        return;
    };
    let stranger = nkeys::KeyPair::new_user().seed().unwrap();
    let attempts = [
        ConnectOptions::new(),
        ConnectOptions::with_nkey(stranger.clone()),
        ConnectOptions::with_user_and_password("submit".to_owned(), String::new()),
        ConnectOptions::with_token(raw::seed(&broker, "submit")),
    ];
    for options in attempts {
        let error = Raw::connect(&broker, options).err().unwrap();
        assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation);
    }
    let text = fs::read_to_string(broker.key("submit")).unwrap();
    let file = broker.directory.path().join("stranger.key");
    fs::write(
        &file,
        text.replace(&raw::seed(&broker, "submit"), &stranger),
    )
    .unwrap();
    for words in [&["agent"][..], &["agents"], &ECHO] {
        let ended = broker.run(&broker.url(), Some(&file), words).end();
        assert_refused(&ended, 3, &["does not let this user in"]);
    }
}

// ---- Brokers that are not to be trusted ----------------------------------------------------

#[test]
fn a_broker_that_lets_everybody_in_is_refused() {
    let Some(broker) = Broker::plain(&["-a", "127.0.0.1"]) else {
        return;
    };
    let url = format!("nats://127.0.0.1:{}", broker.port);
    for words in [&["agent"][..], &["agents"], &ECHO] {
        let ended = broker.run(&url, None, words).end();
        assert_refused(&ended, 3, &["lets everybody in", "--insecure"]);
    }
    let agent = broker.run(&url, None, &["agent", "--insecure", "--name", "n1"]);
    agent.says("waits for runs");
    let mut words = ECHO.to_vec();
    words.insert(1, "--insecure");
    let run = broker.run(&url, None, &words);
    run.says("n1 joins");
    assert_eq!(run.end().stdout, "a");
}

/// An address of this machine by which others reach it. Nothing is sent to find it.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn a_broker_that_does_not_encrypt_is_refused_unless_it_is_here() {
    let Some(address) = outer_address() else {
        println!("skipped: this machine has no address but the loopback interface's");
        return;
    };
    let users = ["--user", "u", "--pass", "p"];
    let Some(broker) = Broker::plain(&users) else {
        return;
    };
    let here = format!("nats://u:p@127.0.0.1:{}", broker.port);
    let there = format!("nats://u:p@{address}:{}", broker.port);
    for words in [&["agent"][..], &["agents"], &ECHO] {
        let ended = broker.run(&there, None, words).end();
        assert_refused(&ended, 3, &["does not encrypt", "--insecure"]);
        assert!(!ended.stderr.contains("u:p@"), "{ended:?}");
    }
    let agent = broker.run(&here, None, &["agent", "--name", "n1"]);
    agent.says("waits for runs");
    wait_until("an answer by way of there", || {
        let looked = broker.run(&there, None, &["agents", "--insecure"]).end();
        looked.stdout.contains("n1").then_some(())
    });

    // One that does encrypt has to be told so: somebody on the way could say that it does not.
    let Some(broker) = Broker::with_keys(&["--host", &address.to_string()]) else {
        return;
    };
    let key = broker.key("look");
    let look = |scheme: &str| {
        let url = format!("{scheme}://{address}:{}", broker.port);
        broker.run(&url, Some(&key), &["agents"]).end()
    };
    assert_refused(&look("nats"), 3, &["say tls://"]);
    assert_refused(&look("tls"), 1, &["no agent answers"]);
}

// ---- Agents that are not to be trusted -----------------------------------------------------

#[test]
fn an_agent_of_another_version_and_one_that_talks_rubbish_cost_a_line() {
    let Some(broker) = Broker::with_keys(&[]) else {
        return;
    };
    let raw = Raw::with_key_of(&broker, "agent");
    let mut calls = raw.subscribe("co.main.call");
    let run = broker.run_as("submit", &["exec", "-j0", "--", "echo", ":::", "a", "b"]);
    let heard = raw.next(&mut calls);
    let (open, _) = agent::decode::<Open>(&heard.payload).unwrap();
    let up = |name: &str| format!("co.main.run.{}.up.{name}", open.run);
    let other = [&999_u16.to_le_bytes()[..], &[0; 40]].concat();
    raw.publish(&up("old"), &other);
    run.says("old is not heard any more: it speaks version 999");
    let version = agent::VERSION.to_le_bytes();
    let rubbish = [
        b"".to_vec(),
        b"rubbish".to_vec(),
        vec![0xff; 400_000],
        [&version[..], &[0xff; 4]].concat(),
        [&version[..], &[8, 0, 0, 0], &[0xff; 8]].concat(),
    ];
    for _ in 0..20 {
        for (number, rubbish) in rubbish.iter().enumerate() {
            raw.publish(&up(&format!("x{number}")), rubbish);
        }
    }
    run.says("x4 is not heard any more");
    // Those who may be heard are, and do all the work.
    let agent = broker.agent("agent", "n1");
    let ended = run.end();
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "a\nb"),
        "{ended:?}"
    );
    for name in ["old", "x0", "x1", "x2", "x3", "x4"] {
        let said = format!("{name} is not heard any more");
        assert_eq!(ended.stderr.matches(&said).count(), 1, "{ended:?}");
    }
    drop(agent);
}

#[test]
fn what_agents_say_of_themselves_is_bounded_and_moves_no_cursor() {
    let Some(broker) = Broker::with_keys(&[]) else {
        return;
    };
    let raw = Raw::with_key_of(&broker, "agent");
    let mut asked = raw.subscribe("co.main.agents");
    let looks = broker.run_as("look", &["agents"]);
    let reply = raw.next(&mut asked).reply.unwrap().to_string();
    let presence = |name: String| agent::Presence {
        name,
        slots: u32::MAX,
        busy: 0,
        run: Some(("\u{1b}[2Jx\ny".to_owned(), u64::MAX)),
        serves: None,
        load: f32::NAN,
        version: String::new(),
    };
    for name in [
        "\u{1b}]0;evil\u{7}".to_owned(),
        "n".repeat(10_000),
        "m".repeat(200_000),
    ] {
        raw.publish(&reply, &agent::encode(&presence(name), &[]).unwrap());
    }
    raw.publish(&reply, b"rubbish");
    let ended = looks.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("␛]0;evil␇") && ended.stdout.contains("␛[2Jx␊y"),
        "{ended:?}"
    );
    assert!(!ended.stdout.contains(['\u{1b}', '\u{7}']), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 3, "{ended:?}");
    assert!(
        ended.stdout.lines().all(|line| line.chars().count() < 200),
        "{ended:?}"
    );
}
