//! The keeper with real processes, real sockets and real SIGKILLs.
//!
//! This binary plays all parts: started with `__keeper`, `__agent` or `__proxy` it is that process, else it runs the
//! tests. The agent process hands its link to the test and waits, so that a test speaks for the agent and can kill
//! it at any point. The proxy is the real one.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a test; without the standard harness the lints do not know it"
)]

mod agent_tests;
mod chaos_tests;
mod keeper_tests;
mod proxy_tests;
mod replica_tests;
mod roles;
mod shutdown_tests;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("__keeper") => roles::keeper(arguments.collect()),
        Some("__agent") => roles::agent(arguments.collect()),
        Some("__proxy") => roles::proxy(),
        _ => {
            let trials = [
                agent_tests::trials(),
                chaos_tests::trials(),
                keeper_tests::trials(),
                proxy_tests::trials(),
                replica_tests::trials(),
                shutdown_tests::trials(),
            ];
            libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
        }
    }
}

/// Makes a test of an async function; it has [`world::TEST_LIMIT`] to end.
fn trial<F: Future<Output = ()>>(name: &'static str, test: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let limited = runtime.block_on(async { tokio::time::timeout(world::TEST_LIMIT, test()).await });
        limited.map_err(|_| "the test took too long".into())
    })
}
