//! `GET /metrics`: the requests, the store and the process, for Prometheus.
//!
//! Names end in their unit; what only grows ends in `_total`. Everything is gathered when it is asked
//! for, on a blocking thread, since the engine's numbers can have to wait for a sync.

use kvast::Stats;

use crate::app::App;
use crate::call::Call;
use crate::error::Failure;
use crate::exposition::{self, Kind, Text};
use crate::process;
use crate::reply::{self, Reply};

/// `GET /metrics`
pub(super) async fn metrics(call: &Call<'_>) -> Result<Reply, Failure> {
    let stats = call.app.bridge.stats().await?;
    Ok(reply::text(exposition::CONTENT_TYPE, write(call.app, &stats)))
}

fn write(app: &App, stats: &Stats) -> String {
    let mut text = Text::default();
    text.family(Kind::Gauge, "kvast_build_info", "Always 1; the label says which version runs.");
    text.sample("kvast_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    app.metrics.write_to(&mut text);
    write_contents(&mut text, stats);
    write_work(&mut text, stats);
    write_condition(&mut text, app, stats);
    process::write_to(&mut text);
    text.into_string()
}

fn write_contents(text: &mut Text, stats: &Stats) {
    let gauges = [
        ("kvast_keys", "Keys, expired ones that are still indexed included.", stats.keys),
        ("kvast_segments", "Segment files.", stats.segments as u64),
        ("kvast_record_bytes", "Bytes of records on disk, live and dead.", stats.record_bytes),
        ("kvast_live_bytes", "Bytes of records that a key points at.", stats.live_bytes),
        (
            "kvast_dead_bytes",
            "Bytes of records that compaction can give back.",
            stats.record_bytes.saturating_sub(stats.live_bytes),
        ),
        (
            "kvast_pinned_bytes",
            "Bytes of retired segments that readers still hold.",
            stats.pinned_bytes,
        ),
        ("kvast_index_bytes", "Memory of the index.", stats.index_bytes as u64),
    ];
    for (name, help, value) in gauges {
        text.single(Kind::Gauge, name, help, value);
    }
}

fn write_work(text: &mut Text, stats: &Stats) {
    let counters = [
        ("kvast_versions_total", "Records ever written to the store.", stats.last_version),
        (
            "kvast_compaction_copied_bytes_total",
            "Bytes of live records that compaction copied.",
            stats.compaction_copied_bytes,
        ),
        (
            "kvast_compaction_freed_bytes_total",
            "Bytes that compaction gave back.",
            stats.compaction_freed_bytes,
        ),
    ];
    for (name, help, value) in counters {
        text.single(Kind::Counter, name, help, value);
    }
}

fn write_condition(text: &mut Text, app: &App, stats: &Stats) {
    text.single(
        Kind::Gauge,
        "kvast_writable",
        "1 if the store takes writes, 0 if it has to be opened again first.",
        u8::from(app.bridge.check_writable().is_ok()),
    );
    text.single(
        Kind::Gauge,
        "kvast_background_trouble",
        "1 if the last work in the background failed; the log says how.",
        u8::from(stats.background_error.is_some()),
    );
}
