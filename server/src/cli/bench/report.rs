//! What was measured, as a table with words for people, and as JSON for programs.
//!
//! The words go by bounds that are stated here. They say what a figure is usual for; they cannot know
//! what a program needs.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::keys::{KEY_BYTES, Shape};
use super::timing::Figures;

/// Shorter syncs than this do not wait for any disk.
const SYNC_TOO_FAST: Duration = Duration::from_micros(20);
/// Shorter ones are those of disks whose cache outlives a power cut.
const SYNC_FAST: Duration = Duration::from_micros(300);
/// Longer ones are those of hard disks and of disks in a network.
const SYNC_SLOW: Duration = Duration::from_millis(4);
/// How many times the bare write and sync a durable put may take before something is wrong.
const PUT_FACTOR: f64 = 1.5;
/// How many times the median the slowest of a hundred syncs may take before it is worth a word.
const TAIL_FACTOR: u32 = 10;
/// A get that takes longer waits for something.
const GET_SLOW: Duration = Duration::from_micros(3);
/// With fewer keys, most of the index is what every store has.
const KEYS_FEW: u64 = 100_000;
/// Of what as many threads as cores should do, this share is to be had at least.
const SCALING: f64 = 0.7;
/// Bytes a second that are verified at least where the processor has an instruction for it.
const VERIFIED_SLOW: f64 = 1e9;
/// Of its cores a quiet machine has less than this share at work.
const BUSY: f64 = 0.5;

/// What can be measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Work {
    BareDisk,
    PutDurable,
    PutUnsynced,
    PutBatched,
    GetUniform,
    GetZipf,
    GetAbsent,
    List,
    GetLarge,
    Open,
}

impl Work {
    fn title(self) -> &'static str {
        match self {
            Work::BareDisk => "bare disk: write and sync",
            Work::PutDurable => "put, durable",
            Work::PutUnsynced => "put, without sync",
            Work::PutBatched => "put in batches, without sync",
            Work::GetUniform => "get, all keys alike",
            Work::GetZipf => "get, some keys wanted often",
            Work::GetAbsent => "get, absent key",
            Work::List => "listed key, 1,000 a page",
            Work::GetLarge => "get of 1 MiB, every byte verified",
            Work::Open => "open after a close",
        }
    }

    /// What is counted.
    fn unit(self) -> &'static str {
        match self {
            Work::BareDisk => "syncs",
            Work::PutDurable | Work::PutUnsynced | Work::PutBatched => "puts",
            Work::GetUniform | Work::GetZipf | Work::GetAbsent => "gets",
            Work::List => "keys",
            Work::GetLarge => "bytes",
            Work::Open => "openings",
        }
    }

    /// How many units one call is.
    fn units(self) -> f64 {
        if self == Work::GetLarge { f64::from(1 << 20) } else { 1.0 }
    }
}

struct Row {
    work: Work,
    threads: usize,
    figures: Figures,
}

impl Row {
    fn title(&self) -> String {
        match self.threads {
            1 => self.work.title().to_owned(),
            threads => format!("{}, {threads} threads", self.work.title()),
        }
    }

    /// How long one takes: the median where each was timed, the mean elsewhere.
    fn each(&self) -> Duration {
        let mean = self.threads as f64 * self.work.units() / self.figures.per_second;
        self.figures.latency.map_or(Duration::from_secs_f64(mean), |latency| latency.p50)
    }

    fn rate(&self) -> String {
        match self.work {
            Work::Open => String::new(),
            Work::GetLarge => format!("{:.1} GB", self.figures.per_second / 1e9),
            _ => show_count(self.figures.per_second),
        }
    }

    /// Empty where not each was timed, or there was one only.
    fn tail(&self) -> String {
        let timed = self.figures.latency.filter(|_| self.work != Work::Open);
        timed.map_or(String::new(), |latency| show_time(latency.p99))
    }
}

pub(super) struct Report {
    dir: PathBuf,
    keys: u64,
    value_bytes: usize,
    cores: usize,
    load: Option<f64>,
    rows: Vec<Row>,
    at_work: (Work, usize),
    pub(super) index_bytes: u64,
    pub(super) disk_bytes: u64,
}

