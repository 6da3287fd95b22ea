//! `bulsa run`: one program as several workers behind one port, without a compose file.
//!
//! The flags become a compose file of one service, which takes the same way as every other: one set of defaults and
//! one deploy pipeline.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bulsa_core::{
    compose::{self, LoadInput, ReadError, duration},
    spec::Sources,
    wire::api::SourceFile,
};
use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    context::Context,
    deploy::Wanted,
    reload::{Follows, Reload},
    up,
    watch::Watch,
    workers::Workers,
};
use crate::{
    keeper::{KEEPER_ENV, ROLE_ENV},
    report::{CommandError, ExitCode},
};

/// What messages call the file that the flags become.
const SOURCE_NAME: &str = "bulsa run";

/// With `--watch`: when the worker's release was made, in milliseconds since the Unix epoch.
const RELOAD_VARIABLE: &str = "BULSA_RELOAD";

/// Where a lone program that ignores PORT is looked for when no `--app-port` says where it listens.
const USUAL_PORT: u16 = 3000;

/// Variables of the shell that started us, which say nothing to a program and differ from run to run.
const NOT_PASSED_ON: &[&str] =
    &["_", "SHLVL", "OLDPWD", "PWD", "PORT", "COLUMNS", "LINES", "BULSA_SOCKET", KEEPER_ENV, ROLE_ENV];

/// Keep a program alive as several workers behind one port
#[derive(Debug, Args)]
#[command(override_usage = "bulsa run [OPTIONS] -- CMD [ARG]...")]
pub(super) struct RunArgs {
    /// How many workers: a number, cpus, cpus-1, (cpus-1)/2
    #[arg(short, long, value_name = "N", default_value = "1")]
    workers: Workers,
    /// The port that users connect to; 0 lets the system choose
    #[arg(long, default_value_t = USUAL_PORT)]
    port: u16,
    /// The port that the program listens on whatever PORT says; several workers then need root
    #[arg(long, value_name = "PORT")]
    app_port: Option<u16>,
    /// The program serves nothing: keep it alive, and open no port
    #[arg(long, conflicts_with_all = ["port", "app_port"])]
    no_port: bool,
    /// A worker that sends WATCHDOG=1 to $NOTIFY_SOCKET (as systemd's do) and then misses it for so long hangs
    #[arg(long, value_name = "TIME")]
    heartbeat: Option<String>,
    /// The project's and the service's name [default: the program's name]
    #[arg(long)]
    name: Option<String>,
    /// Replace the workers one after another when files change, but for those that git ignores (can be repeated)
    #[arg(long, value_name = "PATH", conflicts_with = "detach")]
    watch: Vec<PathBuf>,
    /// Return once the workers run
    #[arg(short, long)]
    pub(super) detach: bool,
    /// As a container's first process: how long all workers may take to end, before `docker stop` kills [default: 9s]
    #[arg(long, value_name = "TIME", value_parser = stop_within)]
    pub(super) stop_within: Option<Duration>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(super) async fn run(args: RunArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let root = rustix::process::geteuid().is_root();
    let name = project_name(&args, context.project.as_deref());
    let stay = up::Stay { detached: args.detach, patient: true };
    // Before the workers are started, so that no change is missed.
    let watch = if args.watch.is_empty() {
        None
    } else {
        let (watch, note) = Watch::new(&args.watch, &context.directory, &context.paths.state_dir)?;
        note.map(|note| context.printer.warning(&note)).transpose()?;
        Some(watch)
    };
    let (env, directory) = (context.env.clone(), context.directory.clone());
    let again = move || wanted(&args, &name, root, &env, &directory);
    let first = again()?;
    let reload = watch.map(|watch| Reload {
        watch,
        directory: context.directory.clone(),
        follows: Follows::Again(Box::new(again)),
    });
    up::bring_up(first, stay, reload, context).await
}

/// What the flags stand for. With `--watch` it is another one each time, since the program is.
fn wanted(
    args: &RunArgs,
    name: &str,
    root: bool,
    env: &BTreeMap<String, String>,
    directory: &Path,
) -> Result<Wanted, CommandError> {
    let mut env = env.clone();
    if !args.watch.is_empty() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        env.insert(RELOAD_VARIABLE.to_owned(), now.as_millis().to_string());
    }
    let text = compose_text(args, name, root, &env)?;
    let source = compose::SourceFile { path: SOURCE_NAME.to_owned(), text };
    Ok(Wanted {
        spec: load(&source, directory)?,
        // It is nowhere to be read again, so nothing is said of its changes.
        sources: vec![SourceFile { path: source.path, text: source.text, sha256: None }],
        services: Vec::new(),
        up: true,
        no_pull: false,
        credentials: BTreeMap::new(),
    })
}

