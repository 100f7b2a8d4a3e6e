//! One table of what must hold and what was measured.

use crate::floor::median;

/// What a ratio or a size must be.
#[derive(Clone, Copy)]
pub(crate) enum Must {
    Least(f64),
    Most(f64),
}

/// The lines of the table.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<String>,
}

impl Must {
    fn holds(self, value: f64) -> bool {
        match self {
            Must::Least(least) => value >= least,
            Must::Most(most) => value <= most,
        }
    }

    fn show(self) -> String {
        match self {
            Must::Least(least) => format!("≥ {least}x"),
            Must::Most(most) => format!("≤ {most}x"),
        }
    }
}

impl Report {
    /// Rounds of kvast and of another, in pairs.
    pub(crate) fn compare(
        &mut self,
        row: &str,
        other: &str,
        must: Must,
        ours: &[f64],
        theirs: &[f64],
    ) {
        let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = median(&ratios);
        self.lines.push(format!(
            "| {row} | {other} | {} | {} | {} | {ratio:.2} | {:.2}–{:.2} | {} |",
            must.show(),
            show(median(ours)),
            show(median(theirs)),
            ratios[0],
            ratios[ratios.len() - 1],
            yes(must.holds(ratio)),
        ));
        println!("{}", self.lines[self.lines.len() - 1]);
    }

    /// A size that has a limit, and what another takes for the same.
    pub(crate) fn size(&mut self, row: &str, most: f64, unit: &str, ours: f64, floor: Option<f64>) {
        let floor = floor.map_or("–".to_owned(), |floor| format!("{floor:.1}"));
        self.lines.push(format!(
            "| {row} | floor | ≤ {most} {unit} | {ours:.1} | {floor} | | | {} |",
            yes(ours <= most)
        ));
        println!("{}", self.lines[self.lines.len() - 1]);
    }

    pub(crate) fn print(&self) {
        println!();
        println!("| row | against | must | kvast | theirs | ratio | least–greatest | met |");
        println!("|---|---|--:|--:|--:|--:|--:|---|");
        for line in &self.lines {
            println!("{line}");
        }
    }
}

fn yes(holds: bool) -> &'static str {
    if holds { "yes" } else { "**no**" }
}

fn show(value: f64) -> String {
    if value >= 10_000.0 { format!("{:.1} k", value / 1000.0) } else { format!("{value:.0}") }
}
