//! The command line.
//!
//! Owns: the commands and their flags (one file each), reading the project's files, starting a daemon where none runs,
//! and waiting for what was asked. Never: decides anything about a project. A command reads files, sends a request,
//! and shows what the daemon publishes; [`crate::output`] is the only thing that prints.
//!
//! ```text
//!  main ─ parse ─┬─ serve, demo, __agent, __proxy ─▶ [`Entries`]       (processes of their own kind)
//!                └─ everything else ─▶ Context ─▶ one file of cli/ ─▶ exit code, or a CommandError
//! ```

mod act;
mod args;
mod attend;
pub mod build;
mod check;
mod completions;
mod config;
mod context;
mod daemon;
mod deploy;
mod develop;
mod down;
mod drill;
mod events;
mod follow;
mod hold;
pub mod images;
mod init;
mod later;
mod logs;
mod man;
mod notify;
mod pack;
mod project;
mod ps;
mod releases;
mod reload;
mod rollback;
mod run;
mod serve;
mod sources;
mod status;
mod supply;
mod up;
mod wait;
mod watch;
mod which;
mod why;
mod workers;

use std::{
    ffi::OsString,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use clap::{CommandFactory, Parser, Subcommand};

pub use self::{args::DemoArgs, serve::ServeOptions};
use self::{
    args::{FileArgs, Global},
    context::Context,
    later::LaterArgs,
};
use crate::{
    output::{Manner, Printer},
    report::{CommandError, ExitCode},
};

/// The programs inside this one that aren't clients of the daemon. `main` gives them.
#[derive(Clone, Copy)]
pub struct Entries {
    /// `bulsa serve`: becomes `bulsa __keeper`. Called with one thread and no async runtime.
    pub serve: fn(&ServeOptions) -> Result<ExitCode, CommandError>,
    /// `bulsa __keeper`: the keeper, until it is told to end. Called with one thread and no async runtime.
    pub keeper: fn(&ServeOptions) -> Result<ExitCode, CommandError>,
    /// `bulsa __agent`: started by the keeper, its link is standard input. Called without an async runtime.
    pub agent: fn(&ServeOptions) -> Result<ExitCode, CommandError>,
    /// `bulsa __proxy`: started by the keeper, its link is standard input. Called without an async runtime.
    pub proxy: fn() -> Result<ExitCode, CommandError>,
    /// `bulsa __demo-app`: the demo's web app. Called without an async runtime.
    pub demo_app: fn(&[OsString]) -> Result<ExitCode, CommandError>,
    /// `bulsa demo`. Called without an async runtime.
    pub demo: fn(&DemoArgs, &mut Printer) -> Result<ExitCode, CommandError>,
}

/// Keeps a Docker Compose project alive
#[derive(Debug, Parser)]
#[command(name = "bulsa", version, max_term_width = 100, after_help = AFTER_HELP, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    files: FileArgs,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 user or project error (or not done in time), 2 usage, 3 deploy failed and
the old release serves, 4 denied, 5 daemon unreachable, 6 degraded (status), 7 deploy failed and
the service is down, 70 bug, 137 a worker had to be killed (as a container's first process).

Try `bulsa demo` first; it needs nothing but this program.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show in a minute how a service survives deploys, kills, a hang and bad releases
    Demo(DemoArgs),
    /// Keep a program alive as several workers behind one port
    Run(run::RunArgs),
    /// Run a compose project; on a running one, deploy it
    Up(up::UpArgs),
    /// Make a release of the project and switch to it
    Deploy(deploy::DeployArgs),
    /// Wait for a deploy to end
    Wait(wait::WaitArgs),
    /// Go back to an earlier release
    Rollback(rollback::RollbackArgs),
    /// Show how every project is
    Status(status::StatusArgs),
    /// Show every replica
    Ps(ps::PsArgs),
    /// Show a project's releases
    Releases(releases::ReleasesArgs),
    /// Show what happened
    Events(events::EventsArgs),
    /// Show what replicas wrote
    Logs(logs::LogsArgs),
    /// Say why a service is as it is, with the evidence
    Why(why::WhyArgs),
    /// Stop a service until it is started again
    Stop(act::ServiceArgs),
    /// Start a stopped service
    Start(act::ServiceArgs),
    /// Replace every replica of a service by a new one
    Restart(act::ServiceArgs),
    /// Change how many replicas a service has
    Scale(act::ScaleArgs),
    /// Let new requests wait in the proxy, or let them out
    ///
    /// While it is on, new requests wait although replicas are ready, as long and as many as `x-bulsa.hold` says; what is more
    /// is answered with 503 and Retry-After. What is under way goes on, WebSockets too. It stays on over deploys and
    /// restarts of the daemon until `off`, or `bulsa down`.
    Hold(hold::HoldArgs),
    /// Hurt replicas on purpose, and measure how they come back
    ///
    /// Each injury is done to one replica of the live release, one after the other: killed, stopped, its app killed or blocked,
    /// cut off, crash-looped, out of memory, its probe broken. Bulsa heals as after any other injury; what could outlive a
    /// drill is taken back. It is refused while a deploy runs or a service isn't well.
    Drill(drill::DrillArgs),
    /// Try the webhooks and the heartbeat of a project
    Notify(notify::NotifyArgs),
    /// Stop a project and close its ports
    Down(down::DownArgs),
    /// Run the daemon in the foreground
    Serve(serve::ServeArgs),
    /// Say what in the compose file will break, with the line and the patch
    Check(check::CheckArgs),
    /// Print the resolved compose file
    Config(config::ConfigArgs),
    /// Print the completions for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page
    Man,

    #[command(hide = true)]
    Promote(LaterArgs),
    #[command(hide = true)]
    Abort(LaterArgs),
    #[command(hide = true)]
    Env(LaterArgs),
    #[command(hide = true)]
    Top(LaterArgs),
    #[command(hide = true)]
    Exec(LaterArgs),
    #[command(hide = true)]
    Maintenance(LaterArgs),
    #[command(hide = true)]
    Init(LaterArgs),
    #[command(hide = true)]
    Eject(LaterArgs),
    #[command(hide = true)]
    Upgrade(LaterArgs),
    #[command(hide = true)]
    Install(LaterArgs),
    #[command(hide = true)]
    Uninstall(LaterArgs),
    #[command(hide = true)]
    Token(LaterArgs),
}

/// How a command stays with what it brought up.
#[derive(Clone, Copy, Debug)]
struct Stay {
    detached: bool,
    /// As a container's first process: how long everything may take to end.
    stop_within: Option<Duration>,
}

impl Command {
    /// Of the commands that stay with what they bring up.
    fn stay(&self) -> Option<Stay> {
        match self {
            Self::Run(args) => Some(Stay { detached: args.detach, stop_within: args.stop_within }),
            Self::Up(args) => Some(Stay { detached: args.detach, stop_within: None }),
            _ => None,
        }
    }

    /// Whether it changes something, or waits for what does: it goes on then though nobody reads what it says.
    fn changes(&self) -> bool {
        match self {
            Self::Deploy(args) => !args.only_plans(),
            Self::Run(_)
            | Self::Up(_)
            | Self::Wait(_)
            | Self::Rollback(_)
            | Self::Stop(_)
            | Self::Start(_)
            | Self::Restart(_)
            | Self::Scale(_)
            | Self::Hold(_)
            | Self::Drill(_)
            | Self::Down(_) => true,
            _ => false,
        }
    }
}

/// Runs the command line; returns the process's exit code.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>, entries: Entries) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(part) = part(&args, entries) {
        return guarded(&mut Printer::stdio(Manner::default()), |_| part());
    }
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done };
            // Help and mistakes go where clap says; a stream that can't be written leaves the exit code.
            drop(error.print());
            return code;
        }
    };
    let manner = Manner { json: cli.global.json, quiet: cli.global.quiet, no_color: cli.global.no_color };
    let mut printer = Printer::stdio(manner);
    guarded(&mut printer, |printer| dispatch(cli, args, entries, printer))
}