/// `--stop-within`, as the compose file writes times.
fn stop_within(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| error.to_string())
}

/// `--name`, `-p`, or the program's name as far as it can be one.
fn project_name(args: &RunArgs, project: Option<&str>) -> String {
    if let Some(name) = args.name.as_deref().or(project) {
        return name.to_owned();
    }
    let program = args.command.first().map_or("", String::as_str);
    let stem = Path::new(program).file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let name: String = stem.chars().filter(|c| good(*c)).collect();
    let name = name.trim_start_matches(['-', '_']);
    if name.is_empty() { "app".to_owned() } else { name.to_owned() }
}

/// The compose file that the flags stand for; JSON is YAML.
fn compose_text(
    args: &RunArgs,
    name: &str,
    root: bool,
    env: &BTreeMap<String, String>,
) -> Result<String, CommandError> {
    let workers = args.workers.here();
    let (mut service, mut bulsa) = (Map::new(), Map::new());
    service.insert("command".to_owned(), args.command.iter().map(|word| Value::from(plain(word))).collect());
    service.insert("environment".to_owned(), Value::Object(environment(env)));
    service.insert("deploy".to_owned(), json!({ "replicas": workers }));
    service.insert("restart".to_owned(), "always".into());
    if !args.no_port {
        let target = args.app_port.unwrap_or(USUAL_PORT);
        let published = if args.port == 0 { String::new() } else { format!("{}:", args.port) };
        service.insert("ports".to_owned(), json!([format!("{published}{target}")]));
    }
    if let Some(port) = args.app_port {
        if workers > 1 && !root {
            let text = format!("{workers} workers can't all listen on port {port}");
            return Err(CommandError::user(text)
                .hint("as root each gets a network namespace of its own: try the same with sudo")
                .hint("or let the program listen on the port in $PORT and leave `--app-port` away"));
        }
        let isolate = root && workers > 1;
        bulsa.insert("app_port".to_owned(), json!({ "port": port, "isolate": isolate }));
    }
    if let Some(period) = &args.heartbeat {
        bulsa.insert("heartbeat".to_owned(), plain(period).into());
    }
    let mut top = Map::new();
    if !args.watch.is_empty() {
        // Whoever writes a program waits for it: nothing is watched for a minute, kept warm, or left for an hour.
        bulsa.insert("bake".to_owned(), json!({ "time": "0s" }));
        bulsa.insert("drain".to_owned(), json!({ "requests": "5s", "websockets": "0s", "stagger": "0s" }));
        if !args.no_port {
            bulsa.insert("handover".to_owned(), "rolling".into());
        }
        top.insert("keep".to_owned(), json!({ "warm": "0s" }));
    }
    service.insert("x-bulsa".to_owned(), bulsa.into());
    Ok(json!({ "name": name, "x-bulsa": top, "services": { name: service } }).to_string())
}

