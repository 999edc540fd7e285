//! Randomness from the operating system, for ids that must not repeat.

use klamm_protocol::Uuid;

/// Random bytes.
///
/// # Panics If the operating system has no randomness: no unique id can be made then.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
                .expect("the operating system gives randomness");
    }
    bytes
}

/// A new id.
pub(crate) fn uuid() -> Uuid {
    loop {
        if let Some(id) = Uuid::from_random(bytes()) {
            return id;
        }
    }
}
