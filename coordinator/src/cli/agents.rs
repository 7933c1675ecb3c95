//! `coordinator agents`: who waits at a broker and what each does, and the keys that a new broker needs.

use super::machine_args::AgentsArgs;
use super::{Exit, Trouble};

#[cfg(not(feature = "agents"))]
pub(super) fn run(_: &AgentsArgs) -> Result<Exit, Trouble> {
    Err(Trouble::Usage(super::machines::WITHOUT.to_owned()))
}

#[cfg(feature = "agents")]
pub(super) use with::run;

/// What a build with agents does.
#[cfg(feature = "agents")]
mod with {
    use std::path::Path;
    use std::time::Duration;

    use coordinator::{Agents, NewKeys, Presence};

    use super::super::terminal::{shortened, visible, visible_lines};
    use super::super::{complain, machine_args, machines, print};
    use super::{AgentsArgs, Exit, Trouble};

    /// How long answers are waited for.
    const LIMIT: Duration = Duration::from_secs(1);
    /// How many characters of a name, a run or a version are shown.
    const MOST_SHOWN: usize = 40;

    pub(in super::super) fn run(args: &AgentsArgs) -> Result<Exit, Trouble> {
        match &args.new_keys {
            Some(directory) => new_keys(directory, args),
            None => look(args),
        }
    }

    fn look(args: &AgentsArgs) -> Result<Exit, Trouble> {
        let Some(url) = machine_args::broker(args.nats.as_ref()) else {
            return Err(Trouble::Usage(
                "agents wait at a broker: coordinator agents --nats tls://hub --key look.key"
                    .to_owned(),
            ));
        };
        let mut asked = Agents::at(&url);
        if let Some(key) = machines::key(args.key.as_ref()) {
            asked = asked.key(key);
        }
        if args.insecure {
            asked = asked.insecure();
        }
        let mut agents = asked.look(LIMIT)?;
        if agents.is_empty() {
            complain(&"no agent answers there; to lend a machine: coordinator agent");
            return Ok(Exit::SomeFailed);
        }
        agents.sort_by(|one, other| one.name.cmp(&other.name));
        match args.json {
            true => print(&agents.iter().map(json).collect::<String>()),
            false => print(&table(&agents)),
        }
    }

    fn json(agent: &Presence) -> String {
        let object = serde_json::json!({
            "name": agent.name,
            "slots": agent.slots,
            "busy": agent.busy,
            "run": agent.run.as_ref().map(|run| &run.about),
            "since_s": agent.run.as_ref().map(|run| run.since.as_secs()),
            "load": (f64::from(agent.load) * 100.0).round() / 100.0,
            "version": agent.version,
        });
        format!("{object}\n")
    }

    /// A line for each agent below the heads, in columns. Numbers stand on the right.
    fn table(agents: &[Presence]) -> String {
        let heads = ["NAME", "SLOTS", "BUSY", "RUN", "SINCE", "LOAD", "VERSION"];
        let are_numbers = [false, true, true, false, false, true, false];
        let mut rows = vec![heads.map(str::to_owned)];
        rows.extend(agents.iter().map(row));
        let mut widths = [0; 7];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in &rows {
            let cells = row.iter().zip(widths).zip(are_numbers);
            let cells = cells.map(|((cell, width), is_number)| match is_number {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    fn row(agent: &Presence) -> [String; 7] {
        let shown = |text: &str| shortened(&visible(text), MOST_SHOWN);
        let (run, since) = match &agent.run {
            Some(run) => (beginning(&run.about), in_words(run.since)),
            None => ("–".to_owned(), String::new()),
        };
        [
            shown(&agent.name),
            agent.slots.to_string(),
            agent.busy.to_string(),
            run,
            since,
            format!("{:.0}", agent.load),
            shown(&agent.version),
        ]
    }

    /// The beginning of what a run is about: whose it is, and which command.
    fn beginning(about: &str) -> String {
        let shown: String = visible(about).chars().take(MOST_SHOWN).collect();
        match about.chars().count() > MOST_SHOWN {
            true => format!("{shown}…"),
            false => shown,
        }
    }

    /// A time as people say it.
    pub(super) fn in_words(time: Duration) -> String {
        match time.as_secs() {
            seconds @ 0..60 => format!("{seconds} s"),
            seconds @ 60..3600 => format!("{} min", seconds / 60),
            seconds @ 3600..86_400 => format!("{} h", seconds / 3600),
            seconds => format!("{} d", seconds / 86_400),
        }
    }

    fn new_keys(directory: &Path, args: &AgentsArgs) -> Result<Exit, Trouble> {
        let keys = NewKeys::in_directory(directory);
        let keys = args.each.iter().fold(keys, NewKeys::agent);
        let keys = args.host.iter().fold(keys, NewKeys::host);
        let written = keys.write()?;
        // The configuration comes first.
        let place = written.first().and_then(|config| config.parent());
        let place = place.unwrap_or(directory).display();
        let hub = args.host.first().cloned().unwrap_or_else(host_name);
        let hub = if hub.contains(':') {
            format!("[{hub}]")
        } else {
            hub
        };
        let agent = args.each.first().map_or("agent", String::as_str);
        // A name that other machines don't know is what a newcomer stumbles over first.
        let hint = match args.host.first() {
            Some(_) => String::new(),
            None => format!(
                "\nMachines that do not know this one as {hub} need another name for it: --host NAME, or --host ADDRESS.\n"
            ),
        };
        let copy = format!("with a copy of {agent}.key:");
        print(&visible_lines(&format!(
            "the broker, here:           nats-server -c {place}/nats.conf\n\
             {copy:<27} coordinator agent --nats tls://{hub} --key {agent}.key\n\
             with a copy of submit.key:  coordinator exec --nats tls://{hub} --key submit.key -- ./convert {{}}\n{hint}"
        )))
    }

    fn host_name() -> String {
        let name = rustix::system::uname();
        name.nodename().to_string_lossy().into_owned()
    }
}

#[cfg(all(test, feature = "agents"))]
mod tests {
    use std::time::Duration;

    use super::with::in_words;

    #[test]
    fn a_time_is_said_in_one_unit() {
        let said = [0, 59, 60, 3599, 3600, 86_399, 86_400, 864_000]
            .map(|seconds| in_words(Duration::from_secs(seconds)));
        assert_eq!(
            said,
            [
                "0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "10 d"
            ]
        );
    }
}
