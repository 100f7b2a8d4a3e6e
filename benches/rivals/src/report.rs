//! The table.

use std::fmt;
use std::fs;
use std::process::Command;

/// What both did in each round: kvast, and whoever it is compared with.
#[derive(Default)]
pub struct Pairs(Vec<(f64, f64)>);

/// Which is better.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    More,
    Less,
}

impl Pairs {
    pub fn push(&mut self, pair: (f64, f64)) {
        self.0.push(pair);
    }

    fn median(&self, of: impl Fn(&(f64, f64)) -> f64) -> f64 {
        let sorted = self.sorted(of);
        (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
    }

    fn sorted(&self, of: impl Fn(&(f64, f64)) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> = self.0.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    }
}

pub struct Report {
    machine: Vec<String>,
    rows: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    pub fn new(keys: usize, rounds: usize) -> Report {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
        let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let machine = vec![
            format!(
                "Processor: {}, {cores} cores",
                model.unwrap_or("").trim_start_matches(['\t', ':', ' '])
            ),
            format!("Kernel: Linux {}", kernel.trim()),
            format!("Commit: {}", commit.unwrap_or_default().trim()),
            format!("{keys} keys, {rounds} rounds"),
        ];
        Report { machine, rows: Vec::new(), notes: Vec::new() }
    }

    /// A row beside LMDB.
    pub fn row(&mut self, work: &str, unit: &str, goal: Goal, pairs: Pairs) {
        self.row_beside(work, "LMDB", unit, goal, pairs);
    }

    pub fn row_beside(&mut self, work: &str, other: &str, unit: &str, goal: Goal, pairs: Pairs) {
        let ratio = |(kvast, other): &(f64, f64)| match goal {
            Goal::More => kvast / other,
            Goal::Less => other / kvast,
        };
        let (kvast, rival) = (pairs.median(|pair| pair.0), pairs.median(|pair| pair.1));
        let sorted = pairs.sorted(ratio);
        let row = format!(
            "| {work} | {} {unit} | {}{} {unit} | **{}** | {} to {} |",
            number(kvast),
            if other == "LMDB" { String::new() } else { format!("{other}: ") },
            number(rival),
            factor(pairs.median(ratio)),
            factor(sorted[0]),
            factor(sorted[sorted.len() - 1]),
        );
        eprintln!("{row}");
        self.rows.push(row);
    }

    pub fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }
}

fn factor(ratio: f64) -> String {
    if ratio < 0.1 { format!("{ratio:.4}") } else { format!("{ratio:.2}") }
}

fn number(value: f64) -> String {
    match value {
        1e6.. => format!("{:.2} M", value / 1e6),
        1e3.. => format!("{:.1} k", value / 1e3),
        _ => format!("{value:.2}"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.machine.iter().try_for_each(|line| writeln!(f, "- {line}"))?;
        writeln!(f, "\n| work | kvast | LMDB | times as good | least and greatest |")?;
        writeln!(f, "|---|--:|--:|--:|--:|")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        writeln!(f)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "- {note}"))
    }
}
