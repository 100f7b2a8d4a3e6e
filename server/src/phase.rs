//! What part of its life a server is in, for requests to see and for connections to follow.
//!
//! It goes one way: from serving to draining. Who follows it can also be called to look whether there is
//! something to do. Absent on purpose: starting, since nobody is answered before the store is open, and
//! stopped, since nobody is left to ask.

use tokio::sync::watch;

/// The part of its life that a server is in.
pub(crate) struct Phase {
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    draining: bool,
    /// How often its followers were called.
    calls: u64,
}

impl Phase {
    pub(crate) fn serving() -> Phase {
        Phase { state: watch::Sender::default() }
    }

    /// From now on the server finishes what it has begun, and begins nothing.
    pub(crate) fn drain(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    /// Calls those that follow.
    pub(crate) fn call(&self) {
        self.state.send_modify(|state| state.calls += 1);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.state.borrow().draining
    }

    /// Follows the phase. What is followed by nobody any more has ended.
    pub(crate) fn follow(&self) -> Follower {
        let state = self.state.subscribe();
        let heard = state.borrow().calls;
        Follower { state, heard }
    }

    /// How many follow it.
    pub(crate) fn followers(&self) -> usize {
        self.state.receiver_count()
    }

    /// Waits until nobody follows it any more.
    pub(crate) async fn ended(&self) {
        self.state.closed().await;
    }
}

/// Something that ends when its server drains.
#[derive(Clone)]
pub(crate) struct Follower {
    state: watch::Receiver<State>,
    heard: u64,
}

/// What a follower is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Look whether there is something to do.
    Called,
    /// The server drains.
    Drain,
}

impl Follower {
    /// Waits until the server drains.
    pub(crate) async fn drain(&mut self) {
        // An error says that the server is gone.
        let _ = self.state.wait_for(|state| state.draining).await;
    }

    /// Waits for a call, or until the server drains.
    pub(crate) async fn told(&mut self) -> Told {
        let heard = self.heard;
        match self.state.wait_for(|state| state.draining || state.calls != heard).await {
            Ok(state) if !state.draining => {
                self.heard = state.calls;
                Told::Called
            }
            Ok(_) | Err(_) => Told::Drain,
        }
    }
}
