//! The tables: each row beside its target, and what every store did.

use std::fmt;

use crate::contest::Contest;
use crate::machine;

/// What each store did in each round of a row.
pub struct Series {
    names: Vec<&'static str>,
    rounds: Vec<Vec<f64>>,
}

/// Which is better.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// What kvast is to reach.
#[derive(Clone, Copy)]
pub enum Target {
    /// So many times as good as the best of these.
    Beside { rivals: &'static [&'static str], must: f64, goal: f64 },
    /// So much by itself, in the row's unit.
    Alone { must: f64, goal: f64 },
    /// There is none: the row is there for comparison.
    None,
}

/// The bare file that durable puts are held against. It is no rival.
pub const BARE: &str = "bare append";

impl Series {
    pub fn new(names: &[&'static str]) -> Series {
        Series { names: names.to_vec(), rounds: Vec::new() }
    }

    /// The figures of a round, in the order of the names.
    pub fn push(&mut self, figures: Vec<f64>) {
        self.rounds.push(figures);
    }

    /// Round by round, this over `other`.
    pub fn over(&self, other: &Series) -> Series {
        let divide = |(ours, theirs): (&Vec<f64>, &Vec<f64>)| {
            ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
        };
        let rounds = self.rounds.iter().zip(&other.rounds).map(divide).collect();
        Series { names: self.names.clone(), rounds }
    }

    pub fn rounds(&self) -> &[Vec<f64>] {
        &self.rounds
    }

    /// In the order of the names.
    pub fn medians(&self) -> Vec<f64> {
        let of = |nth: usize| median(self.rounds.iter().map(|round| round[nth]).collect());
        (0..self.names.len()).map(of).collect()
    }

    /// Those of one store, `None` if it took no part.
    pub fn of(&self, name: &str) -> Option<Vec<f64>> {
        let nth = self.names.iter().position(|found| *found == name)?;
        Some(self.rounds.iter().map(|round| round[nth]).collect())
    }

    pub fn median_of(&self, name: &str) -> Option<f64> {
        self.of(name).map(median)
    }

    /// The best of these by its median.
    fn best(&self, among: impl Fn(&str) -> bool, better: Better) -> Option<&'static str> {
        let among = self.names.iter().filter(|name| among(name));
        let order = |name: &&'static str| {
            let median = self.median_of(name).expect("it took part");
            if better == Better::More { -median } else { median }
        };
        among.copied().min_by(|a, b| order(a).total_cmp(&order(b)))
    }

    /// How many times as good kvast was, round by round.
    fn ratios(&self, rival: &str, better: Better) -> Vec<f64> {
        let (kvast, rival) = (self.of("kvast").expect("it takes part"), self.of(rival));
        let rival = rival.expect("it took part");
        let ratio = |(kvast, rival): (f64, f64)| match better {
            Better::More => kvast / rival,
            Better::Less => rival / kvast,
        };
        kvast.into_iter().zip(rival).map(ratio).collect()
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    (figures[(figures.len() - 1) / 2] + figures[figures.len() / 2]) / 2.0
}

struct Row {
    work: String,
    unit: &'static str,
    better: Better,
    target: Target,
    series: Series,
}

impl Row {
    fn is_rival(name: &str) -> bool {
        name != "kvast" && name != BARE
    }

    fn with_unit(&self, figure: f64) -> String {
        format!("{} {}", number(figure), self.unit).trim_end().to_owned()
    }

    /// What it must reach, and what it is to reach.
    fn wanted(&self) -> [String; 2] {
        let sign = if self.better == Better::More { "≥" } else { "≤" };
        match self.target {
            Target::Beside { rivals, must, goal } => {
                [format!("{must}x {}", rivals.join(", ")), format!("{goal}x")]
            }
            Target::Alone { must, goal } => [must, goal]
                .map(|figure| format!("{sign} {figure} {}", self.unit).trim_end().to_owned()),
            Target::None => ["–".to_owned(), "–".to_owned()],
        }
    }

    /// The store that kvast is held against: the one of the target, or else the best.
    fn beside(&self) -> Option<&'static str> {
        match self.target {
            Target::Beside { rivals, .. } => {
                self.series.best(|name| rivals.contains(&name), self.better)
            }
            _ => self.best(),
        }
    }

    /// The best of the others; nobody if each store is measured by itself, as how it scales is.
    fn best(&self) -> Option<&'static str> {
        if self.unit == "x" {
            return None;
        }
        self.series.best(Row::is_rival, self.better)
    }

    fn verdict(&self) -> String {
        let reached = |figure: f64, better: Better, must: f64, goal: f64| {
            let as_good = |wanted| match better {
                Better::More => figure >= wanted,
                Better::Less => figure <= wanted,
            };
            let verdicts = [(goal, "goal"), (must, "must")];
            let met = verdicts.into_iter().find(|(wanted, _)| as_good(*wanted));
            met.map_or("no", |(_, verdict)| verdict).to_owned()
        };
        match self.target {
            Target::None => "–".to_owned(),
            Target::Alone { must, goal } => {
                let kvast = self.series.median_of("kvast").expect("it takes part");
                reached(kvast, self.better, must, goal)
            }
            Target::Beside { rivals, must, goal } => {
                let Some(rival) = self.beside() else {
                    return format!("not decided: {} absent", rivals.join(", "));
                };
                let ratio = median(self.series.ratios(rival, self.better));
                let missing = rivals.iter().filter(|name| self.series.of(name).is_none());
                let missing: Vec<&str> = missing.copied().collect();
                let verdict = reached(ratio, Better::More, must, goal);
                if missing.is_empty() {
                    verdict
                } else {
                    format!("{verdict}, without {}", missing.join(", "))
                }
            }
        }
    }

    /// Who it is held against and what that did, the ratio, and how far it spreads.
    fn compared(&self, rival: Option<&'static str>) -> [String; 3] {
        let Some(rival) = rival else { return ["–"; 3].map(str::to_owned) };
        let ratios = self.series.ratios(rival, self.better);
        let figure = self.series.median_of(rival).expect("it took part");
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = ratios.iter().copied().fold(0.0, f64::max);
        [
            format!("{rival} {}", self.with_unit(figure)),
            format!("**{}**", factor(median(ratios))),
            format!("{} to {}", factor(least), factor(greatest)),
        ]
    }

    /// A line of the table of targets.
    fn line(&self) -> String {
        let [must, goal] = self.wanted();
        let kvast = self.with_unit(self.series.median_of("kvast").expect("it takes part"));
        let best = self.compared(self.best()).join(" | ");
        let beside = self.compared(self.beside()).join(" | ");
        let verdict = self.verdict();
        format!("| {} | {must} | {goal} | {kvast} | {best} | {beside} | {verdict} |", self.work)
    }

    /// A line of the table of all figures: the median of each store, and how many times as good kvast
    /// was.
    fn wide_line(&self, columns: &[&'static str]) -> String {
        let cell = |name: &&'static str| match self.series.median_of(name) {
            None => " | –".to_owned(),
            Some(figure) if *name == "kvast" => format!(" | {}", number(figure)),
            Some(figure) => {
                let ratio = median(self.series.ratios(name, self.better));
                format!(" | {} ({})", number(figure), factor(ratio))
            }
        };
        let cells: String = columns.iter().map(cell).collect();
        format!("| {} | {}{cells} |", self.work, self.unit)
    }
}

