//! `kvast config`: what is set, from where, and whether it makes sense.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::exit::{Exit, Problem};
use super::flags::Flags;
use super::output::write_out;
use crate::settings::{GROUPS, Layers, Read, example};

/// Show, check or write the configuration of `kvast serve`
#[derive(Args)]
#[command(after_help = "\
Examples:
  kvast config example > kvast.toml
  kvast config check
  kvast config show --origin
  kvast config show --head-time 5s --listen 127.0.0.1:9000")]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    Show(ShowArgs),
    Check(CheckArgs),
    /// Write a `kvast.toml` with every setting, commented out
    Example,
}

/// Print every setting as `kvast serve` would have it, as TOML
///
/// Takes the flags of `kvast serve`. Secrets are masked.
#[derive(Args)]
struct ShowArgs {
    /// Say behind each setting where it comes from
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Check a file and the environment
///
/// Names every error, each with its line, and exits with 2 if there is one.
#[derive(Args)]
struct CheckArgs {
    /// The file; else the one that `kvast serve` would read
    file: Option<PathBuf>,
}

pub(super) fn run(args: ConfigArgs) -> Result<(), Problem> {
    match args.command {
        ConfigCommand::Show(args) => show(args),
        ConfigCommand::Check(args) => check(args),
        ConfigCommand::Example => write_out(|out| write!(out, "{}", example())),
    }
}

fn show(args: ShowArgs) -> Result<(), Problem> {
    let read = args.flags.settle()?;
    warn(&read);
    write_out(|out| {
        for (nth, group) in GROUPS.iter().enumerate() {
            writeln!(out, "{}# {}", if nth == 0 { "" } else { "\n" }, group.title)?;
            for setting in group.settings {
                let line = setting.toml(&read.settings);
                match args.origin {
                    true => writeln!(out, "{line}  # {}", read.origin(setting))?,
                    false => writeln!(out, "{line}")?,
                }
            }
        }
        Ok(())
    })
}

fn check(args: CheckArgs) -> Result<(), Problem> {
    let read = Layers::new(Vec::new(), args.file).read();
    warn(&read);
    if !read.errors.is_empty() {
        return Err(Problem::new(Exit::Usage, read.errors.join("\nkvast: ")));
    }
    let checked = read.file.map_or("no file".to_owned(), |path| path.display().to_string());
    write_out(|out| writeln!(out, "{checked}: ok"))
}

/// Says what may be wrong.
fn warn(read: &Read) {
    for warning in &read.warnings {
        eprintln!("kvast: {warning}");
    }
}
