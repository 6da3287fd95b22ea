//! A compose file in a directory, a daemon of Bulsa's own for it, and the command line that talks to it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bulsa::client::{Client, EventsQuery};
use bulsa_core::wire::api::{Event, ProjectView, ServiceView, Snapshot};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::{
    LIMIT, LOOK_EVERY,
    engine::{Engine, search_path},
    network::free_port,
    own_engine::{kill_now, send},
    ran::Ran,
    unique,
};

/// The program under test.
pub(crate) const BULSA: &str = env!("CARGO_BIN_EXE_bulsa");
/// The longest that one look waits for something new.
const POLL: Duration = Duration::from_secs(5);

/// One compose file on one Engine, and a daemon with a state directory of its own. Dropped, nothing is left: no
/// process, container, network, volume or file.
pub(crate) struct Project<'a> {
    pub(crate) engine: &'a Engine,
    name: String,
    home: TempDir,
    /// What the compose file is filled in with.
    variables: BTreeMap<String, String>,
    serve: Option<Child>,
}

/// A command of the program that runs.
pub(crate) struct Running {
    what: String,
    child: Child,
}

impl<'a> Project<'a> {
    /// A project with this compose file (its text), in a directory that is named as the project. `PORT` is a free port.
    pub(crate) fn new(engine: &'a Engine, compose: &str) -> Self {
        let this = Self::empty(engine);
        this.write("compose.yaml", compose);
        this
    }

    /// A copy of a directory with a compose file, such as one of `examples/`.
    pub(crate) fn copy_of(engine: &'a Engine, directory: &Path) -> Self {
        let this = Self::empty(engine);
        copy(directory, &this.directory());
        this
    }

    fn empty(engine: &'a Engine) -> Self {
        let home = tempfile::Builder::new().prefix("bulsa-project-").tempdir().unwrap();
        let name = unique("bulsatest");
        let variables = BTreeMap::from([("PORT".to_owned(), free_port().to_string())]);
        fs::create_dir(home.path().join(&name)).unwrap();
        Self { engine, name, home, variables, serve: None }
    }

