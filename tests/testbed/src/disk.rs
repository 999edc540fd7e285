//! A disk that can lose power: a file system of its own in a file, whose unwritten data is gone after [`Disk::power_off`].
//!
//! Needs root (loop devices and mounts); a test that cannot have it fails and says so. Unmounted and removed with the value, and
//! also when the test process dies.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guard::Guard;
use crate::network::run;
use crate::place::Directory;
use crate::program::require;

/// Sparse: only what is written takes space.
const SIZE_MIB: u64 = 512;
/// How the names of the files begin that fill it.
const BALLAST: &str = "ballast-";

/// A mounted ext4 file system.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    #[expect(dead_code, reason = "held for its drop")]
    guard: Guard,
    #[expect(dead_code, reason = "held for its drop, after the unmounting")]
    home: Directory,
}

impl Disk {
    /// Makes and mounts one.
    ///
    /// # Panics
    /// When this process may not mount, saying what it lacks.
    pub fn new() -> Self {
        require("mkfs.ext4", "e2fsprogs");
        require("xfs_io", "xfsprogs");
        let home = Directory::new("disk");
        let (image, mount) = (home.path().join("image"), home.path().join("mount"));
        let file = std::fs::File::create(&image).expect("the directory is ours");
        file.set_len(SIZE_MIB * 1024 * 1024).expect("a sparse file takes no space");
        std::fs::create_dir(&mount).expect("the directory is ours");
        run(&format!("mkfs.ext4 -q -F {}", image.display()));
        let removal = format!("umount -l {0}; rm -rf {1}", mount.display(), home.path().display());
        let disk = Self { image, mount, guard: Guard::afterwards(&removal), home };
        disk.mount();
        disk
    }

    fn mount(&self) {
        run(&format!("mount -o loop {} {}", self.image.display(), self.mount.display()));
    }

    /// A directory on it for a node's data, empty at first.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn directory(&self) -> PathBuf {
        let data = self.path().join("data");
        std::fs::create_dir_all(&data).expect("a new file system takes a directory");
        data
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Takes all the space that is free, down to less than a block.
    ///
    /// # Panics
    /// When `fallocate` does not run.
    pub fn fill(&self) {
        let mut number = 0;
        for shift in (12..31).rev() {
            loop {
                number += 1;
                let ballast = self.mount.join(format!("{BALLAST}{number}"));
                let size = (1_u64 << shift).to_string();
                let mut fallocate = Command::new("fallocate");
                let taken = fallocate.args(["-l", &size]).arg(&ballast).output();
                if !taken.expect("fallocate is installed").status.success() {
                    drop(std::fs::remove_file(&ballast));
                    break;
                }
            }
        }
    }

    /// Gives the space back that [`fill`](Self::fill) has taken.
    ///
    /// # Panics
    /// When a file cannot be removed.
    pub fn give_room(&self) {
        for entry in std::fs::read_dir(&self.mount).expect("it is mounted") {
            let entry = entry.expect("it can be read");
            if entry.file_name().to_string_lossy().starts_with(BALLAST) {
                std::fs::remove_file(entry.path()).expect("it is ours");
            }
        }
    }

    /// Writes everything out.
    ///
    /// # Panics
    /// When that fails.
    pub fn sync(&self) {
        run(&format!("sync -f {}", self.mount.display()));
    }

    /// Cuts the power: what was not synced is gone, and nothing can be read or written until [`power_on`](Self::power_on).
    ///
    /// # Panics
    /// When the file system refuses.
    pub fn power_off(&self) {
        // Without -f the journal is not written out either (XFS_FSOP_GOING_FLAGS_NOLOGFLUSH).
        let mut shutdown = Command::new("xfs_io");
        let output = shutdown.args(["-x", "-c", "shutdown"]).arg(&self.mount).output();
        let output = output.expect("xfs_io is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "the disk stays on: {said}");
    }

    /// Mounts it again, with the journal replayed. Nobody may have files open on it.
    ///
    /// # Panics
    /// When somebody has.
    pub fn power_on(&self) {
        run(&format!("umount {}", self.mount.display()));
        self.mount();
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.mount).output();
        if !unmounted.is_ok_and(|output| output.status.success()) {
            eprintln!("{} stays mounted", self.mount.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_synced_survives_the_loss_of_power_and_the_rest_does_not() {
        let disk = Disk::new();
        let (kept, lost) = (disk.path().join("kept"), disk.path().join("lost"));
        let mut file = std::fs::File::create(&kept).unwrap();
        file.write_all(b"synced").unwrap();
        file.sync_all().unwrap();
        std::fs::File::open(disk.path()).unwrap().sync_all().unwrap();
        std::fs::write(&lost, b"not synced").unwrap();
        disk.power_off();
        assert!(std::fs::write(&lost, b"dead").is_err());
        drop(file);
        disk.power_on();
        assert_eq!(std::fs::read(&kept).unwrap(), b"synced");
        assert!(!lost.exists());
    }
}
