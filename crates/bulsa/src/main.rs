//! The binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulsa::cli::main(std::env::args_os(), bulsa::entries::all()).into()
}