/// Runs `work`; says what went wrong.
fn guarded(
    printer: &mut Printer,
    work: impl FnOnce(&mut Printer) -> Result<ExitCode, CommandError>,
) -> ExitCode {
    // A panic has printed itself; what is left is to give it its exit code instead of Rust's own.
    let result = catch_unwind(AssertUnwindSafe(|| work(printer)))
        .unwrap_or_else(|_| Err(CommandError::bug("bulsa failed in a way that it should not")));
    result.unwrap_or_else(|error| {
        let code = error.kind.exit_code();
        if code != ExitCode::Done {
            printer.error(&error);
        }
        code
    })
}

/// One of the processes that this program starts itself. They are told apart before the command line is read: the code
/// and memory that it takes would stay with each of them for good.
fn part(args: &[OsString], entries: Entries) -> Option<Box<dyn FnOnce() -> Result<ExitCode, CommandError>>> {
    let (name, rest) = args.get(1..)?.split_first()?;
    let rest = rest.to_vec();
    let first = rest.first().cloned();
    let with_options = move |part: fn(&ServeOptions) -> Result<ExitCode, CommandError>| {
        let options = ServeOptions::from_args(&rest);
        let options = options.ok_or_else(|| CommandError::bug("a part of the daemon takes two paths"));
        part(&options?)
    };
    Some(match name.to_str()? {
        "__keeper" => Box::new(move || with_options(entries.keeper)),
        "__agent" => Box::new(move || with_options(entries.agent)),
        "__proxy" => Box::new(move || (entries.proxy)()),
        "__demo-app" => Box::new(move || (entries.demo_app)(&[])),
        "__drill-memory" => Box::new(move || drill::take_memory(first.as_ref())),
        _ => return None,
    })
}

