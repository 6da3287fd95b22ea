use std::{collections::BTreeMap, collections::HashMap, path::Path, time::Duration};

use bollard::query_parameters as query;
use bulsa::agent::docker::{Docker, Running, StartProblem, StartReplica, label};
use bulsa_core::{
    ids::{ReleaseId, ReplicaId},
    spec::{
        Accept, AppPort, Bake, Balance, Check, Drain, Handover, Hold, Probe, Restart, Role, Routing, Service,
        Spec, Times,
        container::{Attachment, Container, Network},
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;

/// The longest that anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const BUSYBOX: &str = "/bin/busybox";

/// What the image's /bin has besides busybox itself.
const APPLETS: [&str; 10] =
    ["sh", "sleep", "cat", "echo", "true", "false", "stat", "touch", "hostname", "id"];

/// One test's owner, project, network and image.
pub(crate) struct World {
    pub(crate) docker: Docker,
    pub(crate) raw: bollard::Docker,
    pub(crate) name: String,
    pub(crate) spec: Spec,
}

impl World {
    /// `None`, and a word about it, where there is no Engine or no busybox.
    pub(crate) async fn new(name: &str) -> Option<Self> {
        let name = format!("bulsa-test-{name}");
        let docker = match Docker::connect(&name).await {
            Ok(docker) => docker,
            Err(error) => {
                eprintln!("skipped: {error}");
                return None;
            }
        };
        let Ok(busybox) = std::fs::read(BUSYBOX) else {
            eprintln!("skipped: no static busybox at {BUSYBOX} (Debian: busybox-static)");
            return None;
        };
        let raw = bollard::Docker::connect_with_unix_defaults().unwrap();
        let network = Network { name: format!("{name}_default"), ..Network::default() };
        let spec = Spec {
            project: name.clone(),
            networks: BTreeMap::from([("default".to_owned(), network)]),
            ..Spec::default()
        };
        let world = Self { docker, raw, name, spec };
        // What an earlier run left when it was killed.
        clean(&world.raw, &world.name).await;
        world.import(&busybox).await;
        world.docker.ensure_networks(&world.spec).await.unwrap();
        Some(world)
    }

    pub(crate) fn image(&self) -> String {
        format!("{}:1", self.name)
    }

    async fn import(&self, busybox: &[u8]) {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8], link: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(content.len() as u64);
            if link.is_empty() {
                builder.append_data(&mut header, path, content).unwrap();
            } else {
                builder.append_link(&mut header, path, link).unwrap();
            }
        };
        for directory in ["bin/", "tmp/", "run/", "etc/"] {
            add(directory, tar::EntryType::Directory, 0o755, b"", "");
        }
        add("bin/busybox", tar::EntryType::Regular, 0o755, busybox, "");
        for applet in APPLETS {
            add(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, b"", "busybox");
        }
        add("bin/broken", tar::EntryType::Regular, 0o755, b"\x7fELF but not really", "");
        add("bin/data", tar::EntryType::Regular, 0o644, b"data", "");
        let body = bollard::body_full(Bytes::from(builder.into_inner().unwrap()));
        let options = query::CreateImageOptionsBuilder::new().from_src("-").repo(&self.name).tag("1").build();
        let mut steps = std::pin::pin!(self.raw.create_image(Some(options), Some(body), None));
        while let Some(step) = steps.next().await {
            step.unwrap();
        }
    }

    /// A container of the test's image that runs `script` in the default network.
    pub(crate) fn container(&self, script: &str) -> Container {
        Container {
            image: self.image(),
            command: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
            networks: [("default".to_owned(), Attachment::default())].into(),
            ..Container::default()
        }
    }

    /// Starts attempt 1 of the first `web` of release 1.
    pub(crate) async fn start(&self, container: Container) -> Result<Running, StartProblem> {
        self.start_as(Role::App, "web", 1, container).await
    }

    pub(crate) async fn start_as(
        &self,
        role: Role,
        name: &str,
        attempt: u32,
        container: Container,
    ) -> Result<Running, StartProblem> {
        let service = service(name, role, container);
        let id = ReplicaId { release: ReleaseId(1), service: name.to_owned(), ordinal: 1, attempt };
        let env = BTreeMap::new();
        let start = StartReplica {
            recreates: false,
            watchers: None,
            project: &self.name,
            id: &id,
            service: &service,
            spec: &self.spec,
            instance: "one",
            env: &env,
            names: true,
        };
        tokio::time::timeout(PATIENCE, self.docker.start(&start)).await.unwrap()
    }

    /// Waits until the container has ended.
    pub(crate) async fn ended(&self, container: &str) -> bulsa::agent::docker::Found {
        let look = async {
            loop {
                let found = self.docker.inspect(container).await.unwrap().unwrap();
                if !found.is_up() {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap()
    }
}

/// Runs until it is told to stop, and then ends with 7.
pub(crate) const SERVER: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";

pub(crate) fn service(name: &str, role: Role, container: Container) -> Service {
    Service {
        name: name.to_owned(),
        role,
        role_reason: String::new(),
        container: Some(Box::new(container)),
        argv: Vec::new(),
        env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        working_dir: String::new(),
        user: None,
        replicas: 1,
        ports: Vec::new(),
        app_port: AppPort::Env,
        probe: Probe {
            check: Check::Http { port: None, path: "/".to_owned(), host: None, accept: Accept::Success },
            interval: Duration::from_secs(2),
            start_interval: Duration::from_millis(100),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 3,
            start_period: Duration::ZERO,
            declared: true,
        },
        gate_timeout: PATIENCE,
        drain: Drain::default(),
        routing: Routing::default(),
        balance: Balance::default(),
        times: Times::default(),
        hold: Hold::default(),
        access_log: false,
        care: bulsa_core::spec::Care::default(),
        resources: bulsa_core::spec::ResourceLimits::default(),
        drill_block: None,
        heartbeat: None,
        bake: Bake::default(),
        handover: Handover::Overlap,
        restart: Restart::Always,
        stop_signal: 15,
        stop_grace: Duration::from_secs(5),
        depends_on: BTreeMap::new(),
        position: String::new(),
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let name = self.name.clone();
        // A runtime of its own: the test's can't be waited on from here.
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                clean(&bollard::Docker::connect_with_unix_defaults().unwrap(), &name).await;
            });
        });
        if cleaning.join().is_err() {
            eprintln!("what {} made could not be removed", self.name);
        }
    }
}

