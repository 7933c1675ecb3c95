//! Large values that many calls need: written once, read by each worker once.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::os;

/// A value that many calls need. Made by `Pool::share`; tasks take it as a parameter.
///
/// The value is written once, into memory that the workers map. Each worker decodes it when it first
/// meets it, and keeps it for its later calls. As an input it is no more than a reference of some fifty
/// bytes. A clone is the same value.
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
/// It lives as long as the last clone where it was made, or the last call that it is an input of. Then
/// its memory is freed, and the workers let go of theirs before their next call. It is freed as well if
/// either side dies.
///
/// It is meant for inputs. A shared value within another has to be kept by whoever made it, as long as the outer
/// one is used; and an output is no place for one: nobody knows when it could be freed.
pub struct Shared<T> {
    value: Arc<T>,
    /// Or why there is none.
    reference: Result<Reference, String>,
    /// Where it was made: what the workers map.
    region: Option<Arc<Region>>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared {
            value: Arc::clone(&self.value),
            reference: self.reference.clone(),
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

/// What travels in place of the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reference {
    /// By which other processes find the memory.
    name: String,
    /// Which value it is: a name may come to stand for something else.
    id: u64,
    /// How long the encoded value is, in bytes.
    len: u64,
}

/// The memory of a value: the words [`os::Words`] describe, and the encoded value behind them.
#[derive(Debug)]
struct Region {
    /// Open, so that the name stands for it.
    _file: File,
    words: os::Words,
}

/// The words in front of an encoded value.
const ID: usize = 0;
const DROPPED: usize = 1;

impl Drop for Region {
    fn drop(&mut self) {
        self.words.store(DROPPED, 1);
    }
}

impl<T: Serialize + DeserializeOwned> Shared<T> {
    /// Writes a value down, to be shared. If it can't be encoded, or the system has no memory for it,
    /// the calls that it is an input of end as undecodable, saying so.
    pub fn new(value: T) -> Self {
        let (reference, region) = match write(&value) {
            Ok((reference, region)) => (Ok(reference), Some(Arc::new(region))),
            Err(error) => (Err(error.to_string()), None),
        };
        Shared {
            value: Arc::new(value),
            reference,
            region,
        }
    }
}

fn write<T: Serialize>(value: &T) -> io::Result<(Reference, Region)> {
    let mut encoded = vec![0; os::Words::SIZE];
    protocol::encode(value, &mut encoded).map_err(io::Error::other)?;
    let (mut file, name) = os::shared_file(encoded.len())?;
    file.write_all(&encoded)?;
    let words = os::Words::map(&file)?;
    let id = os::random();
    words.store(ID, id);
    os::seal(&file)?;
    let len = (encoded.len() - os::Words::SIZE) as u64;
    Ok((Reference { name, id, len }, Region { _file: file, words }))
}

impl<T> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.reference {
            Ok(reference) => {
                if let Some(region) = &self.region {
                    keep(region);
                }
                reference.serialize(serializer)
            }
            Err(why) => {
                let why = format!("a shared value could not be written: {why}");
                explain(&why);
                Err(S::Error::custom(why))
            }
        }
    }
}

impl<'de, T: DeserializeOwned + Send + Sync + 'static> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let reference = Reference::deserialize(deserializer)?;
        let value = find(&reference).map_err(|why| {
            explain(&why);
            D::Error::custom(why)
        })?;
        Ok(Shared {
            value,
            reference: Ok(reference),
            region: None,
        })
    }
}

/// What must live as long as an encoded input.
pub type Kept = Arc<dyn Any + Send + Sync>;

thread_local! {
    /// Whether there is anything in `KEPT`: most inputs refer to nothing, and asking is to cost nothing.
    static KEEPS: Cell<bool> = const { Cell::new(false) };
    /// What the inputs encoded on this thread refer to.
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
    /// Why a value could not be encoded or decoded: postcard's errors have no words of their own.
    static WHY: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn keep(region: &Arc<Region>) {
    KEPT.with_borrow_mut(|kept| kept.push(Arc::clone(region) as Kept));
    KEEPS.set(true);
}

/// Takes what the inputs refer to that were encoded on this thread since the last time.
#[inline]
pub fn take_kept(each: impl FnMut(Kept)) {
    if KEEPS.get() {
        take_all_kept().into_iter().for_each(each);
    }
}

#[cold]
fn take_all_kept() -> Vec<Kept> {
    KEEPS.set(false);
    KEPT.take()
}

fn explain(why: &str) {
    WHY.set(Some(why.to_owned()));
}

/// Takes the reason why the last value on this thread could not be encoded or decoded, if there is a
/// better one than the encoding's own.
#[must_use]
pub fn take_why() -> Option<String> {
    WHY.take()
}

/// A value that this process has met.
struct Known {
    id: u64,
    type_id: TypeId,
    words: os::Words,
    value: Arc<dyn Any + Send + Sync>,
}

static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

fn known() -> MutexGuard<'static, Vec<Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of values that were dropped where they were made.
pub(crate) fn forget_dropped() {
    let mut known = known();
    let before = known.len();
    known.retain(|known| known.words.load(DROPPED) == 0);
    if known.len() < before {
        os::give_memory_back();
    }
}

fn find<T: DeserializeOwned + Send + Sync + 'static>(
    reference: &Reference,
) -> Result<Arc<T>, String> {
    let type_id = TypeId::of::<T>();
    let met = known()
        .iter()
        .find(|known| known.id == reference.id && known.type_id == type_id)
        .map(|known| Arc::clone(&known.value));
    if let Some(value) = met.and_then(|value| value.downcast().ok()) {
        return Ok(value);
    }
    let gone =
        || "a shared value is gone: keep it until the calls that use it have ended".to_owned();
    let file = File::open(&reference.name).map_err(|_| gone())?;
    let words = os::Words::map(&file).map_err(|_| gone())?;
    if words.load(ID) != reference.id || words.load(DROPPED) != 0 {
        return Err(gone());
    }
    let bytes = os::Bytes::map(&file, reference.len).map_err(|error| error.to_string())?;
    let value: T = protocol::decode(&bytes)
        .map_err(|error| format!("a shared value could not be decoded: {error}"))?;
    let value = Arc::new(value);
    known().push(Known {
        id: reference.id,
        type_id,
        words,
        value: Arc::clone(&value) as Arc<dyn Any + Send + Sync>,
    });
    Ok(value)
}
