//! Which program this process runs: the file, and the build.
#![expect(unsafe_code, reason = "the program's own headers in memory")]

use std::ffi::{OsStr, c_void};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

/// Opens the file of the program that this process runs, even if its path now leads elsewhere. Also returns the path, to
/// be shown to people.
///
/// # Errors
///
/// The file can't be opened.
pub fn file() -> io::Result<(File, PathBuf)> {
    // Where a person ran the loader itself: the program that it has loaded. That is looked for once, because to find it
    // takes long in a program with many mappings.
    static LOADED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let exe = Path::new("/proc/self/exe");
    match fs::read_link(exe) {
        Ok(path) => {
            let loaded = LOADED.get().cloned().unwrap_or_else(|| {
                let is_other = |mapped: &PathBuf| *mapped != path && mapped.is_file();
                let loaded = mapped_file().filter(is_other);
                // Not `get_or_init`: in a copy of this process it may wait for a thread that does not exist.
                let _ = LOADED.set(loaded.clone());
                loaded
            });
            match loaded {
                Some(mapped) => Ok((File::open(&mapped)?, mapped)),
                None => Ok((File::open(exe)?, without_mark(path))),
            }
        }
        // Without /proc, the path that started the program has to do.
        Err(error) => {
            let path = started_by().ok_or(error)?;
            Ok((File::open(&path)?, path))
        }
    }
}

/// The path of a file, without the ` (deleted)` that the kernel appends when the file is gone.
fn without_mark(path: PathBuf) -> PathBuf {
    let name = path.as_os_str().as_bytes();
    match name.strip_suffix(b" (deleted)") {
        Some(name) if !path.exists() => OsStr::from_bytes(name).into(),
        _ => path,
    }
}

fn started_by() -> Option<PathBuf> {
    let name = rustix::param::linux_execfn();
    let name = OsStr::from_bytes(name.to_bytes());
    (!name.is_empty()).then(|| PathBuf::from(name))
}

/// The file that the program's own code was mapped from.
fn mapped_file() -> Option<PathBuf> {
    let start = program().start?;
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    // See proc_pid_maps(5): `start-end mode offset device inode path`.
    let path = maps.lines().find_map(|line| {
        let (from, rest) = line.split_once('-')?;
        let (to, rest) = rest.split_once(' ')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let here = (address(from)?..address(to)?).contains(&start);
        here.then(|| rest.splitn(5, ' ').last().map(str::trim_start))?
    })?;
    path.starts_with('/').then(|| path.into())
}

/// A text that distinguishes this build of the program from others: the linker's build id, or else the file's
/// metadata.
#[must_use]
pub fn build() -> String {
    if let Some(id) = program().build_id {
        return id.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    let looks = fs::metadata("/proc/self/exe").map(|file| {
        let (device, inode, size) = (file.dev(), file.ino(), file.size());
        format!(
            "{device}:{inode}:{size}:{}.{}",
            file.mtime(),
            file.mtime_nsec()
        )
    });
    looks.unwrap_or_default()
}

/// The program, as its headers describe it.
#[derive(Default)]
struct Program {
    /// The address at which it begins in memory.
    start: Option<usize>,
    build_id: Option<Vec<u8>>,
}

fn program() -> Program {
    let mut program = Program::default();
    // SAFETY: the callback uses `data` as the type that it points to, and only during this call.
    unsafe { libc::dl_iterate_phdr(Some(look), ptr::from_mut(&mut program).cast()) };
    program
}

/// Looks at the first object, which is the program itself, and no further.
unsafe extern "C" fn look(
    info: *mut libc::dl_phdr_info,
    _: usize,
    data: *mut c_void,
) -> libc::c_int {
    // SAFETY: C's own description of an object, which lists its headers, and the `Program` of `program`.
    let (info, program) = unsafe { (&*info, &mut *data.cast::<Program>()) };
    if info.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: as above.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    for header in headers {
        let at = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
        match header.p_type {
            libc::PT_LOAD => _ = program.start.get_or_insert(at),
            libc::PT_NOTE if program.build_id.is_none() => {
                let address = ptr::with_exposed_provenance::<u8>(at);
                // SAFETY: a part of the program that is loaded, and never changes.
                let notes = unsafe { std::slice::from_raw_parts(address, header.p_memsz as usize) };
                let align = (header.p_align as usize).clamp(4, 8);
                program.build_id = build_id(notes, align).map(<[u8]>::to_vec);
            }
            _ => {}
        }
    }
    1
}

/// The build id among the notes. A note is the lengths of its name and its content, its type, the name and the content.
fn build_id(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    const BUILD_ID: u32 = 3;
    loop {
        let (head, rest) = notes.split_at_checked(12)?;
        let number = |at: usize| {
            head[at..]
                .first_chunk()
                .map(|four| u32::from_ne_bytes(*four))
        };
        let (name_len, len, kind) = (number(0)? as usize, number(4)? as usize, number(8)?);
        // Name and content are each padded, counted from the beginning of the note.
        let text = (12 + name_len).checked_next_multiple_of(align)?;
        let name = rest.get(..name_len)?;
        let said = notes.get(text..text.checked_add(len)?)?;
        if name == b"GNU\0" && kind == BUILD_ID && !said.is_empty() {
            return Some(said);
        }
        notes = notes.get((text + len).checked_next_multiple_of(align)?..)?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn a_build_has_a_name_and_its_file_is_found() {
        let (file, path) = super::file().unwrap();
        assert_eq!(path, std::env::current_exe().unwrap());
        let found = file.metadata().unwrap();
        assert_eq!(found.ino(), fs::metadata(&path).unwrap().ino());
        assert_eq!(mapped_file().unwrap(), path);
        assert!(!build().is_empty());
        assert_eq!(build(), build());
    }

    #[test]
    fn notes_are_read_whatever_stands_in_them() {
        let note = |name: &[u8], said: &[u8], kind: u32| {
            let lens = [name.len() as u32, said.len() as u32, kind];
            let mut note: Vec<u8> = lens.iter().flat_map(|len| len.to_ne_bytes()).collect();
            note.extend(name);
            note.resize(note.len().next_multiple_of(4), 0);
            note.extend(said);
            note.resize(note.len().next_multiple_of(4), 0);
            note
        };
        let notes = [note(b"GNU\0", b"abi", 1), note(b"GNU\0", b"name", 3)].concat();
        assert_eq!(build_id(&notes, 4), Some(&b"name"[..]));
        for cut in 0..notes.len() {
            assert_eq!(build_id(&notes[..cut], 4), None);
        }
        assert_eq!(build_id(&[0xff; 64], 4), None);
    }
}
