//! The text that Prometheus reads, version 0.0.4 of its format.
//!
//! A family is announced once, with its help and type, and its samples follow. Written by hand: the
//! libraries for this write OpenMetrics, which differs in the names of counters, and most of them
//! bring a global registry. Absent on purpose: time stamps, which the format lets the scraper set.
//!
//! The format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write};

/// What the answer says it is.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The kind of a family.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A name and its value.
pub(crate) type Label<'a> = (&'a str, &'a str);

/// Families and samples, as text.
#[derive(Default)]
pub(crate) struct Text {
    text: String,
}

impl Text {
    /// Begins a family.
    pub(crate) fn family(&mut self, kind: Kind, name: &str, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One number of the family that was begun last.
    pub(crate) fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.text.push_str(name);
        for (at, (name, value)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            self.push_escaped(value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    /// A family of one number without labels.
    pub(crate) fn single(&mut self, kind: Kind, name: &str, help: &str, value: impl Display) {
        self.family(kind, name, help);
        self.sample(name, &[], value);
    }

    /// One histogram of the family that was begun last. `buckets` are upper ends in ascending order
    /// with the observations of each bucket alone; `beyond` are those above the last.
    pub(crate) fn histogram(
        &mut self,
        name: &str,
        labels: &[Label<'_>],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        beyond: u64,
        sum: f64,
    ) {
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (end, here) in buckets {
            count += here;
            let end = end.to_string();
            self.sample(&bucket, &[labels, &[("le", end.as_str())]].concat(), count);
        }
        count += beyond;
        self.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), count);
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, count);
    }

    pub(crate) fn into_string(self) -> String {
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }

    fn push_escaped(&mut self, value: &str) {
        for letter in value.chars() {
            match letter {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                _ => self.text.push(letter),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_and_samples_are_written_as_the_format_wants_them() {
        let mut text = Text::default();
        text.single(Kind::Gauge, "keys", "Keys.", 3);
        text.family(Kind::Counter, "requests_total", "Requests.");
        text.sample("requests_total", &[("path", "a\"b\\c\nd"), ("status", "200")], 7);
        text.family(Kind::Histogram, "took_seconds", "Time.");
        text.histogram("took_seconds", &[("op", "get")], [(0.001, 2), (0.01, 3)], 1, 0.5);
        let wanted = [
            "# HELP keys Keys.",
            "# TYPE keys gauge",
            "keys 3",
            "# HELP requests_total Requests.",
            "# TYPE requests_total counter",
            "requests_total{path=\"a\\\"b\\\\c\\nd\",status=\"200\"} 7",
            "# HELP took_seconds Time.",
            "# TYPE took_seconds histogram",
            "took_seconds_bucket{op=\"get\",le=\"0.001\"} 2",
            "took_seconds_bucket{op=\"get\",le=\"0.01\"} 5",
            "took_seconds_bucket{op=\"get\",le=\"+Inf\"} 6",
            "took_seconds_sum{op=\"get\"} 0.5",
            "took_seconds_count{op=\"get\"} 6",
        ];
        assert_eq!(text.into_string(), wanted.join("\n") + "\n");
    }
}
