//! What the service manager is told, if there is one: systemd, or whatever else listens on
//! `NOTIFY_SOCKET`.
//!
//! It learns when the server is ready, reads its files again, or stops, and in a sentence how it is
//! doing. If it wants signs of life, it gets them only as long as the store takes writes: a store
//! that a failed sync has closed to writes comes back by a restart. Absent on purpose: errors; a
//! server without a manager, or with a deaf one, serves all the same.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::start::Handle;

/// Says that the server takes requests.
pub(super) fn ready(server: &Handle) {
    let status = format!("Serving on {}", server.urls().join(" "));
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Says that the server reads its files again; [`ready`] says that it is done.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no clock"),
    }
}

/// Says that the server finishes what it has begun.
pub(super) fn stopping() {
    let status = "Finishing requests in flight";
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Gives signs of life, if they are wanted, twice as often as they are.
pub(super) fn watch(server: &Handle) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| *limit > Duration::ZERO) else {
        return;
    };
    let db = server.db().clone();
    server.block_on(async {
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(limit / 2);
            loop {
                tick.tick().await;
                match db.check_writable() {
                    Ok(()) => tell(&[NotifyState::Watchdog]),
                    Err(error) => tracing::error!(%error, "no sign of life for the watchdog"),
                }
            }
        });
    });
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}
