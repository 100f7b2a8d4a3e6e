//! Threads for what may wait for a disk: a bounded number of them.
//!
//! A call that is no longer awaited still runs to its end; what it holds is dropped there.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::Failure;

/// The threads, as a number of places. Cheap to clone; all clones share the places.
#[derive(Clone)]
pub(crate) struct Blocking {
    places: Arc<Semaphore>,
}

impl Blocking {
    pub(crate) fn new(places: usize) -> Blocking {
        Blocking { places: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// Runs a call on one of the threads, once there is a place.
    pub(crate) fn run<T: Send + 'static, C>(
        &self,
        call: C,
    ) -> impl Future<Output = Result<T, Failure>> + Send + use<T, C>
    where
        C: FnOnce() -> Result<T, Failure> + Send + 'static,
    {
        let places = Arc::clone(&self.places);
        async move {
            let place = places.acquire_owned().await;
            let called = tokio::task::spawn_blocking(move || {
                let _place = place;
                call()
            });
            // A panic of the engine must not look like an answer; a cancelled call is a shutdown.
            called.await.unwrap_or_else(|error| match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Failure::Stopping),
            })
        }
    }
}
