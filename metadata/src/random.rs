//! The random generator that decisions get as an argument, so that a seed reproduces them.

use klamm_protocol::Uuid;

/// A xoshiro256++ generator. Not for secrets.
#[derive(Debug, Clone)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// Starts from 32 bytes of the caller's entropy.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let mut state = [0x9E37_79B9_7F4A_7C15; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word ^= u64::from_le_bytes(bytes.try_into().expect("chunks of 8 bytes"));
        }
        if state == [0; 4] {
            state[0] = 1;
        }
        Self { state }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`, which is not 0. The bias is below 2^-32 for any list of brokers.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "there is a number below the bound");
        let bound = u64::try_from(bound).expect("usize has at most 64 bits");
        usize::try_from(self.next_u64() % bound).expect("below a usize")
    }

    /// Shuffles the items (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// A new id for a topic or a directory.
    pub fn uuid(&mut self) -> Uuid {
        loop {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&self.next_u64().to_be_bytes());
            bytes[8..].copy_from_slice(&self.next_u64().to_be_bytes());
            if let Some(id) = Uuid::from_random(bytes) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_repeats_its_numbers_and_another_gives_others() {
        let draw = |seed| {
            let mut random = Random::from_seed([seed; 32]);
            (0..8).map(|_| random.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn ids_are_distinct_and_shuffling_loses_nothing() {
        let mut random = Random::from_seed([0; 32]);
        assert_eq!((0..1000).map(|_| random.uuid()).collect::<BTreeSet<_>>().len(), 1000);
        let mut items: Vec<_> = (0..100).collect();
        random.shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
        assert!((0..1000).all(|_| random.below(3) < 3));
    }
}
