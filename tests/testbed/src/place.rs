//! Where a test's things live: directories under the build's target directory, free ports, names nobody else uses.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

/// Below Linux's range for outgoing connections, so that none of those takes a port between its choice and its use.
const FIRST_PORT: u16 = 15_000;
const PORTS: u16 = 15_000;
/// Processes that run at once start their search this far from one another.
const PORTS_PER_PROCESS: u32 = 97;

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);
static NEXT_NAME: AtomicUsize = AtomicUsize::new(0);

/// The directory that Cargo builds into.
///
/// # Panics
/// When the test binary does not lie in one.
pub fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its binary");
    let target = test.ancestors().nth(3).expect("test binaries are in <target>/<profile>/deps");
    target.to_path_buf()
}

/// A name that starts with `stem` and that no other call in this process returned.
pub fn unique(stem: &str) -> String {
    format!("{stem}-{}", NEXT_NAME.fetch_add(1, Ordering::Relaxed))
}

/// A TCP port that nobody listens on and that no other call in this process returned.
///
/// # Panics
/// When none is left.
pub fn free_port() -> u16 {
    let start = u16::try_from(std::process::id() * PORTS_PER_PROCESS % u32::from(PORTS))
        .expect("a remainder of PORTS fits");
    (0..PORTS)
        .map(|_| {
            let step = NEXT_PORT.fetch_add(1, Ordering::Relaxed) % PORTS;
            FIRST_PORT + (start + step) % PORTS
        })
        .find(|port| is_free(*port))
        .expect("one of fifteen thousand ports is free")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A directory of one test, removed with the value.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Makes an empty directory whose name starts with `stem`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(stem: &str) -> Self {
        let name = format!("{}-{}", std::process::id(), unique(stem));
        let path = target_dir().join("test-homes").join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).expect("what an earlier process left can be removed");
        }
        std::fs::create_dir_all(&path).expect("the target directory is writable");
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::env::var_os("KLAMM_TEST_KEEP").is_none()
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            eprintln!("{} stays behind: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_empty_and_goes_with_its_value() {
        let directory = Directory::new("place");
        let path = directory.path().to_path_buf();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        std::fs::write(path.join("file"), b"x").unwrap();
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn no_two_ports_and_no_two_names_are_the_same() {
        assert_ne!(free_port(), free_port());
        assert_ne!(unique("topic"), unique("topic"));
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }
}