/// Everything that was measured.
pub struct Report {
    head: Vec<String>,
    rows: Vec<Row>,
    tables: Vec<String>,
    notes: Vec<String>,
    columns: Vec<&'static str>,
}

impl Report {
    pub fn new(contest: &Contest) -> Report {
        let arguments = &contest.arguments;
        let mut head = machine::describe(&arguments.dir);
        head.push(format!("{} keys, {} rounds", contest.data.len(), arguments.rounds));
        let versions: Vec<String> = contest
            .kinds
            .iter()
            .map(|kind| format!("{} ({} {})", kind.name, kind.package, version(kind.package)))
            .collect();
        head.push(format!("Stores: {}", versions.join(", ")));
        if contest.kinds.iter().any(|kind| kind.name == "RocksDB") {
            head.push(format!("RocksDB's library: {}", rocksdb_library()));
        }
        let absent = if contest.absent.is_empty() {
            "none".to_owned()
        } else {
            format!("{} (their cargo features were not on)", contest.absent.join(", "))
        };
        head.push(format!("Absent: {absent}"));
        if !contest.left_out.is_empty() {
            head.push(format!("Left out by --rivals: {}", contest.left_out.join(", ")));
        }
        head.push(format!("Load average before: {}", machine::load_average()));
        for line in &head {
            eprintln!("- {line}");
        }
        let mut columns: Vec<&'static str> = contest.kinds.iter().map(|kind| kind.name).collect();
        columns.extend(&contest.absent);
        columns.push(BARE);
        Report { head, rows: Vec::new(), tables: Vec::new(), notes: Vec::new(), columns }
    }

    pub fn row(
        &mut self,
        work: impl Into<String>,
        unit: &'static str,
        better: Better,
        target: Target,
        series: Series,
    ) {
        let row = Row { work: work.into(), unit, better, target, series };
        eprintln!("{}", row.line());
        self.rows.push(row);
    }

    pub fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }

    /// A table of its own, with its heading.
    pub fn table(&mut self, table: String) {
        eprintln!("{table}");
        self.tables.push(table);
    }
}

/// As the lock file has it.
fn version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let entry = lock.split_once(&format!("name = \"{package}\"\nversion = \""));
    entry.and_then(|(_, rest)| rest.split('"').next()).unwrap_or("of unknown version")
}

fn rocksdb_library() -> String {
    let Some(dir) = option_env!("ROCKSDB_LIB_DIR") else {
        return "as the crate built it".to_owned();
    };
    let link = format!("{dir}/librocksdb.so");
    std::fs::canonicalize(&link).map_or(link, |library| library.display().to_string())
}

fn factor(ratio: f64) -> String {
    match ratio {
        ..0.1 => format!("{ratio:.4}"),
        100.0.. => format!("{ratio:.0}"),
        _ => format!("{ratio:.2}"),
    }
}

fn number(value: f64) -> String {
    match value {
        1e6.. => format!("{:.2} M", value / 1e6),
        1e4.. => format!("{:.1} k", value / 1e3),
        1e2.. => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head.iter().try_for_each(|line| writeln!(f, "- {line}"))?;
        writeln!(f, "- Load average after: {}", machine::load_average())?;
        writeln!(f, "\n## Against the targets\n")?;
        writeln!(
            f,
            "| work | must | goal | kvast | best rival | times as good | least to greatest \
             | held against | times as good | least to greatest | met |"
        )?;
        writeln!(f, "|---|---|---|--:|--:|--:|--:|--:|--:|--:|---|")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", row.line()))?;
        writeln!(f, "\n## All stores\n")?;
        let is_used = |name: &&&'static str| {
            **name != BARE || self.rows.iter().any(|row| row.series.of(BARE).is_some())
        };
        let columns: Vec<&'static str> = self.columns.iter().filter(is_used).copied().collect();
        writeln!(f, "| work | unit | {} |", columns.join(" | "))?;
        writeln!(f, "|---|---|{}", "--:|".repeat(columns.len()))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", row.wide_line(&columns)))?;
        for table in &self.tables {
            writeln!(f, "\n{table}")?;
        }
        writeln!(f)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "- {note}"))
    }
}
