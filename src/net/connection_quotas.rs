//! The limits of connections: in all, per IP address, and new ones per second.
//!
//! One instance for the broker, shared by its listeners. A connection's slot is freed on drop. The limits follow the
//! dynamic configuration; existing connections stay. Source: `kafka.network.ConnectionQuotas`.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::busy_poll::{BusyPoll, SharedBusyPoll};
use super::limits::{MAX_HELD_REQUEST_BYTES, Share};
use crate::config::dynamic::DynamicBrokerConfig;
use crate::config::parts::NetworkConfig;

/// The configured limits.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionQuotaLimits {
    /// `max.connections`
    pub(crate) max_connections: usize,
    /// `max.connections.per.ip`
    pub(crate) max_connections_per_ip: usize,
    /// `max.connections.per.ip.overrides`, its host names resolved.
    pub(crate) per_ip_overrides: HashMap<IpAddr, usize>,
    /// `max.connection.creation.rate`, in connections per second.
    pub(crate) creation_rate: u32,
}

/// A host of `max.connections.per.ip.overrides` that cannot be resolved.
#[derive(Debug, thiserror::Error)]
#[error("{host} of max.connections.per.ip.overrides: {source}")]
pub(crate) struct UnknownHost {
    pub(crate) host: String,
    pub(crate) source: io::Error,
}

impl ConnectionQuotaLimits {
    /// The limits of a configuration. Resolves its host names.
    pub(crate) async fn resolve(network: &NetworkConfig) -> Result<Self, UnknownHost> {
        let mut per_ip_overrides = HashMap::new();
        for (host, limit) in &network.max_connections_per_ip_overrides {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await;
            let found = found.map_err(|source| UnknownHost { host: host.clone(), source })?;
            let limit = count(*limit);
            per_ip_overrides.extend(found.map(|address| (address.ip().to_canonical(), limit)));
        }
        Ok(Self {
            max_connections: count(network.max_connections),
            max_connections_per_ip: count(network.max_connections_per_ip),
            per_ip_overrides,
            creation_rate: u32::try_from(network.max_connection_creation_rate).unwrap_or(u32::MAX),
        })
    }
}

impl ConnectionQuotaLimits {
    fn of(&self, ip: IpAddr) -> usize {
        self.per_ip_overrides.get(&ip).copied().unwrap_or(self.max_connections_per_ip)
    }
}

