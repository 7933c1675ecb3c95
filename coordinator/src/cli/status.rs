//! The ways in which calls end, with the words that JSON, log and report use for them.

/// The way in which an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::cli) enum Status {
    Ok,
    Failed,
    Panicked,
    Died,
    TimedOut,
    OutOfMemory,
    Cancelled,
    Undecodable,
    /// Any word that this version does not know, or none.
    Other,
}

impl Status {
    /// All statuses in the order of their numbers, which the page's script uses, too.
    pub(in crate::cli) const ALL: [Status; 9] = [
        Status::Ok,
        Status::Failed,
        Status::Panicked,
        Status::Died,
        Status::TimedOut,
        Status::OutOfMemory,
        Status::Cancelled,
        Status::Undecodable,
        Status::Other,
    ];

    /// The word in the log, which is also the name of its colour in the page.
    pub(in crate::cli) fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Failed => "failed",
            Status::Panicked => "panicked",
            Status::Died => "died",
            Status::TimedOut => "timed_out",
            Status::OutOfMemory => "out_of_memory",
            Status::Cancelled => "cancelled",
            Status::Undecodable => "undecodable",
            Status::Other => "other",
        }
    }

    /// The words for a person. "Failed" is what all calls are that did not succeed, so one of the ways has another word.
    pub(in crate::cli) fn label(self) -> String {
        match self {
            Status::Failed => "error".to_owned(),
            _ => self.word().replace('_', " "),
        }
    }

    pub(in crate::cli) fn of(word: Option<&str>) -> Self {
        let known = |status: &&Status| Some(status.word()) == word;
        *Self::ALL.iter().find(known).unwrap_or(&Status::Other)
    }
}
