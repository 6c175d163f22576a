//! What commands print, for whom it is and how it ends when nobody reads it.
//!
//! `println!` panics where it cannot write. Here a command whose reader has gone (`sluice usage | head -1`) ends without a
//! word, as one that the system ends for it would; one whose output cannot be written says why.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::process::exit;

/// What a shell shows for a program that was ended because nobody reads its output: 128 and the number of SIGPIPE.
const NOBODY_READS: i32 = 141;

/// Prints, as `print!` does.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(fault) if fault.kind() == ErrorKind::BrokenPipe => exit(NOBODY_READS),
        Err(fault) => {
            complain(format_args!("sluice: cannot write to standard output: {fault}"));
            exit(1);
        }
    }
}

/// Prints a line to standard error. Where nobody reads that either, there is nobody to tell.
pub(crate) fn complain(text: fmt::Arguments<'_>) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Prints a line, as `println!` does.
macro_rules! say {
    ($($text:tt)*) => { $crate::command::output::print(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use say;
