//! A gate before the syncs of a disk: while it is closed they wait, as those of a slow disk do.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(super) struct SyncGate {
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    waiting: usize,
}

impl SyncGate {
    /// Waits until the gate is open.
    pub(super) fn pass(&self) {
        let mut state = self.state();
        if !state.is_closed {
            return;
        }
        state.waiting += 1;
        let waited = self.opened.wait_while(state, |state| state.is_closed);
        waited.unwrap_or_else(PoisonError::into_inner).waiting -= 1;
    }

    pub(super) fn close(&self) {
        self.state().is_closed = true;
    }

    pub(super) fn open(&self) {
        self.state().is_closed = false;
        self.opened.notify_all();
    }

    pub(super) fn waiting(&self) -> usize {
        self.state().waiting
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
