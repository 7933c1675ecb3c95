//! What runs on the other machine first: it finds this program there, or takes it in, and becomes an agent.

use std::fmt::Write as _;

use protocol::agent::Bulk;

/// For any POSIX shell. Its words are the program's SHA-256, its length, the names of the machines that it runs on, two of them,
/// and its version.
///
/// The shell that ssh finds may be any, so this goes to `sh` in single quotes: there is no single quote in it, no backslash, no
/// exclamation mark and no newline, which some shell would take for something else. It asks for nothing on stdin before it has
/// said so, and reads no byte that is not its own: `head` may read more than it was told to, but what follows the program is only
/// sent when it has been asked for.
const SCRIPT: &str = "\
h=$1; n=$2; a=$3; b=$4; v=$5; \
say() { echo; echo \"coordinator-over-ssh: $*\"; }; \
d=${XDG_CACHE_HOME:-$HOME/.cache}/coordinator/programs; p=$d/$h; u=$(uname -m); t=$p.new-$(uname -n)-$$; \
sum() { if command -v sha256sum >/dev/null 2>&1; then sha256sum <\"$1\"; else echo \"$h  -\"; fi; }; \
whole() { [ \"$(wc -c <\"$1\")\" -eq \"$n\" ] && [ \"$(sum \"$1\")\" = \"$h  -\" ]; }; \
if [ -x \"$p\" ] && whole \"$p\"; then touch \"$p\"; exec \"$p\" agent --stdio; fi; \
case $u in \"$a\"|\"$b\") ;; *) \
if [ \"$(coordinator --version 2>/dev/null)\" = \"coordinator $v\" ]; then exec coordinator agent --stdio; fi; \
say foreign \"$u\"; exit 1;; esac; \
clean() { rm -f \"$t\"; }; trap clean 0; trap \"exit 1\" 1 2 13 15; \
umask 077; mkdir -p \"$d\" && : >\"$t\" || exit 1; \
say lacks; \
head -c \"$n\" >\"$t\" && whole \"$t\" && chmod 700 \"$t\" && mv -f \"$t\" \"$p\" && exec \"$p\" agent --stdio; \
exit 1";

/// The command for ssh that makes a machine an agent by this program.
pub(super) fn command(program: &Bulk) -> String {
    let mut hash = String::new();
    for byte in program.hash {
        // A string takes whatever is written to it.
        let _ = write!(hash, "{byte:02x}");
    }
    let machine = rustix::system::uname();
    let machine = machine.machine().to_string_lossy();
    format!(
        "exec sh -c '{SCRIPT}' sh {hash} {} {machine} {} {}",
        program.len,
        std::env::consts::ARCH,
        env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_shell_takes_the_script_for_something_else() {
        assert!(!SCRIPT.contains(['\'', '\\', '!', '\n']));
        assert!(SCRIPT.contains(super::super::hello::MARK));
    }
}
