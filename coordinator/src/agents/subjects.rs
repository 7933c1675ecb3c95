//! Under which names messages travel.

/// What all names begin with.
const POOL: &str = "co.main";

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

/// The last word of a subject: the agent's name, or what it is about.
pub(crate) fn last(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or_default()
}

/// The run that a subject is of.
pub(crate) fn run_of(subject: &str) -> Option<&str> {
    let rest = subject.strip_prefix(POOL)?.strip_prefix(".run.")?;
    rest.split('.').next()
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
