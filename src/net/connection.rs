//! One connection: frames in, requests begun in order, answers out in order.
//!
//! The task of the connection reads, dispatches, appends and writes by itself: nothing is handed to
//! another thread on the way. While an acks=all produce or a fetch waits, the next requests are
//! read; any other request is carried through before the next one is looked at, as in Kafka.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::frame::{Filled, FrameReader};
use super::limits::{
    FIRST_FRAME_MAX_BYTES, MAX_PIPELINED_BYTES, MAX_PIPELINED_REQUESTS, MAX_QUEUED_ANSWER_BYTES,
    Share, TURN,
};
use super::lookout::Lookout;
use super::response::Response;
use super::service::{Begun, ConnectionError, ConnectionInfo, FutureResponse, Service};
use super::write::WriteQueue;

/// What a listener grants its connections.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimits {
    pub(crate) max_frame_bytes: usize,
    pub(crate) max_idle: Duration,
}

/// An answer in its place in the queue.
struct Pending {
    answer: Answer,
    /// Size of the request, which is held as long.
    request_bytes: usize,
}

enum Answer {
    Ready(Response),
    Waiting(FutureResponse),
}

/// Serves a connection until its peer leaves, misbehaves or idles, or the broker stops.
pub(crate) async fn serve(
    (service, info): (Arc<dyn Service>, Arc<ConnectionInfo>),
    stream: TcpStream,
    limits: ConnectionLimits,
    held: Share,
    lookout: Lookout,
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
        lookout,
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
    lookout: Lookout,
    out: WriteQueue,
    /// A request is under way that must be answered before the next one is begun.
    exclusive: bool,
    /// All connections together hold too much: nothing is read before something is answered.
    muted: bool,
    /// The peer will send nothing more; its pending requests are still answered.
    ended: bool,
    /// A valid request has been received.
    proven: bool,
    last_active: Instant,
    limits: ConnectionLimits,
}

/// What the connection woke up for.
enum Event {
    Readable,
    Writable,
    Answer(Response),
    Idle,
    Stop,
}

/// How far the requests that have arrived were begun.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// All that may be begun now.
    All,
    /// Until there were enough answers to send first.
    Some,
}

impl Connection {
    async fn run(&mut self, stop: CancellationToken) -> Result<(), ConnectionError> {
        let idle = tokio::time::sleep(self.limits.max_idle);
        tokio::pin!(idle);
        let mut failure = None;
        loop {
            // A peer that always has something to say must not keep the thread from others.
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
            if self.look_out().await? {
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

    /// Sends what the socket takes.
    fn send(&mut self) -> Result<(), ConnectionError> {
        if !self.out.is_empty() && self.out.send(&self.stream)? > 0 {
            self.last_active = Instant::now();
        }
        Ok(())
    }

    /// Stays awake for a moment where the next request is likely to come at once; says whether something
    /// came.
    async fn look_out(&mut self) -> Result<bool, ConnectionError> {
        if !self.out.is_empty() || !self.pending.is_empty() || self.ended || self.muted {
            return Ok(false);
        }
        let Some(turn) = self.lookout.turn(self.last_active) else { return Ok(false) };
        while Instant::now() < turn.until {
            // Others go first; without any, the runtime looks at its sockets.
            tokio::task::yield_now().await;
            match self.reader.fill(&self.stream)? {
                Filled::Nothing => {}
                filled => {
                    self.ended |= filled == Filled::End;
                    return Ok(true);
                }
            }
        }
        self.lookout.on_silence();
        Ok(false)
    }

    /// Waits for what comes next. While answers wait for the socket, nothing else is done: a peer
    /// that does not read is not served.
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

    /// Whether the answers under way leave room for another request.
    fn may_begin(&self) -> bool {
        !self.exclusive
            && self.pending.len() < MAX_PIPELINED_REQUESTS
            && self.pending_bytes < MAX_PIPELINED_BYTES
    }

    /// Begins the requests that have arrived, in their order, as far as that is allowed.
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
        self.lookout.on_request(now - self.last_active);
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

    /// Counts what this connection holds of requests against what all may hold.
    fn account(&mut self) -> Result<(), ConnectionError> {
        let counted = self.held.set(self.reader.held() + self.pending_bytes);
        self.muted = counted.is_err();
        if self.pending.is_empty() {
            counted?;
        }
        Ok(())
    }

    /// Queues the first pending answer, and those behind it that were only waiting for their turn.
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

    /// As in Kafka, a connection is idle also when it waits for an answer.
    fn is_idle(&self) -> bool {
        self.last_active.elapsed() >= self.limits.max_idle
    }
}

/// The answer at the front of the queue, when it is there. Cancel-safe: the future stays queued.
async fn front(pending: &mut VecDeque<Pending>) -> Result<Response, ConnectionError> {
    match pending.front_mut() {
        Some(Pending { answer: Answer::Waiting(answer), .. }) => answer.as_mut().await,
        _ => unreachable!("only a waiting answer stays at the front, see on_answer"),
    }
}
