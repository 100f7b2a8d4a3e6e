//! Standard output, which carries data and nothing else.

use std::io::{self, BufWriter, ErrorKind, Write};

use super::exit::Problem;

/// Where data goes.
pub(super) type Out = BufWriter<io::StdoutLock<'static>>;

/// Writes to standard output. A reader that has had enough, such as `head`, is no failure.
pub(super) fn write_out(write: impl FnOnce(&mut Out) -> io::Result<()>) -> Result<(), Problem> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
