//! `bulsa rollback`

use bulsa_core::wire::api::Request;
use clap::Args;

use super::{
    context::{Accepted, Context, accepted},
    deploy, follow,
    which::Purpose,
};
use crate::report::{CommandError, ExitCode};

/// Go back to an earlier release
#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The release, `3` or `r3` [default: the one before the live one]
    #[arg(value_parser = release)]
    release: Option<u32>,
    /// Return once the rollback has begun
    #[arg(short, long)]
    detach: bool,
}

pub(super) async fn run(args: &RollbackArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let client = context.client().await?;
    let project = context.which_project(&client.snapshot().await?, Purpose::Change)?;
    let request = Request::Rollback { project: project.clone(), release: args.release };
    match accepted(client.request(&request).await?)? {
        Accepted::Begun { deploy: Some(id), text, .. } if !args.detach => {
            context.printer.remark(&text)?;
            follow::deployment(&client, context.printer, &project, id).await
        }
        begun => {
            deploy::said(context, &begun)?;
            Ok(ExitCode::Done)
        }
    }
}

fn release(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix('r').unwrap_or(text).parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "a release is a number from 1, with or without its r: `3` or `r3`".to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn releases_are_numbers_with_or_without_their_letter() {
        assert_eq!((super::release("3"), super::release("r12")), (Ok(3), Ok(12)));
        for bad in ["", "r", "0", "x3", "-1"] {
            assert!(super::release(bad).is_err(), "{bad}");
        }
    }
}
