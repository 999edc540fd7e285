//! The contents of a [`super::MemoryDisk`]: directories and files, each in two versions, the current one and the one
//! that survives a power cut.

use super::{DirEntry, Random};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

pub(super) type InodeId = u64;

const ROOT: InodeId = 0;

#[derive(Debug)]
pub(super) enum Inode {
    File(FileContents),
    Directory(Directory),
}

/// All inodes, also those without a name, which are never collected because tests are short.
#[derive(Debug)]
pub(super) struct Tree {
    inodes: BTreeMap<InodeId, Inode>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { inodes: BTreeMap::from([(ROOT, Inode::Directory(Directory::default()))]) }
    }
}

impl Tree {
    pub(super) fn add(&mut self, inode: Inode) -> InodeId {
        let id = self.inodes.last_key_value().map_or(ROOT, |(last, _)| last + 1);
        self.inodes.insert(id, inode);
        id
    }

    pub(super) fn resolve(&self, path: &Path) -> io::Result<InodeId> {
        let mut id = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let Some(Inode::Directory(directory)) = self.inodes.get(&id) else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            id = *directory.entries.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(id)
    }

    pub(super) fn directory(&mut self, path: &Path) -> io::Result<&mut Directory> {
        let id = self.resolve(path)?;
        match self.inodes.get_mut(&id) {
            Some(Inode::Directory(directory)) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&mut self, id: InodeId) -> io::Result<&mut FileContents> {
        match self.inodes.get_mut(&id) {
            Some(Inode::File(contents)) => Ok(contents),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// An open directory. Its name may have been removed.
    pub(super) fn open_directory(&mut self, id: InodeId) -> &mut Directory {
        match self.inodes.get_mut(&id) {
            Some(Inode::Directory(directory)) => directory,
            _ => unreachable!("an open directory keeps its inode"),
        }
    }

    /// Bytes of all files that have a name, and `name_bytes` for each name.
    pub(super) fn used(&self, name_bytes: u64) -> u64 {
        self.used_below(ROOT, name_bytes)
    }

    fn used_below(&self, id: InodeId, name_bytes: u64) -> u64 {
        match self.inodes.get(&id) {
            Some(Inode::File(contents)) => super::as_u64(contents.current.len()),
            Some(Inode::Directory(directory)) => directory
                .entries
                .values()
                .map(|entry| name_bytes + self.used_below(*entry, name_bytes))
                .sum(),
            None => 0,
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut ancestors = path.ancestors().collect::<Vec<_>>();
        ancestors.reverse();
        for ancestor in ancestors {
            let Some(name) = ancestor.file_name() else { continue };
            if self.resolve(ancestor).is_err() {
                let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
                let inode = self.add(Inode::Directory(Directory::default()));
                let parent = ancestor.parent().unwrap_or(Path::new(""));
                self.directory(parent)?.change(NameChange::Set { name, inode });
            }
        }
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let id = self.resolve(path)?;
        let Some(Inode::Directory(directory)) = self.inodes.get(&id) else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        let entry = |(name, id): (&String, &InodeId)| DirEntry {
            name: name.clone(),
            is_dir: matches!(self.inodes.get(id), Some(Inode::Directory(_))),
        };
        Ok(directory.entries.iter().map(entry).collect())
    }

    pub(super) fn crash(&mut self, random: &mut Random, page_size: usize) {
        for inode in self.inodes.values_mut() {
            match inode {
                Inode::File(contents) => contents.crash(random, page_size),
                Inode::Directory(directory) => directory.crash(random),
            }
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Set { name: String, inode: InodeId },
    Remove { name: String },
    Rename { old: String, new: String, inode: InodeId },
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    entries: BTreeMap<String, InodeId>,
    durable: BTreeMap<String, InodeId>,
    pending: Vec<NameChange>,
}

impl Directory {
    pub(super) fn change(&mut self, change: NameChange) {
        apply(&mut self.entries, &change);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        self.durable.clone_from(&self.entries);
        self.pending.clear();
    }

    /// In half of the cases the changes survive up to some point, as with a journal; otherwise any subset survives.
    fn crash(&mut self, random: &mut Random) {
        let pending = std::mem::take(&mut self.pending);
        if random.up_to(1) == 0 {
            let kept = random.up_to(pending.len());
            pending[..kept].iter().for_each(|change| apply(&mut self.durable, change));
        } else {
            for change in &pending {
                if random.up_to(1) == 0 {
                    apply(&mut self.durable, change);
                }
            }
        }
        self.entries.clone_from(&self.durable);
    }
}

fn apply(names: &mut BTreeMap<String, InodeId>, change: &NameChange) {
    match change {
        NameChange::Set { name, inode } => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Remove { name } => {
            names.remove(name);
        }
        NameChange::Rename { old, new, inode } => {
            names.remove(old);
            names.insert(new.clone(), *inode);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct FileContents {
    pub(super) current: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    pub(super) modified_ms: i64,
}

impl FileContents {
    pub(super) fn created(now_ms: i64) -> Self {
        Self { modified_ms: now_ms, ..Self::default() }
    }

    pub(super) fn write(&mut self, bytes: &[u8], at: usize, page_size: usize, now_ms: i64) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        if self.current.len() < end {
            self.resize(end, page_size, now_ms);
        }
        self.current[at..end].copy_from_slice(bytes);
        self.dirty.extend(at / page_size..=(end - 1) / page_size);
        self.modified_ms = now_ms;
    }

    pub(super) fn resize(&mut self, size: usize, page_size: usize, now_ms: i64) {
        let changed_from = size.min(self.current.len());
        let changed_to = size.max(self.current.len());
        if changed_from < changed_to {
            self.dirty.extend(changed_from / page_size..=(changed_to - 1) / page_size);
        }
        self.current.resize(size, 0);
        self.modified_ms = now_ms;
    }

    pub(super) fn sync(&mut self, page_size: usize) {
        for page in std::mem::take(&mut self.dirty) {
            let end = ((page + 1) * page_size).min(self.current.len());
            self.keep_until(page * page_size, end);
        }
        self.durable.resize(self.current.len(), 0);
    }

    /// Does the same as Linux after a failed writeback: the pages count as clean and may be lost.
    pub(super) fn forget_dirty_pages(&mut self) {
        self.dirty.clear();
    }

    fn crash(&mut self, random: &mut Random, page_size: usize) {
        let (shorter, longer) = if self.durable.len() < self.current.len() {
            (self.durable.len(), self.current.len())
        } else {
            (self.current.len(), self.durable.len())
        };
        let dirty = std::mem::take(&mut self.dirty);
        for page in dirty {
            let start = page * page_size;
            let end = (start + page_size).min(self.current.len());
            match random.up_to(2) {
                0 => {}
                1 => self.keep_until(start, end),
                _ => self.keep_until(start, start + end.saturating_sub(start) / 2),
            }
        }
        self.durable.resize(shorter + random.up_to(longer - shorter), 0);
        self.current.clone_from(&self.durable);
    }

    fn keep_until(&mut self, start: usize, end: usize) {
        if start >= end {
            return;
        }
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.current[start..end]);
    }
}
