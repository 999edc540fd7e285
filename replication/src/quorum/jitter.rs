//! Random election timeouts from the caller's seed: equal seeds, equal behaviour.

/// A SplitMix64 sequence. Not for secrets.
#[derive(Debug, Clone)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 up to, not including, `bound`; 0 if the bound is.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let scaled = (((mixed ^ (mixed >> 31)) >> 32) * u64::from(bound)) >> 32;
        u32::try_from(scaled).expect("scaled below a u32 bound")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_the_bound_and_differ_between_seeds() {
        let mut first = Jitter::new(1);
        let mut second = Jitter::new(2);
        let firsts: Vec<u32> = (0..100).map(|_| first.below(1000)).collect();
        let seconds: Vec<u32> = (0..100).map(|_| second.below(1000)).collect();
        assert!(firsts.iter().all(|number| *number < 1000));
        assert_ne!(firsts, seconds);
        assert_eq!(first.below(0), 0);
    }
}
