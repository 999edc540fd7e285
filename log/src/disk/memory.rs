//! A disk in memory that behaves like a real one at its worst: [`MemoryDisk::crash`] keeps the synced data and a random
//! part of the rest, and operations fail on demand.
//!
//! Model: a file is a sequence of pages. After a crash every page written since the last `sync_data` is, at random,
//! old, new or torn, and the length is any value between the old and the new one. A directory is a list of name changes
//! since its last `sync_dir`; after a crash any subset of them has happened. The same seed gives the same crash. The
//! tests of this and other crates use it.

mod faults;
mod gate;
mod inode;

pub use faults::Fault;

use super::{
    DirEntry, Disk, DiskDir, DiskError, DiskFile, DiskLock, DiskSpace, OpenMode, Operation,
    fill_with_zeros, plain,
};
use faults::Faults;
use gate::SyncGate;
use inode::{Directory, FileContents, Inode, InodeId, NameChange, Tree};
use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The size of a name in a directory, for the capacity.
const NAME_BYTES: u64 = 64;

/// The disk. Clones share the same contents.
#[derive(Debug, Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    sync_gate: Arc<SyncGate>,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    page_size: usize,
    now_ms: i64,
    /// Counts power-ons: file handles of an earlier one are invalid.
    boot: u64,
    faults: Faults,
    locked: BTreeSet<PathBuf>,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::with_page_size(4096)
    }
}

impl MemoryDisk {
    /// An empty disk whose writes tear at multiples of `page_size` bytes.
    pub fn with_page_size(page_size: usize) -> Self {
        let state = State {
            tree: Tree::default(),
            page_size,
            now_ms: 0,
            boot: 0,
            faults: Faults::default(),
            locked: BTreeSet::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), sync_gate: Arc::default() }
    }

    /// The number of changing operations so far (creations, writes, syncs, renames, removals).
    pub fn mutations(&self) -> u64 {
        self.state().faults.mutations
    }

    /// Makes the changing operation with this number (the first has number 0) fail.
    pub fn fail_at(&self, mutation: u64, fault: Fault) {
        self.state().faults.fail_at = Some((mutation, fault));
    }

    /// Makes the next operation of one kind fail; reads and opens too.
    pub fn fail_next(&self, operation: Operation, fault: Fault) {
        self.state().faults.fail_next = Some((operation, fault));
    }

    /// From this operation on, fails all operations that need the lacking resource, until [`Self::give_room`].
    pub fn lack_from(&self, mutation: u64, fault: Fault) {
        self.state().faults.lack_from = Some((mutation, fault));
    }

    /// Limits the bytes of all files and names together.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().faults.capacity = Some(bytes);
    }

    /// Limits how many files, directories and locks may be open at once.
    pub fn set_descriptors(&self, count: usize) {
        self.state().faults.descriptors = Some(count);
    }

    /// Ends every lack of space and descriptors.
    pub fn give_room(&self) {
        let mut state = self.state();
        state.faults.lack_from = None;
        state.faults.capacity = None;
        state.faults.descriptors = None;
    }

    /// Makes every sync of a file or directory wait from now on.
    pub fn hold_syncs(&self) {
        self.sync_gate.close();
    }

    /// How many syncs wait.
    pub fn held_syncs(&self) -> usize {
        self.sync_gate.waiting()
    }

    /// Lets the syncs go on.
    pub fn release_syncs(&self) {
        self.sync_gate.open();
    }

    /// Bytes taken by files and names.
    pub fn used(&self) -> u64 {
        self.state().tree.used(NAME_BYTES)
    }

    /// Sets the [`DiskFile::modified_ms`] of files written from now on.
    pub fn set_now_ms(&self, now_ms: i64) {
        self.state().now_ms = now_ms;
    }

    /// Cuts the power and turns it on again: unsynced changes are lost or torn as `seed` decides. Open files, locks and
    /// pending faults are dropped.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        let page_size = state.page_size;
        state.tree.crash(&mut Random(seed), page_size);
        state.boot += 1;
        state.faults = Faults { mutations: state.faults.mutations, ..Faults::default() };
        state.locked.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Decides whether an operation that needs `growth` more bytes fails, and how.
    fn admit(
        &mut self,
        operation: Operation,
        path: &Path,
        growth: u64,
    ) -> Result<(), (DiskError, Fault)> {
        let used = || self.tree.used(NAME_BYTES);
        let Some(fault) = self.faults.next(operation, growth, used) else { return Ok(()) };
        self.faults.power_is_off |= fault == Fault::PowerCut;
        Err((DiskError::during(operation, path)(fault.error()), fault))
    }

    fn check(&mut self, operation: Operation, path: &Path) -> Result<(), DiskError> {
        let growth = match operation {
            Operation::Create | Operation::CreateDir => NAME_BYTES,
            _ => 0,
        };
        self.admit(operation, path, growth).map_err(|(error, _)| error)
    }

    /// Counts an open handle, until [`Handle`] is dropped.
    fn handle(&mut self, disk: &MemoryDisk) -> Handle {
        self.faults.open += 1;
        Handle { disk: disk.clone(), boot: self.boot }
    }

    fn directory_of(&mut self, path: &Path) -> io::Result<&mut Directory> {
        self.tree.directory(super::parent(path))
    }
}

