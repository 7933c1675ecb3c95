//! Large values that many calls need: encoded once, and decoded once by each worker.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::LocalKey;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::os::{self, home::Home};

/// A value that many calls need. Made by `Pool::share`; tasks take it as a parameter.
///
/// The value is encoded once, into memory that the workers map. Each worker decodes the value when a call first
/// needs it, and keeps it for later calls. As an input it is a reference of some ten
/// bytes. A clone refers to the same value.
///
/// ```
/// use worker::{Shared, task};
///
/// #[task]
/// fn word(dictionary: Shared<Vec<String>>, number: usize) -> Option<String> {
///     dictionary.get(number).cloned()
/// }
///
/// let dictionary = Shared::new(vec!["one".to_owned()]);
/// assert_eq!(word(dictionary.clone(), 0), Some("one".to_owned()));
/// ```
///
/// The value lives until the process that made it has dropped the last clone, and the last call with the value as
/// input has ended. Then its memory is freed, and each worker frees its decoded copy before its next call. The memory is
/// also freed if either side dies.
///
/// A shared value may hold other shared values, and keeps them alive. It is meant for inputs: a task may return a shared
/// value that it was given, but not one that it has made, because nobody could know when to free that.
pub struct Shared<T> {
    value: Arc<T>,
    /// The memory that the workers map, or the reason why there is none.
    region: Result<Kept, String>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared {
            value: Arc::clone(&self.value),
            region: self.region.clone(),
        }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.value).finish()
    }
}

/// The reference that travels in place of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Reference {
    /// The number of the value.
    id: u64,
    /// How long the encoded value is, in bytes.
    len: u64,
}

/// The memory of a value: the words that [`os::Words`] describes, and the encoded value behind them.
#[derive(Debug)]
struct Region {
    /// The file that other processes are given and map.
    file: File,
    words: os::Words,
    reference: Reference,
    /// The shared values that this one holds, if they are known.
    within: OnceLock<Vec<Kept>>,
    /// The process that has made the value. `None` if this process was given it.
    maker: Option<Home>,
}

/// A shared value's memory, which must live as long as an encoded input that refers to it.
#[derive(Debug, Clone)]
pub struct Kept(Arc<Region>);

impl Kept {
    /// The number of the value.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.reference.id
    }

    /// How long the encoded value is, in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> u64 {
        self.0.reference.len
    }

    /// Some bytes of the encoded value, which it has.
    ///
    /// # Errors
    ///
    /// What the system says when it can't read the value's memory.
    pub fn encoded_part(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut part = Vec::new();
        part.try_reserve_exact(len)?;
        part.resize(len, 0);
        let at = at.saturating_add(os::Words::SIZE as u64);
        self.0.file.read_exact_at(&mut part, at)?;
        Ok(part)
    }

    /// The same value for the workers of this process, where another process has made it.
    ///
    /// # Errors
    ///
    /// The system has no memory for it.
    pub fn copy_of(id: u64, encoded: &[u8]) -> io::Result<Self> {
        let mut file = os::shared_file(os::Words::SIZE + encoded.len())?;
        file.write_all(&[0; os::Words::SIZE])?;
        file.write_all(encoded)?;
        let words = os::Words::map(&file)?;
        words.store(ID, id);
        os::seal(&file)?;
        let len = encoded.len() as u64;
        Ok(Kept(Arc::new(Region {
            file,
            words,
            reference: Reference { id, len },
            within: OnceLock::new(),
            maker: Some(Home::here()),
        })))
    }

    /// The file that a process needs to map the value.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

/// The values that another process has been given.
#[derive(Debug, Default, Clone)]
pub struct Given {
    values: HashMap<u64, Weak<Region>>,
    /// How many values may be noted before those that no longer exist are removed.
    most: usize,
}