    /// Its name, which is its directory's.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.home.path().join(&self.name)
    }

    /// Writes a file of the project.
    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.directory().join(file), text).unwrap();
    }

    /// A variable of the compose file, from here on.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    pub(crate) fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// A version of an image, as a new build of the app is; removed with the project. Gives its name.
    pub(crate) fn image(&self, version: &str, from: &str, lines: &[&str]) -> String {
        let name = format!("{}-app:{version}", self.name);
        self.engine.tag(&name, from, lines);
        name
    }

    /// The port in the variable `PORT`.
    pub(crate) fn port(&self) -> u16 {
        self.variables["PORT"].parse().unwrap()
    }

    /// The name that Compose gives to an object of the project.
    pub(crate) fn object(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }

    fn state_dir(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// A command of the program, in the project's directory and with its variables, where the Engine is.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.engine.command(BULSA);
        command.arg("--state-dir").arg(self.state_dir()).args(words);
        command.envs(&self.variables).env("PATH", search_path()).env("NO_COLOR", "1");
        command.current_dir(self.directory()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        self.start(words).end()
    }

    /// Starts a command.
    pub(crate) fn start(&self, words: &[&str]) -> Running {
        let child = self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { what: format!("bulsa {}", words.join(" ")), child }
    }

    /// Starts the daemon as our own child, and waits until it answers.
    pub(crate) async fn serve(&mut self) {
        fs::create_dir_all(self.state_dir()).unwrap();
        let log =
            fs::File::options().create(true).append(true).open(self.home.path().join("serve.log")).unwrap();
        let mut command = self.command(&["serve"]);
        self.serve = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        self.client().await;
    }

    /// The daemon, and the project on it.
    pub(crate) async fn up(&mut self) {
        self.serve().await;
        self.run(&["up", "-d"]).exits(0);
        self.well().await;
    }

    /// The daemon's client; waits until there is one.
    pub(crate) async fn client(&self) -> Client {
        let end = Instant::now() + LIMIT;
        loop {
            match Client::find(&[self.state_dir().join("api.sock")]).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < end, "no daemon: {error}\n{}", self.daemon_log()),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for a snapshot in which something holds of the project.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        holds: impl Fn(&ProjectView, &Snapshot) -> Option<T>,
    ) -> T {
        let end = Instant::now() + LIMIT;
        let (mut number, mut last) = (0, None);
        while Instant::now() < end {
            let client = self.client().await;
            while let Ok(snapshot) = client.snapshot_after(number, POLL).await {
                if let Some(found) =
                    snapshot.project(&self.name).and_then(|project| holds(project, &snapshot))
                {
                    return found;
                }
                number = snapshot.number;
                last = Some(snapshot);
                if Instant::now() >= end {
                    break;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("waited in vain for {what}; the last snapshot: {last:#?}\n{}", self.daemon_log());
    }

    /// Waits until it runs as it should: nothing is being deployed, and each service has as many ready replicas as it
    /// is to have.
    pub(crate) async fn well(&self) -> ProjectView {
        let is_whole = |service: &ServiceView| service.role == "job" || service.ready == service.desired;
        self.until("everything to be well", |project, _| {
            let is_well = project.deploying().is_none() && project.live.is_some();
            (is_well && project.services.iter().all(is_whole)).then(|| project.clone())
        })
        .await
    }

    /// All events of the project so far.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let client = self.client().await;
        let query = EventsQuery { last: Some(1000), ..EventsQuery::default() };
        let mut stream = client.events(&query).await.unwrap();
        let mut events = Vec::new();
        while let Some(event) = stream.next().await.unwrap() {
            if event.project == self.name {
                events.push(event);
            }
        }
        events
    }

    /// The ids of a service's containers, whatever their state: by Compose's labels, as Compose finds them.
    pub(crate) fn containers(&self, service: &str) -> Vec<String> {
        let project = format!("com.docker.compose.project={}", self.name);
        self.engine.containers(&[&project, &format!("com.docker.compose.service={service}")])
    }

    /// The only container of a service, and when it was started: equal only where nobody touched it.
    #[track_caller]
    pub(crate) fn untouched(&self, service: &str) -> (String, String) {
        let containers = self.containers(service);
        let [id] = containers.as_slice() else { panic!("{service} has {containers:?}") };
        (id.clone(), self.engine.inspect(id, "{{.State.StartedAt}} {{.RestartCount}}"))
    }

    /// What the Engine has of the project: names of containers, networks and volumes.
    pub(crate) fn objects(&self) -> Vec<String> {
        let filter = format!("label=com.docker.compose.project={}", self.name);
        let list = |words: &[&str]| self.engine.list(&[words, &["--filter", &filter]].concat());
        let mut all = list(&["ps", "--all", "--format", "container {{.Names}}"]);
        all.extend(list(&["network", "ls", "--format", "network {{.Name}}"]));
        all.extend(list(&["volume", "ls", "--format", "volume {{.Name}}"]));
        all.sort();
        all
    }

    /// What the daemon wrote.
    pub(crate) fn daemon_log(&self) -> String {
        let files = [self.state_dir().join("daemon.log"), self.home.path().join("serve.log")];
        files.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
    }

    /// By what this daemon's processes are known, whoever of them lives: as the keeper makes it.
    fn marker(&self) -> Option<String> {
        let path = fs::canonicalize(self.state_dir()).ok()?;
        let uid = rustix::process::geteuid().as_raw();
        let digest = Sha256::new().chain_update(path.as_os_str().as_bytes()).chain_update(uid.to_le_bytes());
        Some(digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Every living process of this daemon but the keeper.
    fn processes(&self) -> Vec<i32> {
        let Some(marker) = self.marker() else { return Vec::new() };
        let wanted = format!("BULSA_KEEPER={marker}");
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_ours = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
        };
        pids.filter(is_ours).collect()
    }

    fn keeper(&self) -> Option<i32> {
        let lock = fs::read_to_string(self.state_dir().join("keeper.lock")).ok()?;
        let pid = lock.split_whitespace().next()?.parse().ok()?;
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        line.contains(self.home.path().to_str()?).then_some(pid)
    }
}

impl Drop for Project<'_> {
    /// Whatever became of the test. The keeper is killed first, since it starts the others anew.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon wrote:\n{}", self.daemon_log());
            eprintln!("the Engine has: {:#?}", self.engine.try_docker(&["ps", "--all"]));
        }
        self.keeper().into_iter().for_each(kill_now);
        if let Some(mut serve) = self.serve.take() {
            serve.kill().ok();
            serve.wait().ok();
        }
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(kill_now);
            std::thread::sleep(LOOK_EVERY);
        }
        self.engine.remove_project(&self.name);
        self.engine.forget_images(&format!("{}-app", self.name), 0);
        // What `build` has made has the project's name in front.
        for image in self.engine.try_docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).iter() {
            let is_ours = |name: &&str| {
                name.starts_with(&format!("{}-", self.name)) || name.starts_with(&format!("{}_", self.name))
            };
            image.lines().filter(is_ours).for_each(|name| drop(self.engine.try_docker(&["rmi", name])));
        }
    }
}

impl Running {
    /// Presses Ctrl-C, and waits for its end.
    #[track_caller]
    pub(crate) fn interrupt(self) -> Ran {
        send(i32::try_from(self.child.id()).unwrap(), Signal::INT);
        self.end()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(self) -> Ran {
        let end = Instant::now() + LIMIT * 2;
        // Its pipes are emptied meanwhile, so that it is never stopped by them.
        let child = self.child.id();
        let waiting = std::thread::spawn(move || self.child.wait_with_output());
        while !waiting.is_finished() {
            if Instant::now() > end {
                kill_now(i32::try_from(child).unwrap());
                panic!("`{}` goes on and on", self.what);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ran::new(self.what, waiting.join().unwrap().unwrap())
    }
}

/// Copies a directory with what is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, place) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        match path.is_dir() {
            true => copy(&path, &place),
            false => drop(fs::copy(&path, &place).unwrap()),
        }
    }
}
