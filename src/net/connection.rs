//! One connection: frames in, requests begun in order, answers out in order.
//!
//! The task of the connection reads, dispatches, appends and writes by itself: no work is handed to another thread.
//! While an acks=all produce or a fetch waits, the next requests are read; any other request is completed before the
//! next one begins, as in Kafka.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::busy_poll::BusyPoll;
use super::frame::{Filled, FrameReader};
use super::limits::{
    FIRST_FRAME_MAX_BYTES, MAX_PIPELINED_BYTES, MAX_PIPELINED_REQUESTS, MAX_QUEUED_ANSWER_BYTES,
    Share, TURN,
};
use super::response::Response;
use super::service::{Begun, ConnectionError, ConnectionInfo, FutureResponse, Service};
use super::write::WriteQueue;

/// The limits of a listener's connections.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimits {
    pub(crate) max_frame_bytes: usize,
    pub(crate) max_idle: Duration,
}

/// An answer in the queue, in the order of the requests.
struct Pending {
    answer: Answer,
    /// Size of the request, which stays in memory until the answer is sent.
    request_bytes: usize,
}

enum Answer {
    Ready(Response),
    Waiting(FutureResponse),
}

/// Serves a connection until the peer closes it, breaks the protocol or is idle too long, or the broker stops.
pub(crate) async fn serve(
    (service, info): (Arc<dyn Service>, Arc<ConnectionInfo>),
    stream: TcpStream,
    limits: ConnectionLimits,
    held: Share,
    busy_poll: BusyPoll,
    stop: CancellationToken,
) {
    let (peer, told) = (info.peer, Arc::clone(&info));
    let mut connection = Connection {
        service,
        info,
        stream,
        reader: FrameReader::default(),
        pending: VecDeque::new(),
        pending_bytes: 0,
        held,
        busy_poll,
        out: WriteQueue::default(),
        exclusive: false,
        muted: false,
        ended: false,
        proven: false,
        last_active: Instant::now(),
        limits,
    };
    match connection.run(stop).await {
        Ok(()) => debug!("connection from {peer} closed"),
        Err(ConnectionError::Io(error)) => debug!("connection from {peer} lost: {error}"),
        Err(error) => match told.software.get() {
            Some(software) => info!("connection from {peer} closed: {error} (client {software})"),
            None => info!("connection from {peer} closed: {error}"),
        },
    }
}

struct Connection {
    service: Arc<dyn Service>,
    info: Arc<ConnectionInfo>,
    stream: TcpStream,
    reader: FrameReader,
    pending: VecDeque<Pending>,
    /// Size of the pending requests.
    pending_bytes: usize,
    /// This connection's share of the request bytes that all connections may hold together.
    held: Share,
    busy_poll: BusyPoll,
    out: WriteQueue,
    /// The last request must be answered before the next one begins.
    exclusive: bool,
    /// All connections together hold too many request bytes: nothing is read until an answer is sent.
    muted: bool,
    /// The peer will send nothing more; its pending requests are still answered.
    ended: bool,
    /// A valid request has been received.
    proven: bool,
    last_active: Instant,
    limits: ConnectionLimits,
}

/// The event that woke the connection.
enum Event {
    Readable,
    Writable,
    Answer(Response),
    Idle,
    Stop,
}

/// How many of the received requests were begun.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// All that may begin now.
    All,
    /// Some: the turn is over, or enough answers wait to be sent first.
    Some,
}

impl Connection {
    async fn run(&mut self, stop: CancellationToken) -> Result<(), ConnectionError> {
        let idle = tokio::time::sleep(self.limits.max_idle);
        tokio::pin!(idle);
        let mut failure = None;
        loop {
            // A peer that sends without a pause must not keep the thread from other connections.
            tokio::task::consume_budget().await;
            self.send()?;
            let mut begun = Progress::All;
            if self.out.is_empty() {
                // The requests before one that breaks the connection are still answered.
                if failure.is_none() {
                    match self.begin_requests() {
                        Ok(how_far) => begun = how_far,
                        Err(error) => failure = Some(error),
                    }
                    self.ended |= failure.is_some();
                }
                self.send()?;
            }
            if self.out.is_empty() {
                if begun == Progress::Some {
                    tokio::task::yield_now().await;
                    continue;
                }
                if self.ended && self.pending.is_empty() {
                    return failure.map_or(Ok(()), Err);
                }
            }
            if self.busy_poll().await? {
                continue;
            }
            match self.next_event(idle.as_mut(), &stop).await? {
                Event::Stop => return Ok(()),
                Event::Answer(response) => self.on_answer(response),
                Event::Readable => self.ended |= self.reader.fill(&self.stream)? == Filled::End,
                Event::Writable => {}
                Event::Idle if self.is_idle() => return Ok(()),
                Event::Idle => idle.as_mut().reset(self.last_active + self.limits.max_idle),
            }
        }
    }

    /// Sends as much as the socket accepts.
    fn send(&mut self) -> Result<(), ConnectionError> {
        if !self.out.is_empty() && self.out.send(&self.stream)? > 0 {
            self.last_active = Instant::now();
        }
        Ok(())
    }

