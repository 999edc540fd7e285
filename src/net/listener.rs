//! Accepting connections, within limits.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::connection::{self, ConnectionLimits};
use super::connection_quotas::{ConnectionQuotas, Slot};
use super::descriptors;
use super::service::{ConnectionInfo, ListenerKind, Service};

/// The accept backlog of the kernel, unless `socket.listen.backlog.size` is set.
const BACKLOG: u32 = 1024;
/// How long accepting pauses when descriptors are scarce: one must be closed first.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);

/// The options of a listener.
#[derive(Debug, Clone)]
pub(crate) struct ListenerOptions {
    pub(crate) name: Arc<str>,
    pub(crate) kind: ListenerKind,
    pub(crate) socket: SocketOptions,
    pub(crate) connection: ConnectionLimits,
}

/// Socket options; `None` keeps the default of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SocketOptions {
    pub(crate) backlog: Option<u32>,
    pub(crate) send_buffer_bytes: Option<u32>,
    pub(crate) receive_buffer_bytes: Option<u32>,
}

/// A bound socket, not accepting yet.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    options: ListenerOptions,
    /// Accepting is paused for lack of descriptors, which has been logged.
    paused: bool,
}

impl Listener {
    /// Binds the first address that the host resolves to, IPv4 before IPv6 as in Java; an empty host means all
    /// addresses.
    pub(crate) async fn bind(host: &str, port: u16, options: ListenerOptions) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses(host, port).await? {
            match bind(address, options.socket) {
                Ok(socket) => return Ok(Self { socket, options, paused: false }),
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

    pub(crate) fn kind(&self) -> ListenerKind {
        self.options.kind
    }

    /// Accepts and serves connections until `stop`.
    pub(crate) async fn run(
        mut self,
        service: Arc<dyn Service>,
        quotas: Arc<ConnectionQuotas>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        loop {
            let (stream, peer, slot) = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.accept(&*service, &quotas) => accepted,
            };
            let Some(seat) = ConnectionQuotas::enter(&quotas, peer.ip()) else {
                warn!("connection from {peer} refused: max.connections.per.ip is reached");
                continue;
            };
            let info = Arc::new(ConnectionInfo {
                peer,
                listener: Arc::clone(&self.options.name),
                kind: self.options.kind,
                software: OnceLock::new(),
            });
            let service = Arc::clone(&service);
            let (share, busy_poll) = (quotas.request_bytes(), quotas.busy_poll());
            let limits = self.options.connection.clone();
            let stop = stop.clone();
            tasks.spawn(async move {
                connection::serve((service, info), stream, limits, share, busy_poll, stop).await;
                drop((slot, seat));
            });
        }
    }

    /// Waits for the next connection, within the limits. If descriptors are scarce, idle log files are closed for it.
    async fn accept(
        &mut self,
        service: &dyn Service,
        quotas: &Arc<ConnectionQuotas>,
    ) -> (TcpStream, SocketAddr, Option<Slot>) {
        loop {
            if descriptors::are_scarce(&self.socket) {
                service.release_descriptors();
            }
            if descriptors::are_scarce(&self.socket) {
                self.pause_accepting("no file descriptors are left for connections").await;
                continue;
            }
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    self.resume_accepting();
                    match prepare(&stream) {
                        Ok(()) => return (stream, canonical(peer), self.slot(quotas).await),
                        Err(error) => debug!("connection from {peer} lost at once: {error}"),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                    debug!("a connection was lost before it was accepted: {error}");
                }
                Err(error) => self.pause_accepting(error).await,
            }
        }
    }

    /// A slot for the connection that was just accepted. It is taken after accepting, so that an idle listener does not
    /// hold a slot that others need.
    async fn slot(&self, quotas: &Arc<ConnectionQuotas>) -> Option<Slot> {
        match self.options.kind {
            ListenerKind::Broker => Some(ConnectionQuotas::slot(quotas).await),
            // Connections of clients must not block those between controllers.
            ListenerKind::Controller => None,
        }
    }

    /// Pauses accepting; logs only the first pause of a series.
    async fn pause_accepting(&mut self, why: impl std::fmt::Display) {
        if !self.paused {
            warn!("accepting on {} is paused: {why}", self.options.name);
            self.paused = true;
        }
        tokio::time::sleep(OUT_OF_DESCRIPTORS_PAUSE).await;
    }

    fn resume_accepting(&mut self) {
        if self.paused {
            info!("accepting on {} is resumed", self.options.name);
            self.paused = false;
        }
    }
}

async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host.is_empty() {
        let any = [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)];
        return Ok(any.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    let mut found: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    Ok(found)
}

fn bind(address: SocketAddr, options: SocketOptions) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() && address.ip().is_unspecified() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit the buffer sizes of the listening socket.
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(address)?;
    socket.listen(options.backlog.unwrap_or(BACKLOG))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Without keepalive, a peer that vanished would keep its slot while its answer waits.
    Ok(sockopt::set_socket_keepalive(stream, true)?)
}

/// An IPv4 peer gets its IPv4 address also on a dual-stack socket.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ListenerOptions {
        let connection =
            ConnectionLimits { max_frame_bytes: 1024, max_idle: Duration::from_secs(1) };
        ListenerOptions {
            name: "PLAINTEXT".into(),
            kind: ListenerKind::Broker,
            socket: SocketOptions::default(),
            connection,
        }
    }

    #[tokio::test]
    async fn connections_have_the_buffers_that_are_configured() {
        const ASKED: u32 = 20_000;
        let socket = SocketOptions {
            backlog: Some(3),
            send_buffer_bytes: Some(ASKED),
            receive_buffer_bytes: Some(ASKED),
        };
        let listener =
            Listener::bind("127.0.0.1", 0, ListenerOptions { socket, ..options() }).await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.socket.accept().await.unwrap();
        // Linux doubles the size for its own bookkeeping.
        let sizes = [
            sockopt::socket_send_buffer_size(&accepted).unwrap(),
            sockopt::socket_recv_buffer_size(&accepted).unwrap(),
        ];
        assert_eq!(sizes, [2 * 20_000; 2]);
    }

    #[tokio::test]
    async fn no_host_stands_for_all_addresses_and_ipv4_peers_keep_theirs() {
        let listener = Listener::bind("", 0, options()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (_, peer) = listener.socket.accept().await.unwrap();
        assert_eq!(canonical(peer), client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_host_with_both_families_is_bound_by_its_ipv4_address() {
        let listener = Listener::bind("localhost", 0, options()).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
    }
}
