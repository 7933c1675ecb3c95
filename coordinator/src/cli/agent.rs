//! `coordinator agent`: lends this machine's slots to the runs of others.

use super::machine_args::AgentArgs;
use super::{Exit, Trouble};

#[cfg(not(feature = "agents"))]
pub(super) fn run(_: &AgentArgs) -> Result<Exit, Trouble> {
    Err(Trouble::Usage(super::machines::WITHOUT.to_owned()))
}

/// Serves until a signal says that it is enough.
#[cfg(feature = "agents")]
pub(super) fn run(args: &AgentArgs) -> Result<Exit, Trouble> {
    use super::{machine_args, machines};
    use coordinator::{Agents, Service};

    if args.stdio {
        Service::stdio().run(&told()?)?;
        return Ok(Exit::AllOk);
    }
    let Some(url) = machine_args::broker(args.nats.as_ref()) else {
        return Err(Trouble::Usage(
            "an agent waits at a broker: coordinator agent --nats tls://hub --key agent.key"
                .to_owned(),
        ));
    };
    let mut agents = Agents::at(url);
    if let Some(key) = machines::key(args.key.as_ref()) {
        agents = agents.key(key);
    }
    if args.insecure {
        agents = agents.insecure();
    }
    let processors = coordinator::available_workers();
    let slots = args.jobs.map_or(processors, |jobs| jobs.of(processors));
    let mut service = Service::new(agents).slots(slots);
    if let Some(name) = &args.name {
        service = service.name(name);
    }
    if let Some(load) = args.max_load {
        service = service.max_load(load);
    }
    if let Some(bytes) = args.min_free_memory {
        service = service.min_free_memory(bytes);
    }
    let told = told()?;
    service.run(&told)?;
    Ok(Exit::AllOk)
}

/// What signals tell an agent: the first lets it finish what it runs, the second does not.
#[cfg(feature = "agents")]
fn told() -> Result<std::sync::mpsc::Receiver<coordinator::Leave>, Trouble> {
    use coordinator::Leave;
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let refused =
        |error: std::io::Error| Trouble::Pool(format!("signals can't be handled: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(refused)?;
    let (leave, told) = std::sync::mpsc::channel();
    let body = move || {
        for (number, _) in signals.forever().enumerate() {
            let (how, says) = match number {
                0 => (
                    Leave::WhenDone,
                    "leaving: finishing what runs; again ends it",
                ),
                _ => (Leave::Now, "leaving at once"),
            };
            super::complain(&says);
            if leave.send(how).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(body).map_err(refused)?;
    Ok(told)
}
