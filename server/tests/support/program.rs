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

/// The program as a server on a port of its own.
pub(crate) fn serve(dir: &Path, flags: &[&str]) -> Command {
    let mut command = command(dir);
    command.args(["serve", "--listen", "127.0.0.1:0"]).args(flags);
    command
}

/// A server that is running; killed when it is dropped.
pub(crate) struct Program {
    /// `None` once its end is waited for.
    child: Option<Child>,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Program {
    pub(crate) fn spawn(command: &mut Command) -> Program {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let stdout = child.stdout.take().map(BufReader::new);
        Program { child: Some(child), stdout }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The next place that it says it listens on.
    pub(crate) fn place(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().expect("a pipe").read_line(&mut line).expect("a line");
        let place = line.trim_end().strip_prefix("listening on ");
        place.unwrap_or_else(|| panic!("{line:?}")).to_owned()
    }

    pub(crate) fn addr(&mut self) -> SocketAddr {
        let place = self.place();
        place.strip_prefix("http://").expect("plain HTTP").parse().expect("an address")
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("it runs");
        assert!(sent.success());
    }

    /// Waits until it ends. The output is what was not read before.
    pub(crate) fn end(mut self) -> Output {
        let mut child = self.child.take().expect("it runs");
        let stdout = self.stdout.take().expect("a pipe");
        let read = stdout.buffer().to_vec();
        child.stdout = Some(stdout.into_inner());
        let mut output = child.wait_with_output().expect("it ends");
        output.stdout = [read, output.stdout].concat();
        output
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