fn dispatch(
    cli: Cli,
    args: Vec<OsString>,
    entries: Entries,
    printer: &mut Printer,
) -> Result<ExitCode, CommandError> {
    if let Some(stay) = cli.command.stay().filter(|_| init::is_first_process()) {
        return first_process(&cli.global, args, stay, entries);
    }
    match cli.command {
        Command::Demo(args) => (entries.demo)(&args, printer),
        Command::Serve(args) => {
            let context = Context::new(cli.global, cli.files, printer)?;
            (entries.serve)(&serve::options(&args, &context))
        }
        Command::Completions(args) => completions::run(&args, &mut Cli::command(), printer),
        Command::Man => man::run(Cli::command(), printer),
        command => {
            let mut context = Context::new(cli.global, cli.files, printer)?;
            runtime()?.block_on(client_command(command, &mut context))
        }
    }
}

/// What ends when its command does must not return before.
fn first_process(
    global: &Global,
    args: Vec<OsString>,
    stay: Stay,
    entries: Entries,
) -> Result<ExitCode, CommandError> {
    if stay.detached {
        let text = "as a container's first process it can't be detached: the container would end with it";
        return Err(CommandError::user(text).hint("leave `--detach` away"));
    }
    (entries.serve)(&init::options(global, args, stay.stop_within)?)
}

async fn client_command(command: Command, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    context.printer.persevere(command.changes());
    match command {
        Command::Run(args) => run::run(args, context).await,
        Command::Up(args) => up::run(args, context).await,
        Command::Deploy(args) => deploy::run(args, context).await,
        Command::Wait(args) => wait::run(&args, context).await,
        Command::Rollback(args) => rollback::run(&args, context).await,
        Command::Status(args) => status::run(&args, context).await,
        Command::Ps(args) => ps::run(&args, context).await,
        Command::Releases(args) => releases::run(&args, context).await,
        Command::Events(args) => events::run(&args, context).await,
        Command::Logs(args) => logs::run(&args, context).await,
        Command::Stop(args) => act::stop(args, context).await,
        Command::Start(args) => act::start(args, context).await,
        Command::Restart(args) => act::restart(args, context).await,
        Command::Scale(args) => act::scale(args, context).await,
        Command::Hold(args) => hold::run(args, context).await,
        Command::Drill(args) => drill::run(args, context).await,
        Command::Down(args) => down::run(&args, context).await,
        Command::Check(args) => check::run(args, context),
        Command::Config(args) => config::run(args, context),
        Command::Promote(_) => later::refuse("promote"),
        Command::Abort(_) => later::refuse("abort"),
        Command::Why(args) => why::run(&args, context).await,
        Command::Env(_) => later::refuse("env"),
        Command::Top(_) => later::refuse("top"),
        Command::Exec(_) => later::refuse("exec"),
        Command::Maintenance(_) => later::refuse("maintenance"),
        Command::Init(_) => later::refuse("init"),
        Command::Eject(_) => later::refuse("eject"),
        Command::Upgrade(_) => later::refuse("upgrade"),
        Command::Install(_) => later::refuse("install"),
        Command::Uninstall(_) => later::refuse("uninstall"),
        Command::Token(_) => later::refuse("token"),
        Command::Notify(args) => notify::run(args, context).await,
        Command::Demo(_) | Command::Serve(_) | Command::Completions(_) | Command::Man => {
            Err(CommandError::bug("this command has an entry of its own"))
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::user("can't start: the system gives no event queue").cause(error))
}

#[cfg(test)]
mod tests;
