//! The kinds of value that a setting takes: how each is written, read and shown.
//!
//! Whatever layer a value comes from, it is read from one text here. A list is a text with commas.

use std::path::PathBuf;
use std::time::Duration;

use kvast::Durability;
use tracing::level_filters::LevelFilter;

use super::{LogFormat, Settings};
use crate::config::{ListenOn, Secret, parse_durability, parse_listen, show_durability};
use crate::units::{parse_duration, parse_size, show_duration, show_size};

/// How a kind looks from outside.
pub(super) struct Form {
    /// What stands for a value in help.
    pub(super) placeholder: &'static str,
    /// What is wanted where something else was found, for example `a time such as "30s"`.
    pub(super) wanted: &'static str,
    pub(super) toml: Toml,
    pub(super) is_secret: bool,
}

/// What a value is in a TOML file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Toml {
    Text,
    Number,
    /// A text with a unit, or a bare number.
    Measure,
    Switch,
    List,
}

/// A kind of value.
pub(super) struct Kind<T> {
    form: Form,
    parse: fn(&str) -> Result<T, String>,
    show: fn(&T) -> Option<String>,
}

/// Where a value of some kind stands.
pub(super) struct Place<T: 'static> {
    pub(super) kind: &'static Kind<T>,
    pub(super) get: fn(&Settings) -> &T,
    pub(super) get_mut: fn(&mut Settings) -> &mut T,
}

/// A place whose kind does not matter.
pub(super) trait Field {
    fn form(&self) -> &'static Form;
    fn take(&self, settings: &mut Settings, text: &str) -> Result<(), String>;
    /// `None` if nothing is set.
    fn show(&self, settings: &Settings) -> Option<String>;
}

impl<T> Field for Place<T> {
    fn form(&self) -> &'static Form {
        &self.kind.form
    }

    fn take(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        *(self.get_mut)(settings) = (self.kind.parse)(text)?;
        Ok(())
    }

    fn show(&self, settings: &Settings) -> Option<String> {
        (self.kind.show)((self.get)(settings))
    }
}

const fn form(placeholder: &'static str, toml: Toml, wanted: &'static str) -> Form {
    Form { placeholder, wanted, toml, is_secret: false }
}

/// A whole number of any width; the width of its field is the limit.
pub(super) trait Whole: Copy + TryFrom<u64> + TryInto<u64> {}

impl<T: Copy + TryFrom<u64> + TryInto<u64>> Whole for T {}

const TOO_LARGE: &str = "it is too large";

fn narrow<T: Whole>(number: u64) -> Result<T, String> {
    T::try_from(number).map_err(|_| TOO_LARGE.to_owned())
}

/// The types of limits all fit.
fn wide<T: Whole>(number: &T) -> u64 {
    (*number).try_into().unwrap_or(u64::MAX)
}

impl<T: Whole> Kind<T> {
    pub(super) const SIZE: Kind<T> = Kind {
        form: form("SIZE", Toml::Measure, "a size such as \"64KiB\", or a number of bytes"),
        parse: |text| parse_size(text).and_then(narrow),
        show: |bytes| Some(show_size(wide(bytes))),
    };

    pub(super) const COUNT: Kind<T> = Kind {
        form: form("N", Toml::Number, "a whole number"),
        parse: |text| {
            let number = text.parse().map_err(|_| "say a whole number, for example 100".to_owned());
            number.and_then(narrow)
        },
        show: |count| Some(wide(count).to_string()),
    };
}

pub(super) static TIME: Kind<Duration> = Kind {
    form: form("TIME", Toml::Measure, "a time such as \"30s\", or a number of seconds"),
    parse: parse_duration,
    show: |time| Some(show_duration(*time)),
};

pub(super) static PATH: Kind<PathBuf> = Kind {
    form: form("DIR", Toml::Text, "a path in quotes"),
    parse: |text| Ok(PathBuf::from(text)),
    show: |path| Some(path.display().to_string()),
};

pub(super) static OPTIONAL_PATH: Kind<Option<PathBuf>> = Kind {
    form: form("FILE", Toml::Text, "a path in quotes"),
    parse: |text| Ok(Some(PathBuf::from(text))),
    show: |path| path.as_ref().map(|path| path.display().to_string()),
};

pub(super) static SECRET: Kind<Option<Secret>> = Kind {
    form: Form { is_secret: true, ..form("TOKEN", Toml::Text, "a token in quotes") },
    parse: |text| {
        // A request that carries nothing must not carry the right token.
        let is_sent =
            !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        let secret = is_sent.then(|| Some(Secret::new(text)));
        secret.ok_or_else(|| "say at least one letter, and no spaces".to_owned())
    },
    show: |secret| secret.as_ref().map(|secret| secret.reveal().to_owned()),
};

pub(super) static SWITCH: Kind<bool> = Kind {
    form: form("BOOL", Toml::Switch, "true or false"),
    parse: |text| text.parse().map_err(|_| "say true or false".to_owned()),
    show: |on| Some(on.to_string()),
};

pub(super) static LISTEN: Kind<Vec<ListenOn>> = Kind {
    form: form(
        "ADDR:PORT|unix:PATH",
        Toml::List,
        "an address such as \"127.0.0.1:8787\", or a list of them in brackets",
    ),
    parse: |text| text.split(',').map(|one| parse_listen(one.trim())).collect(),
    show: |listen| Some(listen.iter().map(ListenOn::to_string).collect::<Vec<_>>().join(",")),
};

pub(super) static DURABILITY: Kind<Durability> = Kind {
    form: form(
        "sync|os|interval:TIME",
        Toml::Text,
        "\"sync\", \"os\" or \"interval:\" with a time",
    ),
    parse: parse_durability,
    show: |durability| Some(show_durability(*durability)),
};

pub(super) static LOG_FORMAT: Kind<LogFormat> = Kind {
    form: form("text|json", Toml::Text, "\"text\" or \"json\""),
    parse: |text| match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("say text or json".to_owned()),
    },
    show: |format| {
        Some(match format {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        })
    },
};

pub(super) static LOG_LEVEL: Kind<LevelFilter> = Kind {
    form: form(
        "error|warn|info|debug|trace",
        Toml::Text,
        "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
    ),
    parse: |text| match text {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err("say error, warn, info, debug or trace".to_owned()),
    },
    show: |level| Some(level.to_string()),
};
