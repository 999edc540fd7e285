//! Space that is held by a file, to be given up when the disk is full.

use crate::disk::{Disk, DiskError, OpenMode};
use std::path::PathBuf;
use std::sync::Arc;

/// A file whose space can be freed at once for something that must go on.
#[derive(Debug)]
pub struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    size: u64,
    is_held: bool,
}

impl Reserve {
    /// A reserve of `size` bytes in the file `path`. It is held if an earlier process has left it there. One of another
    /// size is given up.
    pub fn open(disk: Arc<dyn Disk>, path: PathBuf, size: u64) -> Result<Self, DiskError> {
        let is_held = disk.exists(&path)? && disk.open(&path, OpenMode::Read)?.size()? == size;
        if !is_held {
            disk.remove_file_if_exists(&path)?;
        }
        Ok(Self { disk, path, size, is_held })
    }

    /// Takes the space, if twice as much is free: what has just been given up must not come and go.
    pub fn hold(&mut self) -> Result<(), DiskError> {
        if self.is_held || self.size == 0 {
            return Ok(());
        }
        let taken = self.disk.allocate(&self.path, self.size.saturating_mul(2));
        let shrunk =
            taken.and_then(|()| self.disk.open(&self.path, OpenMode::Write)?.set_size(self.size));
        if shrunk.is_err() {
            self.disk.remove_file_if_exists(&self.path)?;
        }
        self.is_held = shrunk.is_ok();
        shrunk
    }

    /// Gives the space up. Returns whether it was held.
    pub fn give_up(&mut self) -> Result<bool, DiskError> {
        let was_held = std::mem::take(&mut self.is_held);
        if was_held {
            self.disk.remove_file_if_exists(&self.path)?;
        }
        Ok(was_held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{MemoryDisk, RealDisk};
    use std::path::Path;

    const SIZE: u64 = 100_000;

    fn reserve(disk: &MemoryDisk) -> Reserve {
        Reserve::open(Arc::new(disk.clone()), "/d/reserve".into(), SIZE).unwrap()
    }

    #[test]
    fn a_reserve_is_held_across_a_restart_until_it_is_given_up() {
        let disk = MemoryDisk::default();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let mut first = reserve(&disk);
        assert!(!first.give_up().unwrap(), "nothing is held yet");
        first.hold().unwrap();
        assert_eq!(disk.read(Path::new("/d/reserve")).unwrap().len() as u64, SIZE);
        let mut second = reserve(&disk);
        assert!(second.give_up().unwrap());
        assert!(!disk.exists(Path::new("/d/reserve")).unwrap());
        assert!(!second.give_up().unwrap());
    }

    #[test]
    fn a_reserve_that_finds_no_space_leaves_nothing_behind() {
        let disk = MemoryDisk::default();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let mut reserve = reserve(&disk);
        disk.set_capacity(SIZE + SIZE / 2);
        assert!(reserve.hold().unwrap_err().is_full());
        assert!(!reserve.give_up().unwrap());
        assert!(!disk.exists(Path::new("/d/reserve")).unwrap());
        disk.set_capacity(3 * SIZE);
        reserve.hold().unwrap();
        assert!(reserve.give_up().unwrap());
    }

    #[test]
    fn what_is_allocated_takes_space_on_the_disk() {
        use std::os::unix::fs::MetadataExt;
        let path = std::env::temp_dir().join(format!("klamm-allocate-{}", std::process::id()));
        RealDisk.allocate(&path, SIZE).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(metadata.len(), SIZE);
        assert!(metadata.blocks() * 512 >= SIZE, "{} blocks", metadata.blocks());
    }
}
