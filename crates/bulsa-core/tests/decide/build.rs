//! Services and specs in a line.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bulsa_core::spec::{
    Accept, AppPort, Bake, Balance, Check, Condition, Dependency, Drain, Handover, Hold, Keep, Port, Probe,
    Protocol, Restart, Role, Rolling, Routing, Service, Spec, Times, container::NetworkMode,
};

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Long enough for every gate, bake and warm time of these specs.
pub(crate) const AGES: Duration = secs(3600);
/// The times of every service here.
pub(crate) const GATE: Duration = secs(60);
pub(crate) const GRACE: Duration = secs(10);
pub(crate) const DRAIN: Drain = Drain { requests: secs(30), websockets: secs(3600), stagger: secs(20) };
pub(crate) const BAKE: Duration = secs(45);
pub(crate) const WARM: Duration = secs(600);

/// A service, with chains for what differs.
#[derive(Clone, Debug)]
pub(crate) struct Svc(Service);

impl Svc {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Service)) -> Self {
        change(&mut self.0);
        self
    }

    pub(crate) fn replicas(self, replicas: u32) -> Self {
        self.with(|service| service.replicas = replicas)
    }

    pub(crate) fn spare(self, spare: u32) -> Self {
        self.with(|service| service.care.spare = spare)
    }

    pub(crate) fn recycled_after(self, age: Duration) -> Self {
        self.with(|service| service.care.age = Some(age))
    }

    pub(crate) fn recycled_at(self, memory: u64) -> Self {
        self.with(|service| service.care.memory = Some(memory))
    }

    pub(crate) fn recycled_with(self, requests: u64) -> Self {
        self.with(|service| service.care.requests = Some(requests))
    }

    pub(crate) fn stop_first(self) -> Self {
        self.with(|service| service.handover = Handover::StopFirst)
    }

    pub(crate) fn rolling(self, rolling: Rolling) -> Self {
        self.with(|service| service.handover = Handover::Rolling(rolling))
    }

    pub(crate) fn restart(self, restart: Restart) -> Self {
        self.with(|service| service.restart = restart)
    }

    /// Run by the docker engine.
    pub(crate) fn docker(self) -> Self {
        self.with(|service| service.container = Some(Box::default()))
    }

    /// Its name is served inside the project's networks.
    pub(crate) fn anchored(self) -> Self {
        self.with(|service| service.container.iter_mut().for_each(|container| container.anchor = vec![3000]))
    }

    pub(crate) fn needs(self, name: &str, condition: Condition) -> Self {
        self.depends(name, Dependency { condition, required: true, restart: false })
    }

    /// It is to be restarted when the other one was.
    pub(crate) fn follows(self, name: &str, condition: Condition) -> Self {
        self.depends(name, Dependency { condition, required: true, restart: true })
    }

    /// It lives in the network of the other one, a container.
    pub(crate) fn inside(self, name: &str) -> Self {
        let mode = Some(NetworkMode::Service(name.to_owned()));
        let it = self.needs(name, Condition::Started).docker();
        it.with(|service| {
            service.handover = Handover::StopFirst;
            service.container.iter_mut().for_each(|container| container.network_mode.clone_from(&mode));
        })
    }

    pub(crate) fn likes(self, name: &str, condition: Condition) -> Self {
        self.depends(name, Dependency { condition, required: false, restart: false })
    }

    fn depends(self, name: &str, dependency: Dependency) -> Self {
        self.with(|service| {
            service.depends_on.insert(name.to_owned(), dependency);
        })
    }
}

/// A service with a port, probed over HTTP.
pub(crate) fn app(name: &str) -> Svc {
    let port = Port { host: None, published: Some(80), target: 3000, protocol: Protocol::Detect };
    service(name, Role::App).with(|service| service.ports = vec![port])
}

/// A service without a port that is ready when it is up.
pub(crate) fn worker(name: &str) -> Svc {
    service(name, Role::Worker).with(|service| service.probe.check = Check::Up)
}

/// A backing service.
pub(crate) fn shared(name: &str) -> Svc {
    service(name, Role::Shared)
}

/// A job that isn't tried again.
pub(crate) fn job(name: &str) -> Svc {
    service(name, Role::Job).restart(Restart::No)
}

fn service(name: &str, role: Role) -> Svc {
    Svc(Service {
        name: name.to_owned(),
        role,
        role_reason: String::new(),
        container: None,
        argv: vec![name.to_owned()],
        env: BTreeMap::new(),
        working_dir: "/".to_owned(),
        user: None,
        replicas: 1,
        ports: Vec::new(),
        app_port: AppPort::Env,
        probe: Probe {
            check: Check::Http { port: None, path: "/".to_owned(), host: None, accept: Accept::Success },
            interval: secs(2),
            start_interval: ms(10),
            timeout: secs(1),
            rise: 2,
            fall: 3,
            start_period: Duration::ZERO,
            declared: true,
        },
        gate_timeout: GATE,
        drain: DRAIN,
        routing: Routing::default(),
        balance: Balance::default(),
        times: Times::default(),
        hold: Hold::default(),
        access_log: false,
        care: bulsa_core::spec::Care::default(),
        resources: bulsa_core::spec::ResourceLimits::default(),
        drill_block: None,
        heartbeat: None,
        bake: Bake { time: BAKE, errors: 0.05 },
        handover: Handover::Overlap,
        restart: Restart::Always,
        stop_signal: 15,
        stop_grace: GRACE,
        depends_on: BTreeMap::new(),
        position: String::new(),
    })
}

/// Version `version` of a project with these services.
pub(crate) fn v<const N: usize>(version: u32, services: [Svc; N]) -> Arc<Spec> {
    keeping(2, version, services)
}

/// The same, with `keep.releases`.
pub(crate) fn keeping<const N: usize>(releases: u32, version: u32, services: [Svc; N]) -> Arc<Spec> {
    let services = services.map(|Svc(mut service)| {
        service.env.insert("VERSION".to_owned(), version.to_string());
        (service.name.clone(), service)
    });
    Arc::new(Spec {
        project: "shop".to_owned(),
        services: BTreeMap::from(services),
        keep: Keep { releases, warm: WARM },
        trusted_proxies: Vec::new(),
        ..Spec::default()
    })
}
