//! How many connections there may be: in all, of one address, and new ones in a second.
//!
//! One value for the broker, shared by its listeners. A place that was taken is given back on drop.
//! Source: `kafka.network.ConnectionQuotas`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::limits::{MAX_HELD_REQUEST_BYTES, Share};
use super::lookout::{Lookout, Lookouts};

/// What the configuration grants.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionQuotaLimits {
    /// `max.connections`
    pub(crate) max_connections: usize,
    /// `max.connections.per.ip`
    pub(crate) max_connections_per_ip: usize,
    /// `max.connections.per.ip.overrides`, its host names resolved.
    pub(crate) per_ip_overrides: HashMap<IpAddr, usize>,
    /// `max.connection.creation.rate`, in connections a second.
    pub(crate) creation_rate: u32,
}

/// The places of all connections.
#[derive(Debug)]
pub(crate) struct ConnectionQuotas {
    slots: Arc<Semaphore>,
    max_per_ip: usize,
    overrides: HashMap<IpAddr, usize>,
    counts: Mutex<HashMap<IpAddr, usize>>,
    rate: Mutex<CreationRate>,
    held_request_bytes: Arc<AtomicUsize>,
    lookouts: Arc<Lookouts>,
}

/// A connection's place in the count of its address.
#[derive(Debug)]
pub(crate) struct Seat {
    quotas: Arc<ConnectionQuotas>,
    ip: IpAddr,
}

impl ConnectionQuotas {
    pub(crate) fn new(limits: ConnectionQuotaLimits) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS))),
            max_per_ip: limits.max_connections_per_ip,
            overrides: limits.per_ip_overrides,
            counts: Mutex::default(),
            rate: Mutex::new(CreationRate::new(limits.creation_rate, Instant::now())),
            held_request_bytes: Arc::default(),
            lookouts: Arc::default(),
        }
    }

    /// Waits until one more connection may be accepted.
    pub(crate) async fn slot(&self) -> OwnedSemaphorePermit {
        let slots = Arc::clone(&self.slots);
        let slot = slots.acquire_owned().await.expect("the semaphore is never closed");
        let wait = self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        slot
    }

    /// A place for a connection from `ip`, unless that address has as many as it may have.
    pub(crate) fn enter(this: &Arc<Self>, ip: IpAddr) -> Option<Seat> {
        let limit = this.overrides.get(&ip).copied().unwrap_or(this.max_per_ip);
        let mut counts = this.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.get(&ip).copied().unwrap_or(0) >= limit {
            return None;
        }
        *counts.entry(ip).or_default() += 1;
        Some(Seat { quotas: Arc::clone(this), ip })
    }

    /// A connection's part in who stays awake for the next request.
    pub(crate) fn lookout(&self) -> Lookout {
        Lookout::new(&self.lookouts)
    }

    /// A connection's share, of nothing yet, of the bytes of requests that all may hold.
    pub(crate) fn request_bytes(&self) -> Share {
        Share::none(&self.held_request_bytes, MAX_HELD_REQUEST_BYTES)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.quotas.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

/// Spreads connections over time. A second's worth of them may come at once.
#[derive(Debug)]
struct CreationRate {
    interval: Duration,
    /// When everything that was taken so far would have been taken at the even rate.
    paid_until: Instant,
}

impl CreationRate {
    const BURST: Duration = Duration::from_secs(1);
    /// The interval of a rate of zero: as good as never.
    const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

    fn new(per_second: u32, now: Instant) -> Self {
        let interval = Self::BURST.checked_div(per_second).unwrap_or(Self::NEVER);
        Self { interval, paid_until: now }
    }

    /// Takes one connection and says how long it has to wait.
    fn take(&mut self, now: Instant) -> Duration {
        let due = self.paid_until.max(now) + self.interval;
        self.paid_until = due;
        due.saturating_duration_since(now + Self::BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(max_per_ip: usize, overrides: &[(IpAddr, usize)]) -> Arc<ConnectionQuotas> {
        Arc::new(ConnectionQuotas::new(ConnectionQuotaLimits {
            max_connections: usize::MAX,
            max_connections_per_ip: max_per_ip,
            per_ip_overrides: overrides.iter().copied().collect(),
            creation_rate: u32::MAX,
        }))
    }

    #[test]
    fn an_address_gets_as_many_seats_as_the_limit_and_back_what_it_leaves() {
        let quotas = quotas(2, &[]);
        let ip = IpAddr::from([127, 0, 0, 1]);
        let enter = || ConnectionQuotas::enter(&quotas, ip);
        let seats = (enter().unwrap(), enter().unwrap());
        assert!(enter().is_none());
        drop(seats);
        assert!(enter().is_some());
        assert!(quotas.counts.lock().unwrap().is_empty());
    }

    #[test]
    fn an_override_replaces_the_limit_of_its_address_only() {
        let (favoured, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let quotas = quotas(0, &[(favoured, 1)]);
        let seat = ConnectionQuotas::enter(&quotas, favoured);
        assert!(seat.is_some());
        assert!(ConnectionQuotas::enter(&quotas, favoured).is_none());
        assert!(ConnectionQuotas::enter(&quotas, other).is_none());
        drop(seat);
        assert!(quotas.counts.lock().unwrap().is_empty(), "refused addresses are remembered");
    }

    #[test]
    fn connections_beyond_a_seconds_worth_wait_for_their_turn() {
        let now = Instant::now();
        let mut rate = CreationRate::new(4, now);
        let waits = [(); 6].map(|()| rate.take(now).as_millis());
        assert_eq!(waits, [0, 0, 0, 0, 250, 500]);
        assert_eq!(rate.take(now + Duration::from_secs(10)), Duration::ZERO);
    }

    #[test]
    fn the_default_rate_never_makes_anybody_wait() {
        let now = Instant::now();
        let mut rate = CreationRate::new(u32::try_from(i32::MAX).unwrap(), now);
        assert!((0..1_000_000).all(|_| rate.take(now).is_zero()));
    }
}