impl Report {
    /// Looks at how busy the machine is, so it comes before any work.
    pub(super) fn new(shape: &Shape, dir: &Path) -> Report {
        Report {
            dir: fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()),
            keys: shape.keys,
            value_bytes: shape.value_bytes,
            cores: shape.cores,
            load: load(),
            rows: Vec::new(),
            at_work: (Work::BareDisk, 1),
            index_bytes: 0,
            disk_bytes: 0,
        }
    }

    /// Tells who waits what is measured now.
    pub(super) fn begin(&mut self, work: Work, threads: usize) {
        self.at_work = (work, threads);
        let figures = Figures { per_second: 1.0, latency: None };
        eprintln!("measuring: {}", Row { work, threads, figures }.title());
    }

    /// Takes the figures of what was begun last.
    pub(super) fn end(&mut self, figures: Figures) {
        let (work, threads) = self.at_work;
        self.rows.push(Row { work, threads, figures });
        self.rows.sort_by_key(|row| (row.work, row.threads));
    }

    fn row(&self, work: Work) -> Option<&Row> {
        self.rows.iter().find(|row| row.work == work)
    }

    /// The row of several threads, and how many times that of one it is.
    fn several(&self, work: Work) -> Option<(&Row, f64)> {
        let alone = self.row(work)?;
        let several = self.rows.iter().find(|row| row.work == work && row.threads > 1)?;
        Some((several, several.figures.per_second / alone.figures.per_second))
    }

    fn index_bytes_per_key(&self) -> f64 {
        self.index_bytes as f64 / self.keys as f64
    }

    fn disk_bytes_per_user_byte(&self) -> f64 {
        self.disk_bytes as f64 / (self.keys as f64 * (KEY_BYTES + self.value_bytes) as f64)
    }

    /// What the figures mean, a sentence or two each.
    fn words(&self) -> Vec<String> {
        let words = [
            self.about_load(),
            self.about_syncs(),
            self.about_tails(),
            self.about_durable_puts(),
            self.about_gets(),
            self.about_threads(),
            self.about_checksums(),
            self.about_opening(),
        ];
        words.into_iter().flatten().chain([self.about_memory()]).collect()
    }

    fn about_load(&self) -> Option<String> {
        let load = self.load.filter(|load| *load > BUSY * self.cores as f64)?;
        Some(format!(
            "The machine was busy before this began (load {load:.1}, {} cores): all of this can be \
             better on a quiet one.",
            self.cores
        ))
    }

    fn about_syncs(&self) -> Option<String> {
        let sync = self.row(Work::BareDisk)?.each();
        let verdict = match sync {
            _ if sync < SYNC_TOO_FAST => {
                "too fast to wait for a disk, so what is called durable may not survive a power cut"
            }
            _ if sync < SYNC_FAST => "fast, as a disk does whose cache survives a power cut",
            _ if sync < SYNC_SLOW => "as an SSD usually does",
            _ => {
                "slow, as hard disks and disks in a network are; with `--durability interval:50ms` no \
                 put waits for it, and a power cut costs the last 50 ms at most"
            }
        };
        Some(format!("This disk writes and syncs in {}: {verdict}.", show_time(sync)))
    }

    fn about_tails(&self) -> Option<String> {
        let latency = self.row(Work::BareDisk)?.figures.latency?;
        (latency.p99 > TAIL_FACTOR * latency.p50).then(|| {
            format!(
                "One sync in a hundred takes {} or longer: something else uses the disk, or it pauses.",
                show_time(latency.p99)
            )
        })
    }

    fn about_durable_puts(&self) -> Option<String> {
        let put = self.row(Work::PutDurable)?;
        let (each, bare) = (put.each(), self.row(Work::BareDisk)?.each());
        let mut words = format!(
            "Expect {} durable puts a second from one client",
            show_count(put.figures.per_second)
        );
        if let Some((several, factor)) = self.several(Work::PutDurable) {
            words += &format!(
                ", and {factor:.1} times as many from {}, which share syncs",
                several.threads
            );
        }
        words += ".";
        if bare >= SYNC_TOO_FAST {
            let factor = each.as_secs_f64() / bare.as_secs_f64();
            words += &format!(" One takes {factor:.2} times the bare write and sync");
            words += match factor > PUT_FACTOR {
                true => ", which should be little more than 1: measure again on a quiet machine.",
                false => ".",
            };
        }
        Some(words)
    }

    fn about_gets(&self) -> Option<String> {
        let each = self.row(Work::GetUniform)?.each();
        let verdict = match each {
            _ if each > GET_SLOW => ", which is slow: the processor or the memory has other work",
            _ => ": what the processor and its memory allow; no disk is waited for",
        };
        Some(format!("A get takes {}{verdict}.", show_time(each)))
    }

    fn about_threads(&self) -> Option<String> {
        let (several, factor) = self.several(Work::GetUniform)?;
        let verdict = match factor < SCALING * several.threads as f64 {
            true => "; the cores have other work, or are halves of one",
            false => "",
        };
        let threads = several.threads;
        Some(format!("{threads} threads get {factor:.1} times as much as one{verdict}."))
    }

    fn about_checksums(&self) -> Option<String> {
        let rate = self.row(Work::GetLarge)?.figures.per_second;
        (rate < VERIFIED_SLOW).then(|| {
            "Large values are verified slowly: this processor may lack the instruction for it \
             (PCLMULQDQ, PMULL), or the memory is busy."
                .to_owned()
        })
    }

    fn about_opening(&self) -> Option<String> {
        let time = show_time(self.row(Work::Open)?.each());
        Some(format!("A store of {} such keys opens in {time}.", show_whole(self.keys)))
    }

    fn about_memory(&self) -> String {
        let per_key = self.index_bytes_per_key();
        let held = match self.keys < KEYS_FEW {
            true => "most of it what every store has".to_owned(),
            false => format!("1 GiB holds {:.0} million", f64::from(1 << 30) / per_key / 1e6),
        };
        format!(
            "The index takes {per_key:.1} bytes of memory a key, the key included: {held}. On disk each \
             byte of keys and values takes {:.2}.",
            self.disk_bytes_per_user_byte()
        )
    }

    pub(super) fn json(&self) -> String {
        let row = |row: &Row| JsonRow {
            work: row.work,
            threads: row.threads,
            unit: row.work.unit(),
            per_second: row.figures.per_second,
            p50_seconds: row.figures.latency.map(|latency| latency.p50.as_secs_f64()),
            p99_seconds: row.figures.latency.map(|latency| latency.p99.as_secs_f64()),
        };
        let report = Json {
            version: env!("CARGO_PKG_VERSION"),
            directory: self.dir.to_string_lossy().into_owned(),
            keys: self.keys,
            key_bytes: KEY_BYTES,
            value_bytes: self.value_bytes,
            cores: self.cores,
            load: self.load,
            rows: self.rows.iter().map(row).collect(),
            index_bytes: self.index_bytes,
            index_bytes_per_key: self.index_bytes_per_key(),
            disk_bytes: self.disk_bytes,
            disk_bytes_per_user_byte: self.disk_bytes_per_user_byte(),
            words: self.words(),
        };
        serde_json::to_string_pretty(&report).expect("names and numbers are JSON")
    }
}

