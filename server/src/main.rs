//! The program `kvast`; see [`kvast_server::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    kvast_server::cli::run()
}
