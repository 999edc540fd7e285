//! The queue of committed images from the thread of the metadata log to the thread that applies them to this node.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::handle::Completion;
use crate::metadata_cache::PublishedImage;

/// The newest committed image that is not applied yet, and the decisions whose answers wait for it. An image replaces
/// an earlier one that is still queued.
#[derive(Default)]
pub(crate) struct Publications {
    next: Mutex<Next>,
    news: Condvar,
}

#[derive(Default)]
struct Next {
    published: Option<PublishedImage>,
    completions: Vec<Completion>,
    stopping: bool,
}

impl Publications {
    /// Queues an image to be applied.
    pub(super) fn publish(&self, published: PublishedImage) {
        self.lock().published = Some(published);
        self.news.notify_one();
    }

    /// Queues the answer to a decision: it is sent once the images that were published before are applied.
    pub(super) fn complete(&self, completion: Completion) {
        self.lock().completions.push(completion);
        self.news.notify_one();
    }

    /// Ends the applying thread once it has applied and answered everything.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next image and answers; `None` after [`Self::stop`].
    pub(crate) fn take(&self) -> Option<(Option<PublishedImage>, Vec<Completion>)> {
        let mut next = self.lock();
        loop {
            if next.published.is_some() || !next.completions.is_empty() {
                return Some((next.published.take(), std::mem::take(&mut next.completions)));
            }
            if next.stopping {
                return None;
            }
            next = self.news.wait(next).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
