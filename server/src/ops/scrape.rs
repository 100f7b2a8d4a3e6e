//! `GET /metrics`: the requests, the store and the process, for Prometheus.
//!
//! Names end in their unit; what only grows ends in `_total`. Everything is gathered when it is asked
//! for, on a blocking thread, since the pages of all segments are counted.

use kvast::{Histogram, Residency, Stats};

use crate::app::App;
use crate::call::Call;
use crate::error::Failure;
use crate::exposition::{self, Kind, Text};
use crate::process;
use crate::reply::{self, Reply};

/// `GET /metrics`
pub(super) async fn metrics(call: &Call<'_>) -> Result<Reply, Failure> {
    let (stats, residency) = call.app.bridge.stats().await?;
    Ok(reply::text(exposition::CONTENT_TYPE, write(call.app, &stats, residency)))
}

fn write(app: &App, stats: &Stats, residency: Residency) -> String {
    let mut text = Text::default();
    text.family(Kind::Gauge, "kvast_build_info", "Always 1; the label says which version runs.");
    text.sample("kvast_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    app.metrics.write_to(&mut text);
    write_clients(&mut text, app);
    write_contents(&mut text, stats);
    write_residency(&mut text, residency);
    write_work(&mut text, stats);
    write_commits(&mut text, stats);
    write_condition(&mut text, app, stats);
    process::write_to(&mut text);
    text.into_string()
}

fn write_clients(text: &mut Text, app: &App) {
    // Whoever takes connections follows the phase as they do, until the server drains.
    let others = usize::from(!app.phase.is_draining());
    text.single(
        Kind::Gauge,
        "kvast_http_connections",
        "Connections that are open.",
        app.phase.followers().saturating_sub(others),
    );
    text.single(
        Kind::Gauge,
        "kvast_upload_reserved_bytes",
        "Memory that is set aside for request bodies longer than small ones.",
        app.uploads.reserved_bytes(),
    );
}

fn write_contents(text: &mut Text, stats: &Stats) {
    let gauges = [
        ("kvast_keys", "Keys, expired ones that are still indexed included.", stats.keys),
        ("kvast_segments", "Segment files.", stats.segments as u64),
        ("kvast_record_bytes", "Bytes of records on disk, live and dead.", stats.record_bytes),
        ("kvast_live_bytes", "Bytes of records that a key points at.", stats.live_bytes),
        ("kvast_dead_bytes", "Bytes of records that compaction can give back.", stats.dead_bytes),
        (
            "kvast_pinned_bytes",
            "Bytes of retired segments that readers still hold.",
            stats.pinned_bytes,
        ),
        ("kvast_index_bytes", "Memory of the index.", stats.index_bytes),
    ];
    for (name, help, value) in gauges {
        text.single(Kind::Gauge, name, help, value);
    }
}

fn write_work(text: &mut Text, stats: &Stats) {
    let counters = [
        (
            "kvast_written_bytes_total",
            "Bytes of records and large values that were written.",
            stats.written_bytes,
        ),
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

fn write_residency(text: &mut Text, residency: Residency) {
    let gauges = [
        ("kvast_mapped_bytes", "Bytes of segments that can be read.", residency.mapped_bytes),
        (
            "kvast_resident_bytes",
            "How many of the mapped bytes are in the page cache.",
            residency.resident_bytes,
        ),
    ];
    for (name, help, value) in gauges {
        text.single(Kind::Gauge, name, help, value);
    }
}

fn write_commits(text: &mut Text, stats: &Stats) {
    let name = "kvast_commit_records";
    text.family(Kind::Histogram, name, "Commits by the records that each wrote.");
    write_histogram(text, name, &stats.commits, 1.0);
    let name = "kvast_sync_duration_seconds";
    text.family(Kind::Histogram, name, "Syncs of the log by the time that each took.");
    write_histogram(text, name, &stats.syncs, 1e6);
}

/// The engine's last bucket has no bound; `per_unit` of what it counts are one.
fn write_histogram(text: &mut Text, name: &str, histogram: &Histogram, per_unit: f64) {
    let Some(((_, beyond), bounded)) = histogram.buckets.split_last() else { return };
    let buckets = bounded.iter().map(|(end, count)| (*end as f64 / per_unit, *count));
    text.histogram(name, &[], buckets, *beyond, histogram.sum as f64 / per_unit);
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
