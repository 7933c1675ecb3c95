//! The manual page, from the definition of the command line.

use std::io;

use clap_mangen::Man;

use super::args;

/// One page for all: the whole first, then each command.
pub(super) fn render(to: &mut Vec<u8>) -> io::Result<()> {
    let mut definition = args::definition().disable_help_subcommand(true);
    definition.build();
    let whole = Man::new(definition.clone());
    whole.render_title(to)?;
    whole.render_name_section(to)?;
    whole.render_synopsis_section(to)?;
    whole.render_description_section(to)?;
    for command in definition.get_subcommands() {
        let name = command.get_name().to_uppercase();
        to.extend(format!(".SH {name}\n").bytes());
        // As a page of its own it would have titles; here its sections are parts of one.
        let page = Man::new(command.clone());
        let mut part = Vec::new();
        page.render_synopsis_section(&mut part)?;
        page.render_description_section(&mut part)?;
        page.render_options_section(&mut part)?;
        let part = String::from_utf8_lossy(&part).replace("\n.SH ", "\n.SS ");
        to.extend(
            part.trim_start_matches(".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n")
                .replacen(".SH ", ".SS ", 1)
                .bytes(),
        );
    }
    to.extend(
        b".SH EXIT STATUS\n0 all ok, 1 some calls failed, 2 usage, 3 the pool could not work, 130 and 143 \
          interrupted.\n.SH SIGNALS\nCtrl-C finishes what runs; a second one stops it, as SIGTERM and SIGHUP do \
          at once. Ctrl-Z stops the workers, too. SIGUSR1 lists what is running.\n",
    );
    Ok(())
}
