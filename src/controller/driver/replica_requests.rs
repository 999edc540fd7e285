//! Requests of other replicas of the metadata log. The quorum answers them; the records and snapshot chunks of a
//! response are read here.

use bytes::Bytes;
use klamm_replication::quorum::RequestId;
use klamm_replication::quorum::message::{FetchReplyBody, Inbound, Reply};
use tokio::sync::oneshot;

use super::super::handle::QuorumAnswer;
use super::super::metadata_log::MetadataLogError;
use super::io::Io;
use crate::clock;

impl Io {
    pub(super) fn on_request(&mut self, inbound: Inbound, answer: oneshot::Sender<QuorumAnswer>) {
        let request_id = RequestId(self.next_request_id);
        self.next_request_id += 1;
        // The requesters of these have given up.
        self.requests.retain(|_, waiting| !waiting.is_closed());
        self.requests.insert(request_id, answer);
        self.effects.extend(self.quorum.on_request(clock::now_ms(), request_id, inbound));
    }

    /// Answers a replica. Records are read now, from a log that only this thread changes.
    pub(super) fn reply(
        &mut self,
        request_id: RequestId,
        reply: Reply,
    ) -> Result<(), MetadataLogError> {
        let Some(waiting) = self.requests.remove(&request_id) else { return Ok(()) };
        let answer = match reply {
            Reply::Fetch(fetch) => {
                let records = match fetch.body {
                    FetchReplyBody::Records { offset, max_bytes } => {
                        self.with_room(|log| log.read(offset, max_bytes))?
                    }
                    FetchReplyBody::Empty
                    | FetchReplyBody::Diverging(_)
                    | FetchReplyBody::Snapshot(_) => Bytes::new(),
                };
                QuorumAnswer::Fetch(fetch, records)
            }
            Reply::FetchSnapshot(fetch) => {
                let (id, position, max_bytes) =
                    (fetch.snapshot_id, fetch.position, fetch.max_bytes);
                let piece =
                    self.with_room(|log| log.read_snapshot_piece(id, position, max_bytes))?;
                QuorumAnswer::FetchSnapshot(fetch, piece)
            }
            plain => QuorumAnswer::Plain(plain),
        };
        // The requester may have given up. Then no task receives the answer.
        drop(waiting.send(answer));
        Ok(())
    }
}