fn environment(env: &BTreeMap<String, String>) -> Map<String, Value> {
    let name = |key: &str| {
        key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let wanted = env.iter().filter(|(key, _)| name(key) && !NOT_PASSED_ON.contains(&key.as_str()));
    wanted.map(|(key, value)| (key.clone(), Value::from(plain(value)))).collect()
}

/// A text that interpolation leaves as it is.
fn plain(text: &str) -> String {
    text.replace('$', "$$")
}

fn load(source: &compose::SourceFile, directory: &Path) -> Result<bulsa_core::spec::Spec, CommandError> {
    let mut read = |_: &str| Err(ReadError::NotFound);
    let loaded = compose::load(LoadInput::new(vec![source.clone()], &directory.to_string_lossy(), &mut read));
    let mistakes = &loaded.diagnostics;
    let mut spec =
        loaded.spec.ok_or_else(|| CommandError::user("these flags don't make a service").cause(mistakes))?;
    // There is no file in which somebody could look at a line.
    spec.sources = Sources::default();
    spec.services.values_mut().for_each(|service| service.position.clear());
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use bulsa_core::spec::{AppPort, Check, Handover, Restart, Role, Service};
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn args(line: &[&str]) -> RunArgs {
        Line::try_parse_from([&["bulsa"], line].concat()).unwrap().run
    }

    fn service(line: &[&str], root: bool) -> Result<Service, CommandError> {
        let env = BTreeMap::from(
            [("PATH", "/bin:$HOME"), ("SHLVL", "2"), ("PORT", "9"), ("BASH_FUNC_x%%", "() {\n}")]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let args = args(line);
        let name = project_name(&args, None);
        let source = compose::SourceFile {
            path: SOURCE_NAME.to_owned(),
            text: compose_text(&args, &name, root, &env)?,
        };
        let spec = load(&source, Path::new("/srv"))?;
        assert_eq!(spec.project, name);
        Ok(spec.services[&name].clone())
    }

    #[test]
    fn a_program_becomes_one_service_that_always_comes_back() {
        let web =
            service(&["--workers", "2", "--port", "8080", "--", "/usr/bin/Node", "a b.js", "$x"], false)
                .unwrap();
        assert_eq!(
            (web.name.as_str(), web.role, web.replicas, web.restart),
            ("node", Role::App, 2, Restart::Always)
        );
        assert_eq!(web.argv, ["/usr/bin/Node", "a b.js", "$x"]);
        assert_eq!(web.env, BTreeMap::from([("PATH".to_owned(), "/bin:$HOME".to_owned())]));
        assert_eq!(
            (web.ports[0].published, web.app_port, web.working_dir.as_str()),
            (Some(8080), AppPort::Env, "/srv")
        );
        assert!(
            matches!(&web.probe.check, Check::Http { port: None, path, .. } if path == "/")
                && !web.probe.declared
        );
        let any = service(&["--port", "0", "--", "./x"], false).unwrap();
        assert_eq!((any.ports[0].published, any.name.as_str()), (None, "x"));
    }

    #[test]
    fn a_program_with_a_fixed_port_is_alone_or_isolated_by_root() {
        let alone = service(&["--app-port", "3000", "--", "x"], false).unwrap();
        assert_eq!((alone.app_port, alone.ports[0].target), (AppPort::Fixed(3000), 3000));
        let isolated = service(&["-w", "3", "--app-port", "3000", "--", "x"], true).unwrap();
        assert_eq!(isolated.app_port, AppPort::Isolated(3000));
        let error = service(&["-w", "3", "--app-port", "3000", "--", "x"], false).unwrap_err();
        assert!(error.hints[1].contains("$PORT"), "{error:?}");
    }

    #[test]
    fn a_program_that_serves_nothing_has_no_port_and_no_http_probe() {
        let worker = service(&["--no-port", "--", "x"], false).unwrap();
        assert!(worker.ports.is_empty());
        assert_eq!((worker.role, worker.probe.check), (Role::Worker, Check::Up));
    }

    #[test]
    fn a_heartbeat_and_watched_files_become_keys() {
        let line = ["--heartbeat", "30s", "--watch", "src", "--watch", "lib", "--", "x"];
        let watched = service(&line, false).unwrap();
        assert_eq!(watched.heartbeat, Some(Duration::from_secs(30)));
        assert_eq!(watched.bake.time, Duration::ZERO, "whoever writes a program waits for it");
        assert!(matches!(watched.handover, Handover::Rolling(_)), "{:?}", watched.handover);
        let plain = service(&["--", "x"], false).unwrap();
        assert_eq!((plain.heartbeat, plain.handover), (None, Handover::Overlap));
        let error = service(&["--heartbeat", "1ms", "--", "x"], false).unwrap_err();
        assert!(format!("{error:?}").contains("heartbeat"), "{error:?}");
        assert!(Line::try_parse_from(["bulsa", "--watch", "src", "-d", "--", "x"]).is_err());
    }

    #[test]
    fn a_name_that_can_be_none_becomes_app() {
        assert_eq!(project_name(&args(&["--", "--"]), None), "app");
        assert_eq!(project_name(&args(&["--", "./My.Server.py"]), None), "myserver");
        assert_eq!(project_name(&args(&["--name", "shop", "--", "x"]), Some("other")), "shop");
        assert_eq!(project_name(&args(&["--", "x"]), Some("other")), "other");
    }
}
