//! Calls over several machines, all of them here: a broker, and agents that are this same program.
//!
//! Without the feature `agents` all of it is "not found".

#[cfg(not(feature = "agents"))]
use super::{Missing, Setting, Values};
#[cfg(not(feature = "agents"))]
use crate::Problem;

#[cfg(not(feature = "agents"))]
pub(crate) fn missing(_: &Setting) -> Result<Values, Problem> {
    Err(Missing("this build's feature `agents`".to_owned()).into())
}

#[cfg(not(feature = "agents"))]
pub(crate) use missing as sleeps;
#[cfg(not(feature = "agents"))]
pub(crate) use missing as sleeps_here;
#[cfg(not(feature = "agents"))]
pub(crate) use missing as map;
#[cfg(not(feature = "agents"))]
pub(crate) use missing as call;
#[cfg(not(feature = "agents"))]
pub(crate) use missing as payload;
#[cfg(not(feature = "agents"))]
pub(crate) use missing as payload_here;
#[cfg(not(feature = "agents"))]
pub(crate) use missing as idle;

#[cfg(feature = "agents")]
pub(crate) use with::{agent, call, idle, map, payload, payload_here, sleeps, sleeps_here};

#[cfg(feature = "agents")]
mod with {
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::process::{Child, Command, ExitCode, Stdio};
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::{Duration, Instant};

    use coordinator::{Agents, Pool, Service};
    use rustix::process::Signal;
    use serde_bytes::ByteBuf;
    use tempfile::TempDir;

    use super::super::{Missing, Setting, Values, check, median, median_of, ours, time, values};
    use crate::Problem;
    use crate::tasks::{echo, square, work};

    /// How many agents there are, and how many slots each has.
    const AGENTS: usize = 3;
    const SLOTS: usize = 2;
    /// How long starting may take.
    const SOON: Duration = Duration::from_secs(60);

    /// A broker and its agents.
    struct Machines {
        broker: Child,
        agents: Vec<Child>,
        port: u16,
        monitor: u16,
        _directory: TempDir,
    }

    impl Drop for Machines {
        fn drop(&mut self) {
            for child in self.agents.iter_mut().chain([&mut self.broker]) {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    /// What the whole process of an agent does.
    pub(crate) fn agent(arguments: impl Iterator<Item = String>) -> Result<ExitCode, Problem> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        let arguments: Vec<String> = arguments.collect();
        let [url, name] = arguments.as_slice() else {
            return Err("agent URL NAME".into());
        };
        let (_leave, told) = channel();
        let service = Service::new(Agents::at(url)).name(name).slots(SLOTS);
        service.run(&told)?;
        Ok(ExitCode::SUCCESS)
    }

    impl Machines {
        fn start() -> Result<Self, Problem> {
            let directory = TempDir::new()?;
            let path = directory.path().display().to_string();
            let broker = Command::new("nats-server")
                .args(["-a", "127.0.0.1", "-p", "-1", "-m", "-1"])
                .args(["--user", "u", "--pass", "p", "--ports_file_dir", &path])
                .stderr(Stdio::null())
                .spawn();
            let broker = match broker {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Missing("nats-server".to_owned()).into());
                }
                broker => broker?,
            };
            let file = directory
                .path()
                .join(format!("nats-server_{}.ports", broker.id()));
            let mut machines = Machines {
                broker,
                agents: Vec::new(),
                port: 0,
                monitor: 0,
                _directory: directory,
            };
            wait(|| {
                let ports = fs::read(&file).unwrap_or_default();
                let ports: serde_json::Value = serde_json::from_slice(&ports).unwrap_or_default();
                machines.port = port_of(&ports["nats"][0]);
                machines.monitor = port_of(&ports["monitoring"][0]);
                machines.port != 0 && machines.monitor != 0
            })?;
            for number in 0..AGENTS {
                let agent = Command::new(std::env::current_exe()?)
                    .args(["agent", &machines.url(), &format!("bench-{number}")])
                    .env("XDG_CACHE_HOME", machines._directory.path())
                    .stdin(Stdio::null())
                    .stderr(Stdio::inherit())
                    .spawn()?;
                machines.agents.push(agent);
            }
            Ok(machines)
        }

        fn url(&self) -> String {
            format!("nats://u:p@127.0.0.1:{}", self.port)
        }

        /// A pool on all agents, which have run something.
        fn pool(&self) -> Result<Pool, Problem> {
            let pool = Pool::builder().workers(0).agents(Agents::at(self.url()));
            let pool = pool.build()?;
            wait(|| pool.agents().len() == AGENTS)?;
            pool.map(square, 0..10_000)?;
            Ok(pool)
        }