/// Removes what has the test's owner label, and what carries its name.
async fn clean(raw: &bollard::Docker, name: &str) {
    let of_label = |label: String| HashMap::from([("label", vec![label])]);
    for label in [format!("{}={name}", label::OWNER), format!("bulsa.test={name}")] {
        let options = query::ListContainersOptionsBuilder::new().all(true).filters(&of_label(label.clone()));
        for container in raw.list_containers(Some(options.build())).await.unwrap() {
            let options = query::RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            raw.remove_container(&container.id.unwrap(), Some(options)).await.ok();
        }
        let options = query::ListNetworksOptionsBuilder::new().filters(&of_label(label.clone())).build();
        for network in raw.list_networks(Some(options)).await.unwrap() {
            raw.remove_network(&network.id.unwrap()).await.ok();
        }
        let options = query::ListVolumesOptionsBuilder::new().filters(&of_label(label)).build();
        for volume in raw.list_volumes(Some(options)).await.unwrap().volumes.unwrap_or_default() {
            raw.remove_volume(&volume.name, None::<query::RemoveVolumeOptions>).await.ok();
        }
    }
    let options = query::RemoveImageOptionsBuilder::new().force(true).build();
    raw.remove_image(&format!("{name}:1"), Some(options), None).await.ok();
}

/// Whether the file is there on this host.
pub(crate) fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}