fn name_of(path: &Path) -> io::Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// An open handle, valid until the power is cut.
#[derive(Debug)]
struct Handle {
    disk: MemoryDisk,
    boot: u64,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.boot == self.boot {
            state.faults.open -= 1;
        }
    }
}

#[derive(Debug)]
struct MemoryFile {
    handle: Handle,
    inode: InodeId,
    opened_as: PathBuf,
}

#[derive(Debug)]
struct MemoryDir {
    handle: Handle,
    inode: InodeId,
    opened_as: PathBuf,
}

impl DiskDir for MemoryDir {
    fn sync(&self) -> Result<(), DiskError> {
        self.handle.disk.sync_gate.pass();
        let mut state = self.handle.disk.state();
        if state.boot != self.handle.boot {
            return Err(DiskError::during(Operation::SyncDir, &self.opened_as)(Fault::Io.error()));
        }
        state.check(Operation::SyncDir, &self.opened_as)?;
        state.tree.open_directory(self.inode).sync();
        Ok(())
    }
}

impl MemoryFile {
    /// Runs `action` on the contents, which may grow to `end`, unless the power was cut since the file was opened.
    fn with_contents<T>(
        &self,
        operation: Operation,
        end: usize,
        action: impl FnOnce(&mut FileContents, Option<Fault>, usize, i64) -> T,
    ) -> Result<T, DiskError> {
        let mut state = self.handle.disk.state();
        if state.boot != self.handle.boot {
            return Err(DiskError::during(operation, &self.opened_as)(Fault::Io.error()));
        }
        let contents = state.tree.file(self.inode).expect("an open file keeps its inode");
        let growth = as_u64(end.saturating_sub(contents.current.len()));
        let refusal = state.admit(operation, &self.opened_as, growth).err();
        let (page_size, now_ms) = (state.page_size, state.now_ms);
        let contents = state.tree.file(self.inode).expect("an open file keeps its inode");
        let fault = refusal.as_ref().map(|(_, fault)| *fault);
        let outcome = action(contents, fault, page_size, now_ms);
        match refusal {
            Some((error, _)) => Err(error),
            None => Ok(outcome),
        }
    }
}

impl DiskFile for MemoryFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> Result<(), DiskError> {
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
        let position = to_usize(position);
        let end = position + bytes.len();
        self.with_contents(
            Operation::Write,
            end,
            |contents, fault, page_size, now_ms| match fault {
                Some(Fault::NoSpace) => {
                    contents.write(&bytes[..bytes.len() / 2], position, page_size, now_ms);
                }
                Some(Fault::Io | Fault::OutOfFileDescriptors) => {}
                None | Some(Fault::PowerCut) => contents.write(&bytes, position, page_size, now_ms),
            },
        )
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<usize, DiskError> {
        self.with_contents(Operation::Read, 0, |contents, _, _, _| {
            let from = to_usize(position).min(contents.current.len());
            let count = buffer.len().min(contents.current.len() - from);
            buffer[..count].copy_from_slice(&contents.current[from..from + count]);
            count
        })
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.handle.disk.sync_gate.pass();
        self.with_contents(Operation::Sync, 0, |contents, fault, page_size, _| match fault {
            None => contents.sync(page_size),
            Some(Fault::PowerCut) => {}
            Some(_) => contents.forget_dirty_pages(),
        })
    }

    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        self.with_contents(
            Operation::Resize,
            to_usize(size),
            |contents, fault, page_size, now_ms| {
                if matches!(fault, None | Some(Fault::PowerCut)) {
                    contents.resize(to_usize(size), page_size, now_ms);
                }
            },
        )
    }

    fn size(&self) -> Result<u64, DiskError> {
        self.with_contents(Operation::Stat, 0, |contents, _, _, _| as_u64(contents.current.len()))
    }

    fn modified_ms(&self) -> Result<i64, DiskError> {
        self.with_contents(Operation::Stat, 0, |contents, _, _, _| contents.modified_ms)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn to_usize(position: u64) -> usize {
    usize::try_from(position).expect("a memory disk holds less than the address space")
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).expect("usize fits in 64 bits")
}

