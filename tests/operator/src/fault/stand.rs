//! An operator that stands still, as a process does that gets no processor for a while.

use parking_lot::{Condvar, Mutex};

/// Whether an operator stands still; it does so once at most.
#[derive(Debug, Default)]
pub(super) struct Stand {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    NotYet,
    Still,
    WokenUp,
}

impl Stand {
    /// Returns when the operator is woken; `begin` is called first. Blocks its only thread: all of it
    /// stands still, its timers too.
    pub(super) fn stand_still(&self, begin: impl FnOnce()) {
        let mut state = self.state.lock();
        if *state != State::NotYet {
            return;
        }
        begin();
        *state = State::Still;
        while *state == State::Still {
            self.changed.wait(&mut state);
        }
    }

    pub(super) fn is_still(&self) -> bool {
        *self.state.lock() == State::Still
    }

    pub(super) fn wake(&self) {
        *self.state.lock() = State::WokenUp;
        self.changed.notify_all();
    }
}
