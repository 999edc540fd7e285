//! CRC-32C (Castagnoli), the checksum of record batches, and its repair after a header patch.
//!
//! The body of a batch is read once, for the check. After a change of the header the new checksum is derived from the
//! old one, so that damage in between stays detectable.

use crc_fast::CrcAlgorithm::Crc32Iscsi;

/// The CRC-32C of `data`.
pub fn crc32c(data: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(data)
}

/// The CRC-32C of bytes whose checksum is `crc`, followed by `data`.
pub fn continued(crc: u32, data: &[u8]) -> u32 {
    combined(crc, crc32c(data), data.len() as u64)
}

/// The CRC-32C of `new_prefix` followed by `rest_len` bytes, given that `crc` is the one of
/// `old_prefix` followed by the same bytes.
///
/// A CRC is linear: replacing a prefix changes it by the difference of the prefixes' checksums shifted by the length of
/// the rest, so the rest is not needed.
pub fn with_replaced_prefix(crc: u32, old_prefix: &[u8], new_prefix: &[u8], rest_len: u64) -> u32 {
    assert_eq!(old_prefix.len(), new_prefix.len(), "a patch keeps the length of what it replaces");
    let difference = crc32c(old_prefix) ^ crc32c(new_prefix);
    combined(difference, crc, rest_len)
}

fn combined(first: u32, second: u32, second_len: u64) -> u32 {
    let crc =
        crc_fast::checksum_combine(Crc32Iscsi, u64::from(first), u64::from(second), second_len);
    u32::try_from(crc).expect("a 32-bit checksum fits 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnoli() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn a_continued_checksum_is_that_of_both_parts() {
        for split in [0, 1, 5, 9] {
            let (first, second) = b"123456789".split_at(split);
            assert_eq!(continued(crc32c(first), second), 0xe306_9283);
        }
    }

    #[test]
    fn a_replaced_prefix_gives_the_checksum_of_the_new_bytes() {
        for rest_len in [0usize, 1, 7, 64, 1_000, 65_537] {
            let rest: Vec<u8> = (0..=250).cycle().step_by(31).take(rest_len).collect();
            let old = [vec![7u8; 40], rest.clone()].concat();
            let new = [vec![9u8; 40], rest].concat();
            let patched =
                with_replaced_prefix(crc32c(&old), &old[..40], &new[..40], rest_len as u64);
            assert_eq!(patched, crc32c(&new), "rest of {rest_len} bytes");
        }
    }

    #[test]
    fn a_replaced_prefix_does_not_hide_damage_in_the_rest() {
        let good = [vec![7u8; 40], vec![1u8; 100]].concat();
        let mut damaged = [vec![9u8; 40], vec![1u8; 100]].concat();
        damaged[90] ^= 1;
        let patched = with_replaced_prefix(crc32c(&good), &good[..40], &damaged[..40], 100);
        assert_ne!(patched, crc32c(&damaged));
    }
}
