//! How busy this machine is, and when it lends something.

/// When a machine lends something.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lends {
    pub(super) max_load: Option<f64>,
    pub(super) min_free_memory: Option<u64>,
}

impl Lends {
    /// Whether it has something to lend now.
    pub(super) fn is_free(self) -> bool {
        let is_quiet = self.max_load.is_none_or(|most| f64::from(load()) < most);
        is_quiet
            && self
                .min_free_memory
                .is_none_or(|least| free_memory().is_none_or(|free| free >= least))
    }
}

/// The load of this machine over the last minute; 0 if nobody knows.
pub(super) fn load() -> f32 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = text.split(' ').next().and_then(|load| load.parse().ok());
    load.unwrap_or(0.0)
}

/// How much memory is free, in bytes, if that can be read.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}
