//! The signals that a running server obeys.
//!
//! SIGTERM and SIGINT ask it to stop; whoever asks twice does not wait. SIGHUP asks it to read its
//! certificate again. Absent on purpose: anything before the server is ready; until then a signal
//! ends the process, which the store is made for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Stop(SignalKind),
    Reload,
}

/// The signals that have come, one after the other.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From now on signals are obeyed. Needs a tokio runtime.
    pub(super) fn install() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Stop(SignalKind::terminate()),
            _ = self.interrupt.recv() => Order::Stop(SignalKind::interrupt()),
            _ = self.hang_up.recv() => Order::Reload,
        }
    }
}

/// What a shell reports for a process that a signal ended.
pub(super) fn exit_code(signal: SignalKind) -> i32 {
    128 + signal.as_raw_value()
}
