//! What the binary can be besides a command: keeper, agent, proxy.
//!
//! Owns: the join between the command line and the three processes. Never: holds a rule of any of them.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command, sync::Mutex};

use crate::{
    agent,
    cli::{DemoArgs, Entries, ServeOptions},
    demo,
    keeper::{self, KeeperError},
    output::Printer,
    proxy_process,
    report::{CommandError, ExitCode},
};

/// The entries of the real binary.
#[must_use]
pub fn all() -> Entries {
    Entries { serve, keeper: run_keeper, agent: run_agent, proxy: run_proxy, demo_app, demo }
}

/// Starts over in this same process, without what reading the command line has left in its memory.
fn serve(options: &ServeOptions) -> Result<ExitCode, CommandError> {
    let error = Command::new("/proc/self/exe").arg0("bulsa").args(options.keeper_args()).exec();
    Err(CommandError::user("the daemon can't start").cause(error))
}

fn run_keeper(options: &ServeOptions) -> Result<ExitCode, CommandError> {
    let mut config = keeper::Config::new(options.state_dir.clone());
    config.agent = [OsString::from("/proc/self/exe")].into_iter().chain(options.agent_args()).collect();
    config.init.clone_from(&options.init);
    match keeper::run(config) {
        Ok(code) => Ok(ExitCode::of_deploy(code)),
        Err(error @ KeeperError::AlreadyRunning { .. }) => Err(CommandError::user(error.to_string())
            .hint("`bulsa status` shows what it runs; `bulsa serve --state-dir DIR` starts one of its own")),
        Err(error @ KeeperError::StateDir { .. }) => {
            Err(CommandError::user(format!("the daemon can't start: {error}"))
                .hint("name another directory with `--state-dir DIR`, or make this one writable"))
        }
        Err(error) => Err(CommandError::user(format!("the daemon can't start: {error}"))),
    }
}

fn run_agent(options: &ServeOptions) -> Result<ExitCode, CommandError> {
    log_to_stderr();
    let config = agent::Config { state_dir: options.state_dir.clone(), socket: options.socket.clone() };
    agent::run(&config).map(|()| ExitCode::Done).map_err(|error| {
        tracing::error!(%error, "the agent can't start");
        CommandError::user(error.to_string())
    })
}

fn run_proxy() -> Result<ExitCode, CommandError> {
    log_to_stderr();
    match proxy_process::run() {
        Ok(_) => Ok(ExitCode::Done),
        Err(error) => Err(CommandError::user(error.to_string())),
    }
}

fn demo_app(_: &[OsString]) -> Result<ExitCode, CommandError> {
    match demo::app::main() {
        Ok(demo::app::End::Stopped) => Ok(ExitCode::Done),
        Ok(demo::app::End::Crashed) => Ok(ExitCode::UserError),
        Err(error) => Err(CommandError::user(error.to_string())),
    }
}

fn demo(args: &DemoArgs, printer: &mut Printer) -> Result<ExitCode, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::user(format!("the demo can't start: {error}")))?;
    let json = printer.json();
    let args = demo::DemoArgs { keep: args.keep, quick: args.quick };
    let printing = Mutex::new(&mut *printer);
    let say = |line: &str| {
        let mut printer = printing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A reader that is gone doesn't stop the show: the figures at the end say so.
        drop(if json { printer.remark(line) } else { printer.text(line) });
    };
    let shown = runtime.block_on(demo::run(args, &say));
    let figures = shown.map_err(|error| CommandError::user(error.to_string()))?;
    if json {
        printer.object(&figures)?;
    } else {
        printer.text(&figures.table())?;
    }
    Ok(if figures.exit_code() == 0 { ExitCode::Done } else { ExitCode::UserError })
}

/// The daemon's log is its standard error: the journal under systemd, `daemon.log` in the background.
fn log_to_stderr() {
    let level = std::env::var("BULSA_LOG").ok().and_then(|level| level.parse().ok());
    let logged = tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(tracing_subscriber::filter::LevelFilter::INFO))
        .with_writer(std::io::stderr)
        // It would tell of a line that can't be written on the same standard error, and end the process where that fails: a
        // log on a full disk is no reason to stop healing, or serving.
        .log_internal_errors(false)
        .with_ansi(false);
    if let Err(error) = logged.try_init() {
        // Somebody set a logger before: then that one is used.
        tracing::debug!(%error, "the logger stands already");
    }
}