#[derive(Debug)]
struct MemoryLock {
    handle: Handle,
    path: PathBuf,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.handle.disk.state();
        if state.boot == self.handle.boot {
            state.locked.remove(&self.path);
        }
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>, DiskError> {
        let mut state = self.state();
        let creates = !matches!(mode, OpenMode::Read | OpenMode::Write);
        let creates = creates && state.tree.resolve(path).is_err();
        let operation = if creates { Operation::Create } else { Operation::Open };
        state.check(operation, path)?;
        let inode =
            open_inode(&mut state, path, mode).map_err(DiskError::during(operation, path))?;
        let (handle, opened_as) = (state.handle(self), path.to_path_buf());
        Ok(Arc::new(MemoryFile { handle, inode, opened_as }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let mut state = self.state();
        state.check(Operation::Rename, from)?;
        rename(&mut state, from, to).map_err(DiskError::during(Operation::Rename, from))
    }

    fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        let mut state = self.state();
        state.check(Operation::Remove, path)?;
        unlink(&mut state, path).map_err(DiskError::during(Operation::Remove, path))
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        let mut state = self.state();
        state.check(Operation::CreateDir, path)?;
        state.tree.create_dir_all(path).map_err(DiskError::during(Operation::CreateDir, path))
    }

    fn remove_dir_all(&self, path: &Path) -> Result<(), DiskError> {
        let mut state = self.state();
        state.check(Operation::Remove, path)?;
        unlink(&mut state, path).map_err(DiskError::during(Operation::Remove, path))
    }

    fn open_dir(&self, path: &Path) -> Result<Box<dyn DiskDir>, DiskError> {
        let mut state = self.state();
        state.check(Operation::Open, path)?;
        state.tree.directory(path).map_err(DiskError::during(Operation::Open, path))?;
        let inode = state.tree.resolve(path).expect("the directory was just found");
        let (handle, opened_as) = (state.handle(self), path.to_path_buf());
        Ok(Box::new(MemoryDir { handle, inode, opened_as }))
    }

    fn list(&self, path: &Path) -> Result<Vec<DirEntry>, DiskError> {
        let mut state = self.state();
        state.check(Operation::List, path)?;
        state.tree.list(path).map_err(DiskError::during(Operation::List, path))
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        let mut state = self.state();
        state.check(Operation::Stat, path)?;
        Ok(state.tree.resolve(path).is_ok())
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf, DiskError> {
        self.state().check(Operation::Stat, path)?;
        Ok(plain(path))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, DiskError> {
        let mut state = self.state();
        state.check(Operation::Lock, path)?;
        open_inode(&mut state, path, OpenMode::Create)
            .map_err(DiskError::during(Operation::Open, path))?;
        if !state.locked.insert(path.to_path_buf()) {
            let error = io::ErrorKind::WouldBlock.into();
            return Err(DiskError::during(Operation::Lock, path)(error));
        }
        Ok(Box::new(MemoryLock { handle: state.handle(self), path: path.to_path_buf() }))
    }

    fn space(&self, path: &Path) -> Result<DiskSpace, DiskError> {
        self.state().check(Operation::Space, path)?;
        Ok(DiskSpace { total_bytes: 1 << 40, usable_bytes: 1 << 39 })
    }

    fn allocate(&self, path: &Path, size: u64) -> Result<(), DiskError> {
        fill_with_zeros(self, path, size)
    }
}

fn open_inode(state: &mut State, path: &Path, mode: OpenMode) -> io::Result<InodeId> {
    match state.tree.resolve(path) {
        Ok(inode) => {
            let page_size = state.page_size;
            let now_ms = state.now_ms;
            let contents = state.tree.file(inode)?;
            if mode == OpenMode::Truncate {
                contents.resize(0, page_size, now_ms);
            }
            Ok(inode)
        }
        Err(error) if matches!(mode, OpenMode::Read | OpenMode::Write) => Err(error),
        Err(_) => {
            let name = name_of(path)?;
            let contents = FileContents::created(state.now_ms);
            let inode = state.tree.add(Inode::File(contents));
            state.directory_of(path)?.change(NameChange::Set { name, inode });
            Ok(inode)
        }
    }
}

fn rename(state: &mut State, from: &Path, to: &Path) -> io::Result<()> {
    let inode = state.tree.resolve(from)?;
    let (old, new) = (name_of(from)?, name_of(to)?);
    if from.parent() == to.parent() {
        state.directory_of(from)?.change(NameChange::Rename { old, new, inode });
        return Ok(());
    }
    state.directory_of(to)?.change(NameChange::Set { name: new, inode });
    state.directory_of(from)?.change(NameChange::Remove { name: old });
    Ok(())
}

fn unlink(state: &mut State, path: &Path) -> io::Result<()> {
    state.tree.resolve(path)?;
    let name = name_of(path)?;
    state.directory_of(path)?.change(NameChange::Remove { name });
    Ok(())
}

/// SplitMix64: small, seedable and good enough to choose which pages survive.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound`, both included.
    fn up_to(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("usize fits in 64 bits");
        usize::try_from(self.next() % (bound + 1)).expect("at most a usize bound")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        PathBuf::from("/data").join(name)
    }

    fn disk() -> MemoryDisk {
        let disk = MemoryDisk::with_page_size(4);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk
    }

    fn write(disk: &MemoryDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
        let file = disk.open(&path(name), OpenMode::Create).unwrap();
        file.write_all_at(&mut [IoSlice::new(bytes)], 0).unwrap();
        file
    }

    #[test]
    fn what_was_synced_with_its_name_survives_every_crash() {
        for seed in 0..200 {
            let disk = disk();
            write(&disk, "a", b"0123456789").sync_data().unwrap();
            disk.sync_dir(Path::new("/data")).unwrap();
            disk.crash(seed);
            assert_eq!(disk.read(&path("a")).unwrap(), b"0123456789");
        }
    }

    #[test]
    fn an_unsynced_name_is_sometimes_lost_and_sometimes_kept() {
        let kept = (0..100).filter(|&seed| {
            let disk = disk();
            write(&disk, "a", b"x").sync_data().unwrap();
            disk.crash(seed);
            disk.exists(&path("a")).unwrap()
        });
        let kept = kept.count();
        assert!((20..80).contains(&kept), "kept {kept} of 100");
    }

    #[test]
    fn unsynced_pages_are_kept_lost_or_torn() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..200 {
            let disk = disk();
            let file = write(&disk, "a", b"aaaabbbb");
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/data")).unwrap();
            file.write_all_at(&mut [IoSlice::new(b"AAAA"), IoSlice::new(b"BBBB")], 0).unwrap();
            disk.crash(seed);
            outcomes.insert(disk.read(&path("a")).unwrap());
        }
        for expected in [&b"aaaabbbb"[..], b"AAAABBBB", b"aaaaBBBB", b"AAAAbbbb", b"AAaabbbb"] {
            assert!(outcomes.contains(expected), "{outcomes:?}");
        }
    }

    #[test]
    fn a_rename_is_never_half_done() {
        for seed in 0..100 {
            let disk = disk();
            disk.write_atomically(&path("c"), b"old").unwrap();
            write(&disk, "c.tmp", b"new").sync_data().unwrap();
            disk.rename(&path("c.tmp"), &path("c")).unwrap();
            disk.crash(seed);
            let contents = disk.read(&path("c")).unwrap();
            assert!(contents == b"old" || contents == b"new");
        }
    }

    #[test]
    fn the_chosen_operation_fails_once_and_a_power_cut_lasts() {
        let disk = disk();
        let file = write(&disk, "a", b"x");
        disk.fail_at(disk.mutations(), Fault::NoSpace);
        let error = file.write_all_at(&mut [IoSlice::new(b"1234")], 1).unwrap_err();
        assert!(error.is_no_space());
        assert_eq!(file.size().unwrap(), 3, "half was written");
        file.write_all_at(&mut [IoSlice::new(b"1234")], 1).unwrap();
        disk.fail_at(disk.mutations(), Fault::PowerCut);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap_err();
        disk.crash(1);
        assert!(file.size().is_err(), "a handle does not outlive the power cut");
    }

    #[test]
    fn a_directory_renamed_takes_its_files_along() {
        let disk = disk();
        disk.create_dir_all(&path("t-0")).unwrap();
        disk.open(&path("t-0/x"), OpenMode::Create).unwrap();
        disk.rename(&path("t-0"), &path("t-0.1-delete")).unwrap();
        assert!(disk.exists(&path("t-0.1-delete/x")).unwrap());
        disk.remove_dir_all(&path("t-0.1-delete")).unwrap();
        assert!(disk.list(Path::new("/data")).unwrap().is_empty());
    }
}
