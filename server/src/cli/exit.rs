//! How a command ends that did not succeed: a sentence on standard error and an exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use kvast::Code;

use crate::start::StartError;

/// The exit codes, as `kvast --help` lists them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Exit {
    Failure = 1,
    Usage = 2,
    NotFound = 3,
    Locked = 5,
    Damaged = 6,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub(super) struct Problem {
    exit: Exit,
    text: String,
}

impl Problem {
    pub(super) fn new(exit: Exit, text: impl fmt::Display) -> Problem {
        Problem { exit, text: text.to_string() }
    }

    /// Says what is wrong, and gives the code to exit with.
    pub(super) fn report(&self) -> ExitCode {
        eprintln!("kvast: {}", self.text);
        ExitCode::from(self.exit as u8)
    }
}

impl From<kvast::Error> for Problem {
    fn from(error: kvast::Error) -> Problem {
        let exit = match error.code() {
            Code::InvalidKey
            | Code::MetadataTooLarge
            | Code::ValueTooLarge
            | Code::InvalidExpiry
            | Code::InvalidName
            | Code::InvalidOption => Exit::Usage,
            Code::NamespaceNotFound => Exit::NotFound,
            Code::Locked => Exit::Locked,
            Code::Corrupt => Exit::Damaged,
            _ => Exit::Failure,
        };
        Problem::new(exit, error)
    }
}

impl From<StartError> for Problem {
    fn from(error: StartError) -> Problem {
        match error {
            StartError::Store(error) => Problem::from(error),
            StartError::Limits(_)
            | StartError::Unprotected(_)
            | StartError::TokenFile { .. }
            | StartError::Nowhere => Problem::new(Exit::Usage, error),
            _ => Problem::new(Exit::Failure, error),
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        Problem::new(Exit::Failure, error)
    }
}