        /// How many messages the broker has taken so far.
        fn messages(&self) -> Result<f64, Problem> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.monitor))?;
            stream.write_all(b"GET /varz HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
            let body: serde_json::Value = serde_json::from_str(body)?;
            body["in_msgs"].as_f64().ok_or_else(|| "no count".into())
        }
    }

    fn port_of(url: &serde_json::Value) -> u16 {
        let port = url.as_str().and_then(|url| url.rsplit(':').next());
        port.and_then(|port| port.parse().ok()).unwrap_or(0)
    }

    fn wait(mut is_so: impl FnMut() -> bool) -> Result<(), Problem> {
        let until = Instant::now() + SOON;
        while !is_so() {
            if Instant::now() >= until {
                return Err("the agents do not come".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Calls of 20 ms that need no processor.
    fn sleep_all(pool: &Pool, setting: &Setting) -> Result<Values, Problem> {
        let calls = setting.pick(2_000, 100);
        let inputs = (0..calls).map(|_| (0, Some(Duration::from_millis(20))));
        let started = Instant::now();
        let done = pool.map(work, inputs)?;
        let seconds = started.elapsed().as_secs_f64();
        check(done.len() == calls)?;
        time(seconds / calls as f64)
    }

    pub(crate) fn sleeps(setting: &Setting) -> Result<Values, Problem> {
        let machines = Machines::start()?;
        sleep_all(&machines.pool()?, setting)
    }

    /// The same in one pool, with as many slots.
    pub(crate) fn sleeps_here(setting: &Setting) -> Result<Values, Problem> {
        sleep_all(&ours::warm(AGENTS * SLOTS)?, setting)
    }

    /// Many short calls.
    pub(crate) fn map(setting: &Setting) -> Result<Values, Problem> {
        let calls = setting.pick(1_000_000_i64, 20_000);
        let machines = Machines::start()?;
        let pool = machines.pool()?;
        let started = Instant::now();
        let squares = pool.map(square, 0..calls)?;
        let seconds = started.elapsed().as_secs_f64();
        check(squares.into_iter().eq((0..calls).map(|x| x * x)))?;
        time(seconds / calls as f64)
    }

    /// Single calls, one after another.
    pub(crate) fn call(setting: &Setting) -> Result<Values, Problem> {
        let machines = Machines::start()?;
        let pool = machines.pool()?;
        let mut x = 0;
        let seconds = median_of(setting.pick(2_000, 100), || {
            x += 1;
            check(pool.call(square, x)? == x * x)
        })?;
        time(seconds)
    }

    /// A large input, and the same as output. Only the call counts, not the copy that it is given, nor the comparison.
    fn echo_much(pool: &Pool, setting: &Setting) -> Result<Values, Problem> {
        let bytes: Vec<u8> = (0..64_u32 << 20).map(|at| (at ^ (at >> 9)) as u8).collect();
        let bytes = ByteBuf::from(bytes);
        let mut times = Vec::new();
        for round in 0..=setting.pick(5, 1) {
            let given = bytes.clone();
            let started = Instant::now();
            let came = pool.call(echo, given)?;
            let seconds = started.elapsed().as_secs_f64();
            check(came == bytes)?;
            // The first finds things cold.
            if round > 0 {
                times.push(seconds);
            }
        }
        time(median(&mut times))
    }

    pub(crate) fn payload(setting: &Setting) -> Result<Values, Problem> {
        let machines = Machines::start()?;
        echo_much(&machines.pool()?, setting)
    }

    /// The same by a pool here.
    pub(crate) fn payload_here(setting: &Setting) -> Result<Values, Problem> {
        echo_much(&ours::warm(SLOTS)?, setting)
    }

    /// Agents of a run that has nothing for them: the messages of each in a second, the answers included.
    pub(crate) fn idle(setting: &Setting) -> Result<Values, Problem> {
        let machines = Machines::start()?;
        let _pool = machines.pool()?;
        // What the calls before had to say is said.
        thread::sleep(Duration::from_secs(2));
        let before = machines.messages()?;
        let seconds = setting.pick(10, 2);
        thread::sleep(Duration::from_secs(seconds));
        let messages = machines.messages()? - before;
        // One a second is the run's own, which says that it wants machines.
        let each = (messages / seconds as f64 - 1.0) / AGENTS as f64;
        Ok(values([("messages", each)]))
    }
}