impl Given {
    /// Of these values, and of all that they hold, returns those that the process has not been given yet, and notes them
    /// as given.
    pub fn add<'k>(&mut self, kept: impl IntoIterator<Item = &'k Kept>) -> Vec<Kept> {
        let mut missing = Vec::new();
        kept.into_iter()
            .for_each(|kept| self.add_one(kept, &mut missing));
        if self.values.len() > self.most {
            self.values.retain(|_, value| value.strong_count() > 0);
            self.most = 2 * self.values.len() + 16;
        }
        missing
    }

    fn add_one(&mut self, kept: &Kept, missing: &mut Vec<Kept>) {
        if self.values.contains_key(&kept.id()) {
            return;
        }
        self.values.insert(kept.id(), Arc::downgrade(&kept.0));
        missing.push(kept.clone());
        for within in kept.0.within.get().into_iter().flatten() {
            self.add_one(within, missing);
        }
    }
}

/// The words in front of an encoded value.
const ID: usize = 0;
const DROPPED: usize = 1;

impl Drop for Region {
    fn drop(&mut self) {
        // Only the process that made the value frees it. A forked copy of that process does not.
        if self.maker.is_some_and(Home::is_here) {
            self.words.store(DROPPED, 1);
        }
    }
}

impl<T: Serialize + DeserializeOwned> Shared<T> {
    /// Encodes a value into memory that workers can map. If the value can't be encoded, or the system has no memory for it,
    /// calls with it as input end as undecodable, and their errors say why.
    ///
    /// ```
    /// let shared = worker::Shared::new(vec![1, 2, 3]);
    /// assert_eq!(shared[1], 2);
    /// ```
    pub fn new(value: T) -> Self {
        let region = write(&value).map_err(|error| error.to_string());
        if let Ok(Kept(region)) = &region {
            let mut made = lock(&MADE);
            made.retain(|made| made.strong_count() > 0);
            made.push(Arc::downgrade(region));
        }
        Shared {
            value: Arc::new(value),
            region,
        }
    }
}

fn write<T: Serialize>(value: &T) -> io::Result<Kept> {
    let mut encoded = vec![0; os::Words::SIZE];
    // References that this thread encoded before do not belong to this value.
    let (written, within) = gathering(&KEPT, || protocol::encode(value, &mut encoded));
    written.map_err(io::Error::other)?;
    let mut file = os::shared_file(encoded.len())?;
    file.write_all(&encoded)?;
    let words = os::Words::map(&file)?;
    let id = os::random();
    words.store(ID, id);
    os::seal(&file)?;
    let len = (encoded.len() - os::Words::SIZE) as u64;
    Ok(Kept(Arc::new(Region {
        file,
        words,
        reference: Reference { id, len },
        within: OnceLock::from(within),
        maker: Some(Home::here()),
    })))
}

impl<T> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.region {
            Ok(region) => {
                keep(region);
                region.0.reference.serialize(serializer)
            }
            Err(why) => {
                let why = format!("a shared value could not be written: {why}");
                Err(S::Error::custom(why))
            }
        }
    }
}

impl<'de, T: DeserializeOwned + Send + Sync + 'static> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let reference = Reference::deserialize(deserializer)?;
        let (value, region) = find(reference).map_err(D::Error::custom)?;
        FOUND.with_borrow_mut(|found| found.as_mut().map(|found| found.push(region.clone())));
        Ok(Shared {
            value,
            region: Ok(region),
        })
    }
}

thread_local! {
    /// Whether `KEPT` holds anything. Most inputs refer to no shared value, and this check costs them nothing.
    static KEEPS: Cell<bool> = const { Cell::new(false) };
    /// The shared values that the inputs encoded on this thread refer to.
    static KEPT: RefCell<Option<Vec<Kept>>> = const { RefCell::new(None) };
    /// The shared values that were met while a shared value is being decoded on this thread.
    static FOUND: RefCell<Option<Vec<Kept>>> = const { RefCell::new(None) };
}

fn keep(region: &Kept) {
    KEPT.with_borrow_mut(|kept| kept.get_or_insert_default().push(region.clone()));
    KEEPS.set(true);
}

type List = LocalKey<RefCell<Option<Vec<Kept>>>>;

