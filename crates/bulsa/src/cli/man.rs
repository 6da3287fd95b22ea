//! `bulsa man`

use crate::{
    output::Printer,
    report::{CommandError, ExitCode},
};

pub(super) fn run(command: clap::Command, printer: &mut Printer) -> Result<ExitCode, CommandError> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| CommandError::bug("can't write the manual page").cause(error))?;
    printer.text(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::Done)
}
