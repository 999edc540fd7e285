//! The queue from the thread of the metadata log to the one that applies images to this node.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::handle::Completion;
use crate::metadata_cache::PublishedImage;

/// What is committed and not yet applied, with those who wait for it. Images that come while one is being applied
/// replace each other: only the newest counts.
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
    /// Has an image applied.
    pub(super) fn publish(&self, published: PublishedImage) {
        self.lock().published = Some(published);
        self.news.notify_one();
    }

    /// Answers a decision once everything that has been published before is applied.
    pub(super) fn complete(&self, completion: Completion) {
        self.lock().completions.push(completion);
        self.news.notify_one();
    }

    /// Ends the thread once everything has been applied and answered.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to do; `None` at the end.
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
