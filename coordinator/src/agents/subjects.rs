//! Under which names messages travel.

/// What all names begin with.
const POOL: &str = "co.main";

/// What the places begin with where users wait for answers.
const INBOX: &str = "_INBOX_";

/// Runs that want machines say so here.
pub(crate) fn call() -> String {
    format!("{POOL}.call")
}

/// Who asks here is answered by each agent.
pub(crate) fn agents() -> String {
    format!("{POOL}.agents")
}

/// From an agent to the coordinator of a run.
pub(crate) fn up(run: &str, agent: &str) -> String {
    format!("{POOL}.run.{run}.up.{agent}")
}

/// From the coordinator of a run to one of its agents.
pub(crate) fn down(run: &str, agent: &str) -> String {
    format!("{POOL}.run.{run}.down.{agent}")
}

/// From the coordinator of a run to all of its agents.
pub(crate) fn all(run: &str) -> String {
    format!("{POOL}.run.{run}.all")
}

/// Whether a subject is one of this pool's, and not where somebody waits for an answer.
pub(crate) fn is_of_pool(subject: &str) -> bool {
    let rest = subject.strip_prefix(POOL);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// Where a user waits for answers: what the names of all such places begin with.
pub(crate) fn inbox(user: &str) -> String {
    format!("{INBOX}{user}")
}

/// Whether somebody may wait for an answer there. An answer must not be sent where it could be taken for something else.
pub(crate) fn is_inbox(subject: &str) -> bool {
    subject.starts_with(INBOX)
}

/// The last word of a subject: the agent's name, or what it is about.
pub(crate) fn last(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or_default()
}

/// The run that a subject is of.
pub(crate) fn run_of(subject: &str) -> Option<&str> {
    let rest = subject.strip_prefix(POOL)?.strip_prefix(".run.")?;
    rest.split('.').next()
}

/// A subject as a broker's configuration has it: of any run.
pub(crate) fn of_any_run(subject: &str) -> String {
    match run_of(subject) {
        Some(run) => subject.replacen(run, "*", 1),
        None => subject.to_owned(),
    }
}

/// A name for an agent that can stand in a subject.
pub(crate) fn as_name(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let name: String = text
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect();
    match name.is_empty() {
        true => "agent".to_owned(),
        false => name,
    }
}
