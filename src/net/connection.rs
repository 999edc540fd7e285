//! One connection: frames in, requests begun in order, answers out in order.
//!
//! The task of the connection reads, dispatches, appends and writes by itself: nothing is handed to
//! another thread on the way. While an acks=all produce or a fetch waits, the next requests are
//! read; any other request is carried through before the next one is looked at, as in Kafka.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::frame::{Filled, FrameReader};
use super::limits::{FIRST_FRAME_MAX_BYTES, MAX_PIPELINED_REQUESTS, Share};
use super::request::{ConnectionError, Request};
use super::response::Response;
use super::write::WriteQueue;
use crate::dispatch::{self, FutureAnswer, Handled};
use crate::node::Node;

/// What a handler knows about the connection of its request.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) node: Arc<Node>,
    pub(crate) peer: SocketAddr,
    /// The name of the listener that the client came in by.
    pub(crate) listener: Arc<str>,
}

/// What a listener grants its connections.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimits {
    pub(crate) max_frame_bytes: usize,
    pub(crate) max_idle: Duration,
}

/// An answer in its place in the queue.
enum Pending {
    Answered(Response),
    Waiting(FutureAnswer),
}

/// Serves a connection until its peer leaves, misbehaves or idles, or the broker stops.
pub(crate) async fn serve(
    context: Context,
    stream: TcpStream,
    limits: ConnectionLimits,
    unfinished: Share,
    stop: CancellationToken,
) {
    let peer = context.peer;
    let mut connection = Connection {
        context,
        stream,
        reader: FrameReader::new(unfinished),
        pending: VecDeque::new(),
        out: WriteQueue::default(),
        exclusive: false,
        ended: false,
        proven: false,
        last_active: Instant::now(),
        limits,
    };
    match connection.run(stop).await {
        Ok(()) => debug!("connection from {peer} closed"),
        Err(ConnectionError::Io(error)) => debug!("connection from {peer} lost: {error}"),
        Err(error) => info!("connection from {peer} closed: {error}"),
    }
}

struct Connection {
    context: Context,
    stream: TcpStream,
    reader: FrameReader,
    pending: VecDeque<Pending>,
    out: WriteQueue,
    /// A request is under way that must be answered before the next one is begun.
    exclusive: bool,
    /// The peer will send nothing more; what it asked for is still answered.
    ended: bool,
    /// A valid request has been received.
    proven: bool,
    last_active: Instant,
    limits: ConnectionLimits,
}

/// What the connection woke up for.
enum Event {
    Readable,
    Answer(Response),
    Idle,
    Stop,
}

impl Connection {
    async fn run(&mut self, stop: CancellationToken) -> Result<(), ConnectionError> {
        let idle = tokio::time::sleep(self.limits.max_idle);
        tokio::pin!(idle);
        let mut failure = None;
        loop {
            // What was asked before a request that breaks the connection is still answered.
            if failure.is_none() {
                failure = self.begin_requests().err();
                self.ended |= failure.is_some();
            }
            self.out.flush(&self.stream).await?;
            if self.ended && self.pending.is_empty() {
                return failure.map_or(Ok(()), Err);
            }
            match self.next_event(idle.as_mut(), &stop).await? {
                Event::Stop => return Ok(()),
                Event::Answer(response) => self.on_answer(response),
                Event::Readable => self.ended |= self.reader.fill(&self.stream)? == Filled::End,
                Event::Idle if self.is_idle() => return Ok(()),
                Event::Idle => idle.as_mut().reset(self.last_active + self.limits.max_idle),
            }
        }
    }

    async fn next_event(
        &mut self,
        idle: std::pin::Pin<&mut Sleep>,
        stop: &CancellationToken,
    ) -> Result<Event, ConnectionError> {
        let may_read = !self.ended && !self.exclusive && self.pending.len() < MAX_PIPELINED_REQUESTS;
        if self.pending.is_empty() {
            self.reader.rest();
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(Event::Stop),
            answer = front(&mut self.pending), if !self.pending.is_empty() => {
                answer.map(Event::Answer)
            }
            readable = self.stream.readable(), if may_read => {
                readable?;
                Ok(Event::Readable)
            }
            () = idle => Ok(Event::Idle),
        }
    }

    /// Begins the requests that have arrived, in their order, as far as that is allowed.
    fn begin_requests(&mut self) -> Result<(), ConnectionError> {
        while !self.exclusive && self.pending.len() < MAX_PIPELINED_REQUESTS {
            let max = if self.proven {
                self.limits.max_frame_bytes
            } else {
                self.limits.max_frame_bytes.min(FIRST_FRAME_MAX_BYTES)
            };
            let Some(frame) = self.reader.next_frame(max)? else { break };
            self.last_active = Instant::now();
            let request = Request::parse(frame)?;
            let exclusive = dispatch::is_exclusive(request.api_key);
            match dispatch::handle(&self.context, request)? {
                Handled::Unanswered => {}
                Handled::Answered(response) if self.pending.is_empty() => self.out.push(response),
                Handled::Answered(response) => {
                    self.pending.push_back(Pending::Answered(response));
                }
                Handled::Waiting(answer) => {
                    self.pending.push_back(Pending::Waiting(answer));
                    self.exclusive = exclusive;
                }
            }
            self.proven = true;
        }
        Ok(())
    }

    /// Queues the first pending answer, and those behind it that were only waiting for their turn.
    fn on_answer(&mut self, response: Response) {
        self.pending.pop_front();
        self.out.push(response);
        while let Some(Pending::Answered(_)) = self.pending.front() {
            if let Some(Pending::Answered(response)) = self.pending.pop_front() {
                self.out.push(response);
            }
        }
        if self.pending.is_empty() {
            self.exclusive = false;
        }
        self.last_active = Instant::now();
    }

    fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.last_active.elapsed() >= self.limits.max_idle
    }
}

/// The answer at the front of the queue, when it is there. Cancel-safe: the future stays queued.
async fn front(pending: &mut VecDeque<Pending>) -> Result<Response, ConnectionError> {
    match pending.front_mut() {
        Some(Pending::Waiting(answer)) => answer.as_mut().await,
        _ => unreachable!("only a waiting answer stays at the front, see on_answer"),
    }
}
