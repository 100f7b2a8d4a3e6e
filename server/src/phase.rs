//! What part of its life a server is in, for requests to see and for connections to follow.
//!
//! It goes one way: from serving to draining. Absent on purpose: starting, since nobody is answered
//! before the store is open, and stopped, since nobody is left to ask.

use tokio::sync::watch;

/// The part of its life that a server is in.
pub(crate) struct Phase {
    draining: watch::Sender<bool>,
}

impl Phase {
    pub(crate) fn serving() -> Phase {
        Phase { draining: watch::Sender::new(false) }
    }

    /// From now on the server finishes what it has begun, and begins nothing.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Follows the phase. What is followed by nobody any more has ended.
    pub(crate) fn follow(&self) -> Follower {
        Follower(self.draining.subscribe())
    }

    /// How many follow it.
    pub(crate) fn followers(&self) -> usize {
        self.draining.receiver_count()
    }

    /// Waits until nobody follows it any more.
    pub(crate) async fn ended(&self) {
        self.draining.closed().await;
    }
}

/// Something that ends when its server drains.
#[derive(Clone)]
pub(crate) struct Follower(watch::Receiver<bool>);

impl Follower {
    /// Waits until the server drains.
    pub(crate) async fn drain(&mut self) {
        // An error says that the server is gone.
        let _ = self.0.wait_for(|draining| *draining).await;
    }
}
