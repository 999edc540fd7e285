//! The checks of a fetch, or of any request that names a leader epoch, before the log is read
//! (KIP-320, KIP-595; Kafka's `checkCurrentLeaderEpoch` and `readRecords`).

use crate::OffsetAndEpoch;
use crate::divergence::{self, Comparison};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{LeaderEpoch, Offset};

/// The answer to a fetch with the epoch of its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchPosition {
    /// Read from the fetch offset.
    Valid,
    /// Answer `diverging_epoch` with this, no records, and do not count the fetch (KAFKA-13141).
    Diverging(OffsetAndEpoch),
}

/// Compares the leader epoch that a request names, if it names one, with the partition's own.
pub(super) fn check_leader_epoch(
    requested: Option<LeaderEpoch>,
    current: LeaderEpoch,
) -> Result<(), ErrorCode> {
    match requested {
        Some(older) if older < current => Err(ErrorCode::FencedLeaderEpoch),
        Some(newer) if newer > current => Err(ErrorCode::UnknownLeaderEpoch),
        Some(_) | None => Ok(()),
    }
}

/// Compares the fetcher's log with this one, if the request says of which epoch its last record is. `epoch_end` is this
/// log's end offset of that epoch, or of the largest one below it.
pub(super) fn check_position(
    fetch_offset: Offset,
    last_fetched_epoch: Option<LeaderEpoch>,
    epoch_end: Option<OffsetAndEpoch>,
    log_start_offset: Offset,
) -> Result<FetchPosition, ErrorCode> {
    let Some(last_fetched_epoch) = last_fetched_epoch else { return Ok(FetchPosition::Valid) };
    let comparison = divergence::compare(epoch_end, fetch_offset, last_fetched_epoch);
    if comparison == Comparison::Unknown || fetch_offset < log_start_offset {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    Ok(match comparison {
        Comparison::Diverging(end) => FetchPosition::Diverging(end),
        Comparison::Prefix | Comparison::Unknown => FetchPosition::Valid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EpochHistory, EpochStart};

    #[test]
    fn a_request_must_name_the_current_epoch_or_none() {
        assert_eq!(check_leader_epoch(None, 5), Ok(()));
        assert_eq!(check_leader_epoch(Some(5), 5), Ok(()));
        assert_eq!(check_leader_epoch(Some(4), 5), Err(ErrorCode::FencedLeaderEpoch));
        assert_eq!(check_leader_epoch(Some(6), 5), Err(ErrorCode::UnknownLeaderEpoch));
    }

    #[test]
    fn a_fetch_is_valid_diverging_or_out_of_range() {
        let epochs = EpochHistory::from_entries([
            EpochStart { epoch: 1, start_offset: 5 },
            EpochStart { epoch: 3, start_offset: 10 },
        ]);
        let check = |offset, epoch| {
            check_position(offset, Some(epoch), epochs.end_offset_for(epoch, 20), 5)
        };
        assert_eq!(check_position(100, None, None, 5), Ok(FetchPosition::Valid));
        assert_eq!(check(20, 3), Ok(FetchPosition::Valid));
        assert_eq!(check(10, 1), Ok(FetchPosition::Valid));
        let diverging = Ok(FetchPosition::Diverging(OffsetAndEpoch::new(10, 1)));
        assert_eq!(check(12, 1), diverging);
        assert_eq!(check(12, 2), diverging);
        assert_eq!(check(12, 4), Err(ErrorCode::OffsetOutOfRange));
        assert_eq!(check(4, 1), Err(ErrorCode::OffsetOutOfRange));
    }
}