#[derive(Serialize)]
struct Json {
    version: &'static str,
    directory: String,
    keys: u64,
    key_bytes: usize,
    value_bytes: usize,
    cores: usize,
    load: Option<f64>,
    rows: Vec<JsonRow>,
    index_bytes: u64,
    index_bytes_per_key: f64,
    disk_bytes: u64,
    disk_bytes_per_user_byte: f64,
    words: Vec<String>,
}

#[derive(Serialize)]
struct JsonRow {
    work: Work,
    threads: usize,
    unit: &'static str,
    per_second: f64,
    p50_seconds: Option<f64>,
    p99_seconds: Option<f64>,
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (keys, value_bytes) = (show_whole(self.keys), show_whole(self.value_bytes as u64));
        let (dir, cores) = (self.dir.display(), self.cores);
        writeln!(
            f,
            "{keys} keys of {KEY_BYTES} B, values of {value_bytes} B, in {dir}, {cores} cores\n"
        )?;
        writeln!(f, "{:<46}{:>10}{:>12}{:>16}", "", "a second", "each", "99 of 100 in")?;
        for row in &self.rows {
            let each = show_time(row.each());
            let line = format!("{:<46}{:>10}{each:>12}{:>16}", row.title(), row.rate(), row.tail());
            writeln!(f, "{}", line.trim_end())?;
        }
        writeln!(f)?;
        self.words().iter().try_for_each(|words| write_wrapped(f, words))
    }
}