/// Runs a function with an empty list, and returns what the function has put there. Afterwards, and also after a panic,
/// the list is as before.
fn gathering<R>(list: &'static List, what: impl FnOnce() -> R) -> (R, Vec<Kept>) {
    struct Before(&'static List, Option<Vec<Kept>>);
    impl Drop for Before {
        fn drop(&mut self) {
            self.0.set(self.1.take());
        }
    }
    let _before = Before(list, list.replace(Some(Vec::new())));
    let done = what();
    (done, list.take().unwrap_or_default())
}

/// Takes the shared values of all inputs that were encoded on this thread since the last call.
#[inline]
pub fn take_kept(each: impl FnMut(Kept)) {
    if KEEPS.get() {
        take_all_kept().into_iter().for_each(each);
    }
}

#[cold]
fn take_all_kept() -> Vec<Kept> {
    KEEPS.set(false);
    KEPT.take().unwrap_or_default()
}

/// A value that this process has met.
struct Known {
    region: Kept,
    type_id: TypeId,
    value: Arc<dyn Any + Send + Sync>,
}

static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());
/// Memory of values that have arrived, but that no call has needed yet.
static ARRIVED: Mutex<Vec<Kept>> = Mutex::new(Vec::new());
/// The living values that this process has made.
static MADE: Mutex<Vec<Weak<Region>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the memory of a value that calls will refer to. A descriptor of anything else is dropped.
pub(crate) fn arrived(descriptor: OwnedFd) {
    let file = File::from(descriptor);
    let Ok(words) = os::Words::map(&file) else {
        return;
    };
    let id = words.load(ID);
    let len = file.metadata().map_or(0, |file| file.len());
    let len = len.saturating_sub(os::Words::SIZE as u64);
    lock(&ARRIVED).push(Kept(Arc::new(Region {
        file,
        words,
        reference: Reference { id, len },
        within: OnceLock::new(),
        maker: None,
    })));
}

/// Drops the values that their maker has dropped.
pub(crate) fn forget_dropped() {
    let lives = |region: &Kept| region.0.words.load(DROPPED) == 0;
    lock(&ARRIVED).retain(lives);
    let mut known = lock(&KNOWN);
    let (kept, dropped) = std::mem::take(&mut *known)
        .into_iter()
        .partition(|known| lives(&known.region));
    *known = kept;
    drop(known);
    // The lock is released first: a value's destructor may need it.
    let dropped: Vec<Known> = dropped;
    if !dropped.is_empty() {
        drop(dropped);
        os::give_memory_back();
    }
}

fn find<T: DeserializeOwned + Send + Sync + 'static>(
    reference: Reference,
) -> Result<(Arc<T>, Kept), String> {
    let type_id = TypeId::of::<T>();
    let id = reference.id;
    let met = lock(&KNOWN)
        .iter()
        .find(|known| known.region.id() == id && known.type_id == type_id)
        .map(|known| (Arc::clone(&known.value), known.region.clone()));
    if let Some((value, region)) = met
        && let Ok(value) = value.downcast()
    {
        return Ok((value, region));
    }
    let region = region_of(id).ok_or_else(|| {
        "a shared value is gone: keep it until the calls that use it have ended; one that a task has made \
         can't be returned"
            .to_owned()
    })?;
    let bytes = os::Bytes::map(&region.0.file, reference.len).map_err(|error| error.to_string())?;
    let (decoded, within) = gathering(&FOUND, || protocol::decode(&bytes));
    let value: T =
        decoded.map_err(|error| format!("a shared value could not be decoded: {error}"))?;
    let value = Arc::new(value);
    if region.0.maker.is_none() {
        region.0.within.get_or_init(|| within);
        lock(&ARRIVED).retain(|arrived| arrived.id() != id);
        lock(&KNOWN).push(Known {
            region: region.clone(),
            type_id,
            value: Arc::clone(&value) as Arc<dyn Any + Send + Sync>,
        });
    }
    Ok((value, region))
}

/// The memory of the value with this number.
fn region_of(id: u64) -> Option<Kept> {
    let arrived = lock(&ARRIVED)
        .iter()
        .find(|region| region.id() == id)
        .cloned();
    let met = || {
        let known = lock(&KNOWN);
        let known = known.iter().find(|known| known.region.id() == id);
        known.map(|known| known.region.clone())
    };
    let made = || {
        let made = lock(&MADE);
        let mut made = made.iter().filter_map(Weak::upgrade).map(Kept);
        made.find(|region| region.id() == id)
    };
    arrived.or_else(met).or_else(made)
}
