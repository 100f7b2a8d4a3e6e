//! The command line: `kvast serve`, and commands that work on a directory.
//!
//! Standard output carries data only; whatever is said goes to standard error. The exit code
//! tells kinds of failure apart, so that scripts need not read sentences. Absent on purpose:
//! talking to a running server from here, but for `ping`: `curl` does that.

mod bench;
mod config;
mod data;
mod exit;
mod flags;
mod output;
mod ping;
mod serve;
mod signals;
mod store;
mod supervisor;
mod token;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::memory;

const EXIT_CODES: &str = "\
Exit codes:
  0    success; of serve: stopped as it was told, with every acknowledged write on disk
  1    failure
  2    wrong usage or configuration
  3    no such key, namespace or token
  5    the store is open in another process
  6    the store is damaged
  130  bench was interrupted, or serve was told twice to stop, the second time by SIGINT
  143  the same by SIGTERM";

/// A key-value store that speaks Workers KV.
#[derive(Parser)]
#[command(name = "kvast", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Config(config::ConfigArgs),
    Token(token::TokenArgs),
    Ping(ping::PingArgs),
    Put(data::PutArgs),
    Get(data::GetArgs),
    Delete(data::DeleteArgs),
    List(data::ListArgs),
    Verify(verify::VerifyArgs),
    Bench(bench::BenchArgs),
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn run() -> ExitCode {
    memory::give_back_large_blocks();
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Config(args) => config::run(args),
        Command::Token(args) => token::run(args),
        Command::Ping(args) => ping::run(&args),
        Command::Put(args) => data::put(args),
        Command::Get(args) => data::get(&args),
        Command::Delete(args) => data::delete(&args),
        Command::List(args) => data::list(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => problem.report(),
    }
}