/// As an item of a list, in lines of 100 letters at most.
fn write_wrapped(f: &mut Formatter<'_>, words: &str) -> fmt::Result {
    let mut line = "-".to_owned();
    for word in words.split(' ') {
        if line.len() + 1 + word.len() > 100 {
            writeln!(f, "{line}")?;
            line = " ".to_owned();
        }
        line = line + " " + word;
    }
    writeln!(f, "{line}")
}

/// `812`, `7.2 k`, `3.01 M`.
fn show_count(count: f64) -> String {
    match count {
        _ if count < 1e3 => format!("{count:.0}"),
        _ if count < 1e6 => format!("{:.1} k", count / 1e3),
        _ => format!("{:.2} M", count / 1e6),
    }
}

fn show_time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds < 1e-6 => format!("{:.0} ns", seconds * 1e9),
        _ if seconds < 1e-3 => format!("{:.1} µs", seconds * 1e6),
        _ if seconds < 1.0 => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

/// `1,000,000`
fn show_whole(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// How many threads wanted to run in the last minute, on average.
fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::timing::Latency;
    use super::*;

    fn timed(p50: u64, p99: u64) -> Figures {
        let (p50, p99) = (Duration::from_micros(p50), Duration::from_micros(p99));
        Figures { per_second: 1.0 / p50.as_secs_f64(), latency: Some(Latency { p50, p99 }) }
    }

    fn report(rows: &[(Work, usize, Figures)]) -> Report {
        let (keys, time) = (1000, Duration::ZERO);
        let shape = Shape { keys, value_bytes: 78, threads: 8, cores: 2, time };
        let mut report = Report::new(&shape, Path::new("/"));
        report.load = None;
        (report.index_bytes, report.disk_bytes) = (25_000, 150_000);
        for (work, threads, figures) in rows {
            report.begin(*work, *threads);
            report.end(*figures);
        }
        report
    }

    #[test]
    fn numbers_and_times_are_short() {
        for (count, shown) in [(812.4, "812"), (7_240.0, "7.2 k"), (3_013_000.0, "3.01 M")] {
            assert_eq!(show_count(count), shown);
        }
        for (nanos, shown) in
            [(480, "480 ns"), (1_500, "1.5 µs"), (1_200_000, "1.20 ms"), (2_500_000_000, "2.50 s")]
        {
            assert_eq!(show_time(Duration::from_nanos(nanos)), shown);
        }
        assert_eq!((show_whole(7), show_whole(1_000_000)), ("7".into(), "1,000,000".into()));
    }

    #[test]
    fn each_kind_of_disk_has_its_words() {
        for (micros, words) in
            [(5, "too fast"), (90, "fast, as"), (1_200, "as an SSD"), (9_000, "interval:50ms")]
        {
            let report = report(&[(Work::BareDisk, 1, timed(micros, micros))]);
            assert!(report.to_string().contains(words), "{report}");
        }
    }

    #[test]
    fn words_say_what_is_wrong_and_nothing_of_what_is_not() {
        let bare = (Work::BareDisk, 1, timed(1_200, 1_500));
        let good = report(&[bare, (Work::PutDurable, 1, timed(1_260, 1_600))]).words();
        assert_eq!(good.len(), 3, "{good:?}");
        assert!(good[1].contains("794 durable puts") && good[1].contains("1.05 times"), "{good:?}");
        let bad = (Work::PutDurable, 1, timed(3_000, 90_000));
        let bad = report(&[(Work::BareDisk, 1, timed(1_000, 20_000)), bad]).words();
        assert!(bad[1].contains("20.00 ms") && bad[2].contains("measure again"), "{bad:?}");
    }

    #[test]
    fn rows_stand_in_their_order_whatever_was_measured_first() {
        let rate = |per_second| Figures { per_second, latency: None };
        let rows = [
            (Work::GetUniform, 2, rate(3e6)),
            (Work::GetUniform, 1, rate(2e6)),
            (Work::BareDisk, 1, timed(100, 200)),
        ];
        let shown = report(&rows).to_string();
        let place = |text: &str| shown.find(text).unwrap_or_else(|| panic!("{text}: {shown}"));
        assert!(place("bare disk") < place("alike  ") && place("alike  ") < place("2 threads"));
        assert!(shown.contains("500 ns") && shown.contains("get 1.5 times"), "{shown}");
        assert!(shown.contains("25.0 bytes of memory") && shown.contains("takes 1.50"), "{shown}");
    }
}
