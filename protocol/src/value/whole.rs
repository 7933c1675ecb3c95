//! Sequences of numbers, which are copied whole.
//!
//! serde hands over a sequence item by item. For numbers that takes ten to thirty times as long as to copy the memory in
//! which they stand. So this module knows the types whose memory is their encoding: numbers, and arrays of them. It
//! recognizes them by what serde hands over: `Vec<T>` and slices of `T` as a [`slice::Iter`] of `T`, and the wish to read a
//! `Vec<T>` as that type's own visitor. Anybody else's visitor reads item by item, so a type that checks or changes what it
//! reads does so still.
#![expect(
    unsafe_code,
    reason = "a type that is known by its id is used as what it is"
)]

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ptr;
use std::slice;
use std::sync::OnceLock;

use serde::Deserialize;
use serde::de::{self, Visitor};

use super::packed::Integer;
use crate::pages;

/// The least number of items of a sequence that is copied whole. With fewer it would take longer to look up their type.
pub(super) const MANY: usize = 256;

/// A type of items whose memory is their encoding.
///
/// # Safety
///
/// A value has no padding. Each bit pattern that `are_valid` accepts is a value.
unsafe trait Plain: Sized + 'static {
    /// The type of integers that it consists of, if postcard writes them otherwise.
    const PACKED: Option<Integer>;

    /// Whether these bytes are values.
    fn are_valid(_: &[u8]) -> bool {
        true
    }
}

macro_rules! plain {
    ($($number:ty: $packed:expr;)*) => {
        $(
            // SAFETY: it is a number, which has no padding, and each of its bit patterns is a value.
            unsafe impl Plain for $number {
                const PACKED: Option<Integer> = $packed;
            }
        )*
    };
}

plain! {
    u8: None;
    i8: None;
    f32: None;
    f64: None;
    u16: Some(Integer::new(2, false));
    i16: Some(Integer::new(2, true));
    u32: Some(Integer::new(4, false));
    i32: Some(Integer::new(4, true));
    u64: Some(Integer::new(8, false));
    i64: Some(Integer::new(8, true));
    u128: Some(Integer::new(16, false));
    i128: Some(Integer::new(16, true));
}

// serde writes these as if they had 64 bits.
#[cfg(target_pointer_width = "64")]
plain! {
    usize: Some(Integer::new(8, false));
    isize: Some(Integer::new(8, true));
}

// SAFETY: it is one byte, and 0 and 1 are its values.
unsafe impl Plain for bool {
    const PACKED: Option<Integer> = None;

    fn are_valid(bytes: &[u8]) -> bool {
        // Without an early end, so that the compiler looks at many at once.
        bytes.iter().fold(0, |all, byte| all | byte) <= 1
    }
}

// SAFETY: an array has no padding between its items, and is valid if they are.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {
    const PACKED: Option<Integer> = T::PACKED;

    fn are_valid(bytes: &[u8]) -> bool {
        T::are_valid(bytes)
    }
}

/// A type of items that was recognized.
#[derive(Debug)]
pub(super) struct Whole {
    /// The size of an item in bytes.
    pub(super) size: usize,
    /// The type of integers, if the sequence has a mark.
    pub(super) integer: Option<Integer>,
    /// The bytes of a `slice::Iter` of such items.
    bytes: unsafe fn(*const ()) -> (*const u8, usize),
    /// A vector of such items, which is written to the place that the last argument points at.
    read: unsafe fn(&[u8], *mut ()) -> bool,
    /// The same from memory that becomes part of it.
    read_owned: unsafe fn(Vec<u8>, *mut ()) -> bool,
}

/// The bytes of the items that an iterator has left, if it is one of a slice of numbers.
pub(super) fn bytes_of<I>(items: &I) -> Option<(&[u8], Option<Integer>)> {
    let whole = find(&table().iterators, typeid::of::<I>())?;
    // SAFETY: the iterator's type is the one that the function was made for: a `slice::Iter` of the same items. Its bytes
    // are borrowed for at least as long as the iterator itself.
    let bytes = unsafe {
        let (start, len) = (whole.bytes)(ptr::from_ref(items).cast());
        slice::from_raw_parts(start, len)
    };
    Some((bytes, whole.integer))
}

/// What a visitor reads, if it is the one of a vector of numbers.
pub(super) fn read_by<'d, V: Visitor<'d>>() -> Option<WholeOf<V::Value>> {
    let whole = find(&table().visitors, typeid::of::<V>())?;
    Some(WholeOf(whole, PhantomData))
}

/// The way to read a `T`, which is a vector of numbers.
pub(super) struct WholeOf<T>(&'static Whole, PhantomData<fn() -> T>);

impl<T> WholeOf<T> {
    pub(super) fn whole(&self) -> &'static Whole {
        self.0
    }

    /// The vector with these bytes. `None` if they are no values of its items.
    pub(super) fn read(&self, bytes: &[u8]) -> Option<T> {
        let mut place = mem::MaybeUninit::<T>::uninit();
        // SAFETY: `T` is the visitor's value, so it is the vector that the function makes. If it returns `true`, the place
        // has been written.
        unsafe { (self.0.read)(bytes, place.as_mut_ptr().cast()).then(|| place.assume_init()) }
    }

    /// The same from a vector of bytes, which is not copied if that can be had.
    pub(super) fn read_owned(&self, bytes: Vec<u8>) -> Option<T> {
        let mut place = mem::MaybeUninit::<T>::uninit();
        // SAFETY: as in `read`.
        unsafe {
            (self.0.read_owned)(bytes, place.as_mut_ptr().cast()).then(|| place.assume_init())
        }
    }
}

