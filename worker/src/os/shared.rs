//! Memory that this process shares with others.
#![expect(unsafe_code, reason = "memory that two processes share")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};

/// A new file in memory.
pub(crate) fn shared_file(len: usize) -> io::Result<File> {
    // A file beyond this limit would be no error, but SIGXFSZ, which kills the process.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    if limit.is_some_and(|most| most < len as u64) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("shared", flags)?;
    Ok(File::from(super::spawn::above_stdio(file)?))
}

/// Seals the file: nobody can change its length from now on, nor its contents, except through existing mappings.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    Ok(rustix::fs::fcntl_add_seals(file, seals)?)
}

/// Returns freed memory to the system.
pub(crate) fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a plain call; the allocator takes its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A number that nobody can guess.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Seeded by the system for each process. The number of a copied process differs from those of the others.
    let seed = (super::now(), std::process::id());
    RandomState::new().hash_one(seed)
}

/// A few words at the beginning of a shared file, which may change.
#[derive(Debug)]
pub(crate) struct Words(MmapRaw);

impl Words {
    /// The size of the words, in bytes.
    pub(crate) const SIZE: usize = 64;

    /// Maps the words, for writing if the file allows that.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() < Self::SIZE as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut options = MmapOptions::new();
        options.len(Self::SIZE);
        let map = options
            .map_raw(file)
            .or_else(|_| options.map_raw_read_only(file))?;
        Ok(Words(map))
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < Self::SIZE / 8);
        // SAFETY: within the mapping, which is page-aligned, as long as `self`, and never shorter than
        // SIZE, because the file is sealed. Whatever stands there is a number.
        unsafe { &*self.0.as_ptr().cast::<AtomicU64>().add(index) }
    }

    pub(crate) fn load(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    /// Only the file's maker may call this: others can't write to the mapping.
    pub(crate) fn store(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }
}

/// The bytes behind the words of a shared file.
///
/// The words may change, so no slice contains them.
pub(crate) struct Bytes(MmapRaw);

impl Bytes {
    pub(crate) fn map(file: &File, len: u64) -> io::Result<Self> {
        let end = len.saturating_add(Words::SIZE as u64);
        let seals = rustix::fs::fcntl_get_seals(file)?;
        let needed = SealFlags::SHRINK | SealFlags::FUTURE_WRITE;
        if file.metadata()?.len() < end || !seals.contains(needed) {
            return Err(io::Error::other("this is no shared value"));
        }
        let end = usize::try_from(end).map_err(io::Error::other)?;
        Ok(Bytes(MmapOptions::new().len(end).map_raw_read_only(file)?))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let len = self.0.len() - Words::SIZE;
        // SAFETY: within the mapping, which is no shorter than the words. The file is sealed against becoming shorter,
        // and against being written but through the mapping of its maker, who writes to the words alone.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(Words::SIZE), len) }
    }
}
