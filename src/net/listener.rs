//! Accepting connections, within limits.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection::{self, ConnectionLimits, Context};
use super::limits::{MAX_UNFINISHED_FRAME_BYTES, Share};
use crate::node::Node;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;
/// How long accepting pauses when the process has no file descriptor left: one must be closed first.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);

/// What a listener is to do.
#[derive(Debug, Clone)]
pub(crate) struct ListenerOptions {
    pub(crate) name: Arc<str>,
    pub(crate) connection: ConnectionLimits,
    /// `max.connections`
    pub(crate) max_connections: usize,
    /// `max.connections.per.ip`
    pub(crate) max_connections_per_ip: usize,
}

/// A bound socket, not accepting yet.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    options: ListenerOptions,
}

impl Listener {
    /// Binds the first address that the host resolves to.
    pub(crate) async fn bind(
        host: &str,
        port: u16,
        options: ListenerOptions,
    ) -> io::Result<Self> {
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in tokio::net::lookup_host((host, port)).await? {
            match bind(address) {
                Ok(socket) => return Ok(Self { socket, options }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.options.name
    }

    /// Accepts and serves connections until `stop`.
    pub(crate) async fn run(self, node: Arc<Node>, tasks: TaskTracker, stop: CancellationToken) {
        let permits = self.options.max_connections.min(Semaphore::MAX_PERMITS);
        let slots = Arc::new(Semaphore::new(permits));
        let per_ip = Arc::new(PerIp::new(self.options.max_connections_per_ip));
        let unfinished = Arc::new(AtomicUsize::new(0));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.accept(&slots) => accepted,
            };
            let Some((stream, peer, slot)) = accepted else { continue };
            let Some(seat) = PerIp::enter(&per_ip, peer.ip()) else {
                warn!("connection from {peer} refused: max.connections.per.ip is reached");
                continue;
            };
            let context = Context {
                node: Arc::clone(&node),
                peer,
                listener: Arc::clone(&self.options.name),
            };
            let share = Share::none(&unfinished, MAX_UNFINISHED_FRAME_BYTES);
            let limits = self.options.connection.clone();
            let stop = stop.clone();
            tasks.spawn(async move {
                connection::serve(context, stream, limits, share, stop).await;
                drop((slot, seat));
            });
        }
    }

    async fn accept(
        &self,
        slots: &Arc<Semaphore>,
    ) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
        match self.socket.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!("connection from {peer} lost at once: {error}");
                    return None;
                }
                Some((stream, peer, slot))
            }
            Err(error) => {
                warn!("accepting on {} paused: {error}", self.options.name);
                tokio::time::sleep(OUT_OF_DESCRIPTORS_PAUSE).await;
                None
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How many connections each address has.
#[derive(Debug)]
struct PerIp {
    limit: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place in the count of its address; given back on drop.
#[derive(Debug)]
struct Seat {
    per_ip: Arc<PerIp>,
    ip: IpAddr,
}

impl PerIp {
    fn new(limit: usize) -> Self {
        Self { limit, counts: Mutex::default() }
    }

    fn enter(this: &Arc<Self>, ip: IpAddr) -> Option<Seat> {
        let mut counts = this.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        if *count >= this.limit {
            return None;
        }
        *count += 1;
        Some(Seat { per_ip: Arc::clone(this), ip })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.per_ip.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_as_many_seats_as_the_limit_and_back_what_it_leaves() {
        let per_ip = Arc::new(PerIp::new(2));
        let ip = IpAddr::from([127, 0, 0, 1]);
        let seats = (PerIp::enter(&per_ip, ip).unwrap(), PerIp::enter(&per_ip, ip).unwrap());
        assert!(PerIp::enter(&per_ip, ip).is_none());
        drop(seats);
        assert!(PerIp::enter(&per_ip, ip).is_some());
        assert!(per_ip.counts.lock().unwrap().is_empty());
    }
}