/// # Safety
///
/// The pointer is one to a `slice::Iter<'_, T>`.
unsafe fn bytes<T: Plain>(items: *const ()) -> (*const u8, usize) {
    // SAFETY: the caller has promised that.
    let items = unsafe { &*items.cast::<slice::Iter<'_, T>>() };
    (
        items.as_slice().as_ptr().cast(),
        size_of_val(items.as_slice()),
    )
}

/// # Safety
///
/// The place has room for a `Vec<T>`. It is written if this returns `true`.
unsafe fn read<T: Plain>(bytes: &[u8], place: *mut ()) -> bool {
    let count = bytes.len() / size_of::<T>();
    if !T::are_valid(bytes) || count * size_of::<T>() != bytes.len() {
        return false;
    }
    let mut items = Vec::<T>::with_capacity(count);
    pages::advise(items.as_mut_ptr().cast(), bytes.len());
    // SAFETY: there is room for all bytes, and they are valid items without padding. The two do not overlap, because one was
    // just allocated. The caller has promised the place.
    unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), items.as_mut_ptr().cast(), bytes.len());
        items.set_len(count);
        place.cast::<Vec<T>>().write(items);
    }
    true
}

/// # Safety
///
/// As [`read`].
unsafe fn read_owned<T: Plain>(bytes: Vec<u8>, place: *mut ()) -> bool {
    let is_same_memory = align_of::<T>() == 1
        && bytes.capacity().is_multiple_of(size_of::<T>())
        && bytes.len().is_multiple_of(size_of::<T>());
    if !is_same_memory || !T::are_valid(&bytes) {
        // SAFETY: the caller has promised the same.
        return unsafe { read::<T>(&bytes, place) };
    }
    let mut bytes = mem::ManuallyDrop::new(bytes);
    let (len, capacity) = (
        bytes.len() / size_of::<T>(),
        bytes.capacity() / size_of::<T>(),
    );
    // SAFETY: the memory is that of a vector which is not used any more. It was allocated with the alignment 1, which is that
    // of `T`, and with as many bytes as the new capacity has. The first `len` items are initialized and valid. The caller
    // has promised the place.
    unsafe {
        let items = Vec::from_raw_parts(bytes.as_mut_ptr().cast::<T>(), len, capacity);
        place.cast::<Vec<T>>().write(items);
    }
    true
}

/// All types that are recognized, ordered by the type that gives them away.
struct Table {
    /// Those of iterators over slices.
    iterators: Vec<(TypeId, Whole)>,
    /// Those of the visitors of vectors.
    visitors: Vec<(TypeId, Whole)>,
}

fn find(types: &'static [(TypeId, Whole)], id: TypeId) -> Option<&'static Whole> {
    let at = types.binary_search_by_key(&id, |(id, _)| *id).ok()?;
    Some(&types[at].1)
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get().unwrap_or_else(|| {
        let mut table = Table {
            iterators: Vec::new(),
            visitors: Vec::new(),
        };
        // The memory of a number is its encoding only where the lowest byte comes first.
        if cfg!(target_endian = "little") {
            table.add_all();
        }
        table.iterators.sort_unstable_by_key(|(id, _)| *id);
        table.visitors.sort_unstable_by_key(|(id, _)| *id);
        // Not made within `get_or_init`: if the program is forked meanwhile, its copy would wait for a thread that does not
        // exist there.
        TABLE.get_or_init(|| table)
    })
}

macro_rules! with_arrays {
    ($table:ident, $($number:ty)*; $lens:tt) => {
        $(
            $table.add::<$number>();
            with_arrays!(@ $table, $number, $lens);
        )*
    };
    (@ $table:ident, $number:ty, ($($len:literal)*)) => {
        $($table.add::<[$number; $len]>();)*
    };
}

impl Table {
    fn add_all(&mut self) {
        with_arrays!(self, u8 i8 bool u16 i16 u32 i32 f32 u64 i64 f64 u128 i128;
            (1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32));
        #[cfg(target_pointer_width = "64")]
        {
            self.add::<usize>();
            self.add::<isize>();
        }
    }

    fn add<T: Plain + for<'d> Deserialize<'d>>(&mut self) {
        let whole = || Whole {
            size: size_of::<T>(),
            integer: T::PACKED,
            bytes: bytes::<T>,
            read: read::<T>,
            read_owned: read_owned::<T>,
        };
        let iterator = typeid::of::<slice::Iter<'_, T>>();
        self.iterators.push((iterator, whole()));
        if let Err(Asked(visitor)) = Vec::<T>::deserialize(Ask) {
            self.visitors.push((visitor, whole()));
        }
    }
}

/// A deserializer that finds out the type of the visitor that reads a sequence.
struct Ask;

/// What it has found out.
#[derive(Debug)]
struct Asked(TypeId);

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the type of a visitor was asked for")
    }
}

impl std::error::Error for Asked {}

impl de::Error for Asked {
    fn custom<T: fmt::Display>(_: T) -> Self {
        // No visitor is run, so nobody has an error of his own.
        Asked(TypeId::of::<()>())
    }
}

impl<'d> de::Deserializer<'d> for Ask {
    type Error = Asked;

    fn deserialize_any<V: Visitor<'d>>(self, _: V) -> Result<V::Value, Asked> {
        Err(Asked(typeid::of::<V>()))
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'d>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