/// Converts a count. The configuration table refuses negative values.
fn count(value: i32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Counts all connections.
#[derive(Debug)]
pub(crate) struct ConnectionQuotas {
    limits: Mutex<ConnectionQuotaLimits>,
    open: Mutex<usize>,
    /// Notified when a slot may be free again.
    freed: Notify,
    counts: Mutex<HashMap<IpAddr, usize>>,
    rate: Mutex<CreationRate>,
    held_request_bytes: Arc<AtomicUsize>,
    busy_poll: Arc<SharedBusyPoll>,
}

/// A connection, counted in the total.
#[derive(Debug)]
pub(crate) struct Slot {
    quotas: Arc<ConnectionQuotas>,
}

/// A connection, counted for its IP address.
#[derive(Debug)]
pub(crate) struct Seat {
    quotas: Arc<ConnectionQuotas>,
    ip: IpAddr,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConnectionQuotas {
    pub(crate) fn new(limits: ConnectionQuotaLimits) -> Self {
        Self {
            rate: Mutex::new(CreationRate::new(limits.creation_rate, Instant::now())),
            limits: Mutex::new(limits),
            open: Mutex::default(),
            freed: Notify::new(),
            counts: Mutex::default(),
            held_request_bytes: Arc::default(),
            busy_poll: Arc::default(),
        }
    }

    /// Applies every change of the dynamic configuration, until `stop`.
    pub(crate) async fn follow(
        self: Arc<Self>,
        config: Arc<DynamicBrokerConfig>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = config.changed.notified() => {}
            }
            match ConnectionQuotaLimits::resolve(&config.current().network).await {
                Ok(limits) => self.set_limits(limits),
                Err(unknown) => warn!("the new limits of connections are not applied: {unknown}"),
            }
        }
    }

    fn set_limits(&self, limits: ConnectionQuotaLimits) {
        lock(&self.rate).set(limits.creation_rate);
        *lock(&self.limits) = limits;
        self.freed.notify_waiters();
    }

    /// Waits until one more connection may be accepted.
    pub(crate) async fn slot(this: &Arc<Self>) -> Slot {
        let slot = loop {
            // Registered before the check, so that a slot freed in between is not missed.
            let freed = this.freed.notified();
            if let Some(slot) = Self::free_slot(this) {
                break slot;
            }
            freed.await;
        };
        let wait = lock(&this.rate).take(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        slot
    }

    fn free_slot(this: &Arc<Self>) -> Option<Slot> {
        let max = lock(&this.limits).max_connections;
        let mut open = lock(&this.open);
        if *open >= max {
            return None;
        }
        *open += 1;
        Some(Slot { quotas: Arc::clone(this) })
    }

    /// Counts a connection from `ip`; `None` if that address has reached its limit.
    pub(crate) fn enter(this: &Arc<Self>, ip: IpAddr) -> Option<Seat> {
        let limit = lock(&this.limits).of(ip);
        let mut counts = lock(&this.counts);
        if counts.get(&ip).copied().unwrap_or(0) >= limit {
            return None;
        }
        *counts.entry(ip).or_default() += 1;
        Some(Seat { quotas: Arc::clone(this), ip })
    }

    /// The numbers of connections and of their addresses.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (*lock(&self.open), lock(&self.counts).len())
    }

    /// The busy-polling state of a connection.
    pub(crate) fn busy_poll(&self) -> BusyPoll {
        BusyPoll::new(&self.busy_poll)
    }

    /// A connection's share, initially empty, of the request bytes that all connections may hold.
    pub(crate) fn request_bytes(&self) -> Share {
        Share::none(&self.held_request_bytes, MAX_HELD_REQUEST_BYTES)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *lock(&self.quotas.open) -= 1;
        self.quotas.freed.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = lock(&self.quotas.counts);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

/// Spreads new connections over time. Those of one second may come at once.
#[derive(Debug)]
struct CreationRate {
    interval: Duration,
    /// The time at which all connections so far would have been accepted at an even rate.
    paid_until: Instant,
}

impl CreationRate {
    const BURST: Duration = Duration::from_secs(1);
    /// The interval for a rate of zero: practically never.
    const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

    fn new(per_second: u32, now: Instant) -> Self {
        Self { interval: Self::interval(per_second), paid_until: now }
    }

    fn set(&mut self, per_second: u32) {
        self.interval = Self::interval(per_second);
    }

    fn interval(per_second: u32) -> Duration {
        Self::BURST.checked_div(per_second).unwrap_or(Self::NEVER)
    }

    /// Counts one connection and returns how long it has to wait.
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

    #[tokio::test]
    async fn a_raised_limit_lets_in_who_waits_and_a_lowered_one_lets_stay_who_is_there() {
        let quotas = quotas(1, &[]);
        let limits = |max_connections| ConnectionQuotaLimits {
            max_connections,
            ..lock(&quotas.limits).clone()
        };
        quotas.set_limits(limits(1));
        let first = ConnectionQuotas::slot(&quotas).await;
        let waiting = tokio::spawn({
            let quotas = Arc::clone(&quotas);
            async move { ConnectionQuotas::slot(&quotas).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        quotas.set_limits(limits(2));
        let second = waiting.await.unwrap();
        quotas.set_limits(limits(1));
        drop(first);
        assert!(ConnectionQuotas::free_slot(&quotas).is_none(), "one is still there");
        drop(second);
        assert!(ConnectionQuotas::free_slot(&quotas).is_some());
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