    /// Polls the socket for a moment if the next request is likely to come at once; returns whether data or the end of
    /// the stream came.
    async fn busy_poll(&mut self) -> Result<bool, ConnectionError> {
        if !self.out.is_empty() || !self.pending.is_empty() || self.ended || self.muted {
            return Ok(false);
        }
        let Some(permit) = self.busy_poll.permit(self.last_active) else { return Ok(false) };
        while Instant::now() < permit.until {
            // Other tasks run first; if there are none, the runtime polls its sockets.
            tokio::task::yield_now().await;
            match self.reader.fill(&self.stream)? {
                Filled::Nothing => {}
                filled => {
                    self.ended |= filled == Filled::End;
                    return Ok(true);
                }
            }
        }
        self.busy_poll.on_timeout();
        Ok(false)
    }

    /// Waits for the next event. While answers wait for the socket, no request is read: a peer that does not read is
    /// not served.
    async fn next_event(
        &mut self,
        idle: std::pin::Pin<&mut Sleep>,
        stop: &CancellationToken,
    ) -> Result<Event, ConnectionError> {
        let writes = !self.out.is_empty();
        let may_read = !writes && !self.ended && !self.muted && self.may_begin();
        self.reader.rest();
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(Event::Stop),
            writable = self.stream.writable(), if writes => {
                writable?;
                Ok(Event::Writable)
            }
            answer = front(&mut self.pending), if !writes && !self.pending.is_empty() => {
                answer.map(Event::Answer)
            }
            readable = self.stream.readable(), if may_read => {
                readable?;
                Ok(Event::Readable)
            }
            () = idle => Ok(Event::Idle),
        }
    }

    /// Whether the pending answers leave room for another request.
    fn may_begin(&self) -> bool {
        !self.exclusive
            && self.pending.len() < MAX_PIPELINED_REQUESTS
            && self.pending_bytes < MAX_PIPELINED_BYTES
    }

    /// Begins the received requests in order, as far as the limits allow.
    fn begin_requests(&mut self) -> Result<Progress, ConnectionError> {
        let turn_ends = Instant::now() + TURN;
        while self.may_begin() {
            if self.out.len() >= MAX_QUEUED_ANSWER_BYTES || Instant::now() >= turn_ends {
                return Ok(Progress::Some);
            }
            let max = if self.proven {
                self.limits.max_frame_bytes
            } else {
                self.limits.max_frame_bytes.min(FIRST_FRAME_MAX_BYTES)
            };
            let Some(frame) = self.reader.next_frame(max)? else { break };
            self.begin(frame)?;
        }
        self.account()?;
        Ok(Progress::All)
    }

    fn begin(&mut self, frame: Bytes) -> Result<(), ConnectionError> {
        let now = Instant::now();
        self.busy_poll.on_request(now - self.last_active);
        self.last_active = now;
        let request_bytes = frame.len();
        let answer = match self.service.begin(&self.info, frame)? {
            Begun::Unanswered => None,
            Begun::Answered(response) if self.pending.is_empty() => {
                self.out.push(response);
                None
            }
            Begun::Answered(response) => Some(Answer::Ready(response)),
            Begun::Waiting { response, holds_up } => {
                self.exclusive = holds_up;
                Some(Answer::Waiting(response))
            }
        };
        if let Some(answer) = answer {
            self.pending.push_back(Pending { answer, request_bytes });
            self.pending_bytes += request_bytes;
        }
        self.proven = true;
        Ok(())
    }

    /// Counts the request bytes of this connection against the bound of all connections.
    fn account(&mut self) -> Result<(), ConnectionError> {
        let counted = self.held.set(self.reader.held() + self.pending_bytes);
        self.muted = counted.is_err();
        if self.pending.is_empty() {
            counted?;
        }
        Ok(())
    }

    /// Queues the first pending answer, and the finished ones directly behind it.
    fn on_answer(&mut self, response: Response) {
        self.send_next(response);
        while let Some(Pending { answer: Answer::Ready(response), .. }) = self.pending.front_mut() {
            let response = std::mem::take(response);
            self.send_next(response);
        }
        if self.pending.is_empty() {
            self.exclusive = false;
        }
        self.last_active = Instant::now();
    }

    fn send_next(&mut self, response: Response) {
        let answered = self.pending.pop_front().expect("an answer comes from the front");
        self.pending_bytes -= answered.request_bytes;
        self.out.push(response);
    }

    /// As in Kafka, a connection that waits for an answer counts as idle too.
    fn is_idle(&self) -> bool {
        self.last_active.elapsed() >= self.limits.max_idle
    }
}

/// Waits for the answer at the front of the queue. Cancel-safe: the future stays queued.
async fn front(pending: &mut VecDeque<Pending>) -> Result<Response, ConnectionError> {
    match pending.front_mut() {
        Some(Pending { answer: Answer::Waiting(answer), .. }) => answer.as_mut().await,
        _ => unreachable!("only a waiting answer stays at the front, see on_answer"),
    }
}
