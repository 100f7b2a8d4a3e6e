//! The flags of `kvast serve`, made from the table of settings.
//!
//! clap only tells which flags stand there: values are read where those of variables and of the
//! file are, so that all are checked alike.

use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::exit::{Exit, Problem};
use crate::settings::{GROUPS, Layers, Read, Setting, Settings, all};

const CONFIG: &str = "config";

/// What the command line says about settings.
pub(super) struct Flags {
    given: Vec<(&'static str, String)>,
    config: Option<PathBuf>,
}

impl Flags {
    /// No flags but the one that names a file.
    pub(super) fn none(config: Option<PathBuf>) -> Flags {
        Flags { given: Vec::new(), config }
    }

    /// Puts flags, variables and the file together; whatever is wrong is in the result.
    pub(super) fn read(self) -> Read {
        Layers::new(self.given, self.config).read()
    }

    /// The same, if nothing is wrong.
    pub(super) fn settle(self) -> Result<Read, Problem> {
        let read = self.read();
        match read.errors.is_empty() {
            true => Ok(read),
            false => Err(Problem::new(Exit::Usage, read.errors.join("\nkvast: "))),
        }
    }
}

impl Args for Flags {
    fn augment_args(mut command: Command) -> Command {
        let defaults = Settings::default();
        command = command.arg(config());
        for group in GROUPS {
            let flags = group.settings.iter().filter(|setting| !setting.is_secret());
            let flags = flags.map(|setting| flag(setting, &defaults).help_heading(group.title));
            command = command.args(flags);
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args(command)
    }
}

fn config() -> Arg {
    Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .value_parser(ValueParser::path_buf())
        .help("Read settings from this file instead of ./kvast.toml or /etc/kvast/kvast.toml")
}

fn flag(setting: &Setting, defaults: &Settings) -> Arg {
    let arg = Arg::new(setting.name).long(setting.name).value_name(setting.placeholder());
    let default = setting.show(defaults).filter(|_| !setting.is_switch());
    let help = match default {
        Some(default) => format!("{} [{default}]", setting.help),
        None => setting.help.to_owned(),
    };
    let arg = arg.help(help);
    if setting.is_switch() {
        return arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true);
    }
    if setting.is_list() { arg.action(ArgAction::Append) } else { arg }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, clap::Error> {
        let mut given = Vec::new();
        for setting in all().filter(|setting| !setting.is_secret()) {
            if let Some(texts) = matches.get_many::<String>(setting.name) {
                let texts: Vec<&str> = texts.map(String::as_str).collect();
                given.push((setting.name, texts.join(",")));
            }
        }
        Ok(Flags { given, config: matches.get_one::<PathBuf>(CONFIG).cloned() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Flags::from_arg_matches(matches)?;
        Ok(())
    }
}
