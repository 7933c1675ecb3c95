//! Which program the workers run.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use protocol::handshake::TOKEN_VARIABLE;
use worker::private::spawn::{Image, above_stdio};
use worker::private::{image, is_summoned, path};

use crate::error::PoolError;

/// The environment variable that names the worker's executable.
const WORKER_VARIABLE: &str = "COORDINATOR_WORKER";
/// The environment variable that tells a worker how many pools it is within.
pub(crate) const DEPTH_VARIABLE: &str = "COORDINATOR_DEPTH";
/// How many pools may stand within each other. Each level has as many times more processes as a pool has workers.
const DEEPEST: u32 = 5;

/// The workers' program.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its path, for people and for those who start workers by hand.
    pub(crate) path: PathBuf,
    pub(crate) image: Image,
    /// Whether it is the program that this process runs.
    pub(crate) is_this: bool,
    /// How many pools this process is within.
    pub(crate) depth: u32,
}

impl Program {
    /// Its file, to be read.
    #[cfg_attr(
        not(feature = "agents"),
        allow(dead_code, reason = "only agents need it")
    )]
    pub(crate) fn file(&self) -> io::Result<File> {
        match self.is_this {
            true => this().map(|(file, _)| file),
            false => File::open(&self.path),
        }
    }
}

/// The workers' program: the one that was asked for, or the first that is there.
pub(crate) fn find(asked: Option<&Path>) -> Result<Program, PoolError> {
    let depth = depth()?;
    let (path, image, is_this) = choose(asked)?;
    Ok(Program {
        path,
        image,
        is_this,
        depth,
    })
}

/// A program's path, what is run, and whether it is the program that this process runs.
type Choice = (PathBuf, Image, bool);

fn choose(asked: Option<&Path>) -> Result<Choice, PoolError> {
    let is_running = |path: &Path| env::current_exe().is_ok_and(|this| this == path);
    match asked {
        // Its own path leads to this program, whatever stands there by now.
        Some(path) if is_running(path) && worker::is_initialized() => {
            let (file, path) = this().map_err(no_file)?;
            return itself(file, path);
        }
        Some(path) => return named(existing(path.to_owned(), ".worker(…)")?),
        None => {}
    }
    if let Some(path) = named_program() {
        return named(existing(path, WORKER_VARIABLE)?);
    }
    let (file, path) = this().map_err(|error| {
        PoolError::System(format!("the file of this program can't be opened: {error}"))
    })?;
    if worker::is_initialized() {
        return itself(file, path);
    }
    let name: OsString = format!("worker{}", env::consts::EXE_SUFFIX).into();
    let beside = path.with_file_name(name);
    // This program itself may be called `worker`.
    let is_this = is_same(&file, &beside);
    if beside.is_file() && !is_this {
        let image = Image::at(&beside).map_err(no_file)?;
        return Ok((beside, image, false));
    }
    Err(no_worker(&path, &beside, is_this))
}

/// The program that this process runs, as its own worker.
fn itself(file: File, path: PathBuf) -> Result<Choice, PoolError> {
    let image = Image::File(above_stdio(file).map_err(no_file)?);
    Ok((path, image, true))
}

/// A program that somebody has named. It may be this one.
fn named((path, named_by): (PathBuf, &str)) -> Result<Choice, PoolError> {
    match this() {
        Ok((file, _)) if is_same(&file, &path) => match worker::is_initialized() {
            true => itself(file, path),
            false => Err(PoolError::CannotStart {
                program: path,
                cause: format!(
                    "{named_by} names this same program, and its workers would begin as it did: call \
                     coordinator::init() first thing in main"
                ),
            }),
        },
        _ => {
            let image = Image::at(&path).map_err(no_file)?;
            Ok((path, image, false))
        }
    }
}

fn no_file(error: io::Error) -> PoolError {
    PoolError::System(format!("the workers' program can't be opened: {error}"))
}

fn no_worker(this: &Path, beside: &Path, is_this: bool) -> PoolError {
    let beside = match is_this {
        true => "that is this executable".to_owned(),
        false => format!("there is no {}", beside.display()),
    };
    PoolError::NoWorker {
        looked: vec![
            "a program of workers that .worker(path) of the pool's builder names: it was not called".to_owned(),
            format!("what the environment variable {WORKER_VARIABLE} names: it is not set"),
            format!(
                "this executable itself, {}: it has not called coordinator::init() at the start of main \
                 (a test program says coordinator::enable_in_tests!(); instead)",
                this.display()
            ),
            format!("`worker` beside this executable: {beside}"),
        ],
    }
}

/// The file of the program that this process runs, and its path.
fn this() -> io::Result<(File, PathBuf)> {
    image::file()
}

/// Whether a path leads to a file.
fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(other)) => (file.dev(), file.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// How many pools this process is within.
///
/// # Errors
/// This process must not have a pool of its own: it was started to be a worker and has not become one, or too many
/// pools stand within each other already.
fn depth() -> Result<u32, PoolError> {
    if is_summoned() {
        return Err(PoolError::Setting(format!(
            "this process was started to be a worker, and would be one of a pool if it had a pool of its own: call \
             coordinator::init() first thing in main, or coordinator::main() (it finds {TOKEN_VARIABLE} in its environment; a \
             program that is to be no worker has to be started without)"
        )));
    }
    let depth = env::var(DEPTH_VARIABLE)
        .ok()
        .and_then(|depth| depth.parse().ok());
    match depth.unwrap_or(0) {
        depth if depth >= DEEPEST => Err(PoolError::Setting(format!(
            "there are {depth} pools around this one, each in a worker of the next ({DEPTH_VARIABLE}={depth}), and \
             there may be no more: does a task call itself by a pool of its own?"
        ))),
        depth => Ok(depth),
    }
}

/// What the environment names as the worker's executable. A bare number is none: commands that
/// `coordinator exec` runs find their worker's number under this name, and may use a pool themselves.
fn named_program() -> Option<PathBuf> {
    let named = env::var_os(WORKER_VARIABLE)?;
    let is_number = named.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    (!is_number).then(|| named.into())
}

/// The absolute path of a program that was named, and who named it.
fn existing(program: PathBuf, named_by: &str) -> Result<(PathBuf, &str), PoolError> {
    let cannot = |cause: String| PoolError::CannotStart {
        program: program.clone(),
        cause: format!("{named_by} names it{cause}"),
    };
    let found = match program.metadata() {
        Err(_) if program.components().count() == 1 => {
            path::place_of(OsStr::new(&program)).map_err(|error| cannot(format!(": {error}")))?
        }
        Ok(metadata) if metadata.is_file() => program.clone(),
        Ok(_) => return Err(cannot(", and it is no file".to_owned())),
        Err(error) => return Err(cannot(format!(": {error}"))),
    };
    Ok((found.canonicalize().unwrap_or(found), named_by))
}
