//! `kvast.toml`: reading one, and writing one.
//!
//! The keys are the names of settings, at the top; there are no tables. Whatever is wrong is
//! reported with its line, all of it at once.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::kind::Toml;
use super::{GROUPS, Setting, Settings, all, find, nearest};

/// A setting as the file gives it.
pub(super) struct Entry {
    pub(super) setting: &'static Setting,
    pub(super) text: String,
    pub(super) line: usize,
}

/// Reads a file's text: what it sets, and what is wrong with it by line.
pub(super) fn read(text: &str) -> (Vec<Entry>, Vec<(usize, String)>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let line =
        |span: Range<usize>| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count();
    let mut wrong: Vec<(usize, String)> = errors
        .iter()
        .map(|error| (line(error.span().unwrap_or(0..0)), error.message().to_owned()))
        .collect();
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line(key.span());
        match entry(key.get_ref(), value) {
            Ok((setting, text)) => entries.push(Entry { setting, text, line }),
            Err(what) => wrong.push((line, what)),
        }
    }
    wrong.sort();
    (entries, wrong)
}

fn entry(key: &str, value: &Spanned<DeValue<'_>>) -> Result<(&'static Setting, String), String> {
    let Some(setting) = find(key) else { return Err(unknown(key, value.get_ref())) };
    let form = setting.field.form();
    let text = text(form.toml, value.get_ref())
        .ok_or_else(|| format!("{key}: it wants {}, and this is {}", form.wanted, called(value)))?;
    Ok((setting, text))
}

fn unknown(key: &str, value: &DeValue<'_>) -> String {
    if matches!(value, DeValue::Table(_)) {
        return format!(
            "{key} is a table, and there are none: settings stand at the top of the file"
        );
    }
    let near = nearest(key, all().map(|setting| setting.name)).unwrap_or_default();
    format!("there is no setting {key}; the nearest name is {near}")
}

/// The value as text, if it is of a type that is wanted.
fn text(wanted: Toml, value: &DeValue<'_>) -> Option<String> {
    match (wanted, value) {
        (Toml::Text | Toml::Measure | Toml::List, DeValue::String(text)) => Some(text.to_string()),
        (Toml::Number | Toml::Measure, DeValue::Integer(number)) if number.radix() == 10 => {
            Some(number.as_str().to_owned())
        }
        (Toml::Switch, DeValue::Boolean(on)) => Some(on.to_string()),
        (Toml::List, DeValue::Array(items)) => {
            let texts: Option<Vec<&str>> =
                items.iter().map(|item| item.get_ref().as_str()).collect();
            texts.filter(|texts| !texts.is_empty()).map(|texts| texts.join(","))
        }
        _ => None,
    }
}

fn called(value: &Spanned<DeValue<'_>>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl Setting {
    /// The line of a file that sets it to what it is; a comment if it is not set.
    pub(crate) fn toml(&self, settings: &Settings) -> String {
        let Some(shown) = self.show(settings) else { return format!("# {} = \"\"", self.name) };
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let value = match self.field.form().toml {
            Toml::Number | Toml::Switch => shown,
            Toml::Text | Toml::Measure => quoted(&shown),
            Toml::List => {
                let items: Vec<String> = shown.split(',').map(quoted).collect();
                format!("[{}]", items.join(", "))
            }
        };
        format!("{} = {value}", self.name)
    }
}

/// A file with every setting, explained and commented out.
pub(crate) fn example() -> String {
    let defaults = Settings::default();
    let mut text = String::from(
        "# kvast.toml: every setting with its default.\n\
         # A flag of `kvast serve` comes before a variable KVAST_NAME, and that before this file.\n",
    );
    for group in GROUPS {
        text += &format!("\n# {}\n", group.title);
        for setting in group.settings {
            let line = setting.toml(&defaults);
            text += &format!("\n{}# {}\n", comment(setting.help), line.trim_start_matches("# "));
        }
    }
    text
}

/// A sentence in lines of a length that is read with ease.
fn comment(sentence: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in sentence.split(' ') {
        if lines.last().is_some_and(|line| line.len() + word.len() > 98) {
            lines.push("#".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + ".\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Vec<(usize, String)> {
        read(text).1
    }

    #[test]
    fn the_example_is_read_back_as_the_defaults_when_its_comments_are_removed() {
        let all_set: String = example()
            .lines()
            .map(|line| line.trim_start_matches("# "))
            .filter(|line| line.split_once(" = ").is_some_and(|(name, _)| find(name).is_some()))
            .filter(|line| !line.ends_with("\"\""))
            .flat_map(|line| [line, "\n"])
            .collect();
        let (entries, wrong) = read(&all_set);
        assert_eq!(wrong, []);
        let mut settings = Settings::default();
        for entry in &entries {
            entry.setting.take(&mut settings, &entry.text).expect("it is taken");
        }
        assert_eq!(format!("{settings:?}"), format!("{:?}", Settings::default()));
        let unset = all().filter(|setting| setting.show(&settings).is_none()).count();
        assert_eq!(entries.len() + unset, all().count());
        assert_eq!(read(&example()).0.len(), 0, "as it comes it sets nothing");
    }

    #[test]
    fn values_have_the_types_that_their_kinds_want() {
        let text = "head-time = 5\nhead-bytes = 8192\nconnections = 1_0\naccess-log = true\n\
                    listen = [\"127.0.0.1:1\", \"unix:/s\"]\ndurability = \"os\"\n";
        let (entries, wrong) = read(text);
        assert_eq!(wrong, []);
        let mut texts: Vec<(usize, &str)> =
            entries.iter().map(|entry| (entry.line, entry.text.as_str())).collect();
        texts.sort_unstable();
        let wanted = ["5", "8192", "10", "true", "127.0.0.1:1,unix:/s", "os"];
        assert_eq!(texts, (1..).zip(wanted).collect::<Vec<_>>());
    }

    #[test]
    fn every_error_is_named_with_its_line() {
        let text = "head-tim = \"1s\"\n\nconnections = \"9\"\nlisten = [1]\naccess-log = \"yes\"\n\
                    data = 1\n[limits]\nlinger = \"1s\"\n";
        let wrong = wrong(text);
        let lines: Vec<usize> = wrong.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 3, 4, 5, 6, 7]);
        let near = |at: usize, part: &str| assert!(wrong[at].1.contains(part), "{:?}", wrong[at]);
        near(0, "the nearest name is head-time");
        near(1, "connections: it wants a whole number, and this is a text");
        near(2, "list");
        near(3, "true or false");
        near(4, "a path in quotes");
        near(5, "top of the file");
    }

    #[test]
    fn broken_syntax_and_doubled_keys_are_errors_with_a_line() {
        assert_eq!(wrong("a = \n").first().map(|(line, _)| *line), Some(1));
        let doubled = wrong("linger = \"1s\"\nlinger = \"2s\"\n");
        assert_eq!(doubled.first().map(|(line, _)| *line), Some(2), "{doubled:?}");
    }
}
