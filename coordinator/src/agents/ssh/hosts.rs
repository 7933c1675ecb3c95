//! Which machines to reach, as people write them.

use std::collections::BTreeMap;

use crate::agents::subjects;

/// A machine to reach by ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// What ssh is given: `box2`, `ann@box2`, or the name of an entry in its configuration.
    pub(crate) destination: String,
    /// What its agent is called.
    pub(crate) name: String,
    /// How many calls it runs at once, if that is said.
    pub(crate) slots: Option<u32>,
}

/// Reads `HOST`, `HOST:SLOTS`, `USER@HOST:SLOTS` and `[ADDRESS]:SLOTS`.
pub(crate) fn read(texts: &[String]) -> Result<Vec<Host>, String> {
    let mut known = BTreeMap::new();
    let mut hosts = Vec::new();
    for text in texts {
        let host = host(text)?;
        if let Some(other) = known.insert(host.name.clone(), text) {
            return Err(match other == text {
                true => format!("the machine {text} is named twice: name it once"),
                false => format!(
                    "the machines {other} and {text} would both be called {}: name one of them, or give them other \
                     names in ssh's configuration",
                    host.name
                ),
            });
        }
        hosts.push(host);
    }
    match hosts.is_empty() {
        true => Err("no machine is named that could be reached by ssh".to_owned()),
        false => Ok(hosts),
    }
}

fn host(text: &str) -> Result<Host, String> {
    let wrong = |why: &str| {
        Err(format!(
            "the machine `{text}` {why}: write HOST or HOST:SLOTS"
        ))
    };
    let (destination, slots) = split(text);
    // ssh would take it for an option, and some options run programs here.
    if destination.starts_with('-') {
        return wrong("begins with a hyphen");
    }
    if destination.is_empty() || destination.ends_with('@') {
        return wrong("has no name");
    }
    if destination
        .chars()
        .any(|c| c.is_whitespace() || c.is_control())
    {
        return wrong("has a space in its name");
    }
    let slots = match slots.map(str::parse::<u32>) {
        None => None,
        Some(Ok(0)) => return wrong("has 0 slots, and would run nothing"),
        Some(Ok(slots)) => Some(slots),
        Some(Err(_)) => return wrong("has something behind its colon that is no number of slots"),
    };
    Ok(Host {
        name: subjects::as_name(&destination),
        destination,
        slots,
    })
}

/// The destination, and what stands behind its colon. An address with colons of its own needs brackets to have slots.
fn split(text: &str) -> (String, Option<&str>) {
    if let Some((user, rest)) = text.split_once('[')
        && let Some((address, rest)) = rest.split_once(']')
        && (rest.is_empty() || rest.starts_with(':'))
    {
        return (format!("{user}{address}"), rest.strip_prefix(':'));
    }
    match text.split_once(':') {
        Some((host, slots)) if !slots.contains(':') => (host.to_owned(), Some(slots)),
        _ => (text.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    fn one(text: &str) -> (String, String, Option<u32>) {
        let host = host(text).unwrap();
        (host.destination, host.name, host.slots)
    }

    fn owned(destination: &str, name: &str, slots: Option<u32>) -> (String, String, Option<u32>) {
        (destination.to_owned(), name.to_owned(), slots)
    }

    #[test]
    fn machines_are_read_as_ssh_knows_them() {
        assert_eq!(one("box2"), owned("box2", "box2", None));
        assert_eq!(one("box2:8"), owned("box2", "box2", Some(8)));
        assert_eq!(
            one("ann@box2.org:8"),
            owned("ann@box2.org", "ann_box2_org", Some(8))
        );
        assert_eq!(one("[::1]:8"), owned("::1", "__1", Some(8)));
        assert_eq!(one("ann@[::1]"), owned("ann@::1", "ann___1", None));
        assert_eq!(one("fe80::1"), owned("fe80::1", "fe80__1", None));
    }

    #[test]
    fn what_is_no_machine_is_refused_with_a_reason() {
        let refused = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            read(&texts).unwrap_err()
        };
        assert!(refused(&["-oProxyCommand=touch /tmp/x"]).contains("hyphen"));
        assert!(refused(&["box2:many"]).contains("no number of slots"));
        assert!(refused(&["box2:0"]).contains("0 slots"));
        assert!(refused(&[":8"]).contains("no name"));
        assert!(refused(&["a b"]).contains("space"));
        assert!(refused(&["box2", "box2"]).contains("twice"));
        assert!(refused(&["box2", "box2:4"]).contains("both be called box2"));
        assert!(refused(&[]).contains("no machine"));
    }
}
