//! The program itself, as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// The program with a data directory below `dir`, and nothing else in its environment.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvast"));
    command.env_clear().env("KVAST_DATA", dir.join("data")).stdin(Stdio::null());
    command
}

/// A server that is running.
pub(crate) struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    pub(crate) fn spawn(command: &mut Command) -> Program {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Program { child, stdout }
    }

    /// The next place that it says it listens on.
    pub(crate) fn place(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        let place = line.trim_end().strip_prefix("listening on ");
        place.unwrap_or_else(|| panic!("{line:?}")).to_owned()
    }

    pub(crate) fn addr(&mut self) -> SocketAddr {
        let place = self.place();
        place.strip_prefix("http://").expect("plain HTTP").parse().expect("an address")
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("it runs");
        assert!(sent.success());
    }

    pub(crate) fn end(self) -> Output {
        self.child.wait_with_output().expect("it ends")
    }
}
