//! Between the Spec and its wire form.

use std::{net::IpAddr, time::Duration};

use super::{
    AcceptV1, AppPortV1, BakeV1, CareV1, CheckV1, ConditionV1, DependencyV1, DrainV1, HandoverV1, HoldV1,
    KeepV1, PortV1, ProbeV1, ResourceLimitsV1, RestartV1, RoleV1, ServiceV1, SpecV1, SpecWireError,
    TrustedProxyV1, VERSION, traffic,
};
use crate::spec::{
    Accept, AppPort, Bake, Care, Check, Condition, Dependency, Drain, Handover, Hold, Keep, Port, Probe,
    ResourceLimits, Restart, Role, Rolling, Service, Spec, TrustedProxy, traffic::PAGE_BYTES_MAX,
};

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One million parts make a whole.
const MILLION: u32 = 1_000_000;

fn ppm(share: f64) -> u32 {
    // A share lies between 0 and 1; the cast of anything else stops at the ends.
    (share * f64::from(MILLION)).round() as u32
}

/// Two enums whose variants have the same names.
macro_rules! same_names {
    ($wire:ident = $spec:ident { $($variant:ident),+ }) => {
        impl From<$spec> for $wire {
            fn from(value: $spec) -> Self {
                match value { $($spec::$variant => Self::$variant),+ }
            }
        }

        impl From<$wire> for $spec {
            fn from(value: $wire) -> Self {
                match value { $($wire::$variant => Self::$variant),+ }
            }
        }
    };
}

pub(super) use same_names;

same_names!(RoleV1 = Role { App, Shared, Worker, Job });
same_names!(AcceptV1 = Accept { Success, AnyAnswer });
same_names!(ConditionV1 = Condition { Started, Healthy, Completed });

impl From<Handover> for HandoverV1 {
    fn from(value: Handover) -> Self {
        match value {
            Handover::Overlap => Self::Overlap,
            Handover::StopFirst => Self::StopFirst,
            Handover::Rolling(Rolling { parallelism, stop_first, delay }) => {
                Self::Rolling { parallelism, stop_first, delay_ms: ms(delay) }
            }
        }
    }
}

fn handover_from_wire(wire: HandoverV1, service: &str) -> Result<Handover, SpecWireError> {
    Ok(match wire {
        HandoverV1::Overlap => Handover::Overlap,
        HandoverV1::StopFirst => Handover::StopFirst,
        HandoverV1::Rolling { parallelism, stop_first, delay_ms } => {
            require(parallelism > 0, || format!("{service} is replaced 0 replicas at a time"))?;
            let delay = Duration::from_millis(delay_ms);
            Handover::Rolling(Rolling { parallelism, stop_first, delay })
        }
    })
}

impl From<&Spec> for SpecV1 {
    fn from(spec: &Spec) -> Self {
        Self {
            version: VERSION,
            project: spec.project.clone(),
            services: spec.services.iter().map(|(name, service)| (name.clone(), service.into())).collect(),
            keep: KeepV1 { releases: spec.keep.releases, warm_ms: ms(spec.keep.warm) },
            trusted_proxies: spec.trusted_proxies.iter().map(proxy_to_wire).collect(),
            limits: spec.limits.into(),
            notify: spec.notify.clone(),
            networks: spec.networks.clone(),
            volumes: spec.volumes.clone(),
            sources: spec.sources.clone(),
        }
    }
}

/// Refuses what no compose file could have made.
fn check(wire: &ServiceV1) -> Result<(), SpecWireError> {
    let name = &wire.name;
    let has_program = wire.argv.first().is_some_and(|program| !program.is_empty());
    require(has_program || wire.container.is_some(), || format!("{name} has no command"))?;
    require(wire.container.as_ref().is_none_or(|container| !container.image.is_empty()), || {
        format!("{name} has no image")
    })?;
    let strings = wire.argv.iter().chain(wire.env.iter().flat_map(|(key, value)| [key, value]));
    require(strings.chain([&wire.working_dir]).all(|s| !s.contains('\0')), || format!("{name} has a NUL"))?;
    require(wire.env.keys().all(|key| !key.is_empty() && !key.contains('=')), || {
        format!("{name} has a variable without a proper name")
    })?;
    require(wire.bake.errors_ppm <= MILLION, || {
        format!("{name}: the share of errors is {} ppm", wire.bake.errors_ppm)
    })?;
    require((1..=64).contains(&wire.stop_signal), || format!("{name}: {} is no signal", wire.stop_signal))?;
    Ok(())
}

impl From<DependencyV1> for Dependency {
    fn from(wire: DependencyV1) -> Self {
        Self { condition: wire.condition.into(), required: wire.required, restart: wire.restart }
    }
}

impl From<Care> for CareV1 {
    fn from(care: Care) -> Self {
        let Care { spare, memory, age, requests } = care;
        Self { spare, memory, age_ms: age.map(ms), requests }
    }
}

impl From<CareV1> for Care {
    fn from(wire: CareV1) -> Self {
        let CareV1 { spare, memory, age_ms, requests } = wire;
        Self { spare, memory, age: age_ms.map(Duration::from_millis), requests }
    }
}

impl From<ResourceLimits> for ResourceLimitsV1 {
    fn from(limits: ResourceLimits) -> Self {
        let ResourceLimits { millicpus, memory, pids } = limits;
        Self { millicpus, memory, pids }
    }
}

impl From<ResourceLimitsV1> for ResourceLimits {
    fn from(wire: ResourceLimitsV1) -> Self {
        let ResourceLimitsV1 { millicpus, memory, pids } = wire;
        Self { millicpus, memory, pids }
    }
}

impl From<&Service> for ServiceV1 {
    fn from(service: &Service) -> Self {
        Self {
            name: service.name.clone(),
            role: service.role.into(),
            role_reason: service.role_reason.clone(),
            container: service.container.clone(),
            argv: service.argv.clone(),
            env: service.env.clone(),
            working_dir: service.working_dir.clone(),
            user: service.user.clone(),
            replicas: service.replicas,
            ports: service.ports.iter().map(|port| traffic::port_to_wire(port, &service.routing)).collect(),
            routing: (&service.routing).into(),
            app_port: match service.app_port {
                AppPort::Env => AppPortV1::Env,
                AppPort::Fixed(port) => AppPortV1::Fixed(port),
                AppPort::Isolated(port) => AppPortV1::Isolated(port),
            },
            probe: probe_to_wire(&service.probe),
            gate_timeout_ms: ms(service.gate_timeout),
            drain: DrainV1 {
                requests_ms: ms(service.drain.requests),
                websockets_ms: ms(service.drain.websockets),
                stagger_ms: ms(service.drain.stagger),
            },
            balance: (&service.balance).into(),
            times: service.times.into(),
            hold: HoldV1 {
                time_ms: ms(service.hold.time),
                requests: service.hold.requests,
                page: service.hold.page.clone(),
            },
            access_log: service.access_log,
            care: service.care.into(),
            resources: service.resources.into(),
            drill_block: service.drill_block.clone(),
            heartbeat_ms: service.heartbeat.map_or(0, ms),
            bake: BakeV1 { time_ms: ms(service.bake.time), errors_ppm: ppm(service.bake.errors) },
            handover: service.handover.into(),
            restart: match service.restart {
                Restart::Always => RestartV1::Always,
                Restart::OnFailure(max) => RestartV1::OnFailure { max },
                Restart::No => RestartV1::No,
            },
            stop_signal: service.stop_signal,
            stop_grace_ms: ms(service.stop_grace),
            depends_on: service
                .depends_on
                .iter()
                .map(|(name, on)| {
                    (
                        name.clone(),
                        DependencyV1 {
                            condition: on.condition.into(),
                            required: on.required,
                            restart: on.restart,
                        },
                    )
                })
                .collect(),
            position: service.position.clone(),
        }
    }
}

fn probe_to_wire(probe: &Probe) -> ProbeV1 {
    ProbeV1 {
        check: match &probe.check {
            Check::Http { port, path, host, accept } => CheckV1::Http {
                port: *port,
                path: path.clone(),
                host: host.clone(),
                accept: (*accept).into(),
            },
            Check::Exec(argv) => CheckV1::Exec { argv: argv.clone() },
            Check::Up => CheckV1::Up,
        },
        interval_ms: ms(probe.interval),
        start_interval_ms: ms(probe.start_interval),
        timeout_ms: ms(probe.timeout),
        rise: probe.rise,
        fall: probe.fall,
        start_period_ms: ms(probe.start_period),
        declared: probe.declared,
    }
}

pub(super) fn require(holds: bool, what: impl FnOnce() -> String) -> Result<(), SpecWireError> {
    if holds { Ok(()) } else { Err(SpecWireError::Invalid(what())) }
}

impl TryFrom<SpecV1> for Spec {
    type Error = SpecWireError;

    fn try_from(wire: SpecV1) -> Result<Self, Self::Error> {
        require(wire.version == VERSION, || {
            format!("version {} under the name of version {VERSION}", wire.version)
        })?;
        let name = wire.project.as_str();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        require(starts && name.chars().all(fits), || format!("{name:?} is no project name"))?;
        require(wire.keep.releases >= 2, || "fewer than two releases are kept".to_owned())?;
        let mut services = std::collections::BTreeMap::new();
        for (name, service) in wire.services {
            require(name == service.name, || format!("service {:?} stands under {name:?}", service.name))?;
            services.insert(name, service.try_into()?);
        }
        Ok(Self {
            project: wire.project,
            services,
            keep: Keep { releases: wire.keep.releases, warm: Duration::from_millis(wire.keep.warm_ms) },
            trusted_proxies: wire
                .trusted_proxies
                .into_iter()
                .map(proxy_from_wire)
                .collect::<Result<_, _>>()?,
            limits: wire.limits.into(),
            notify: wire.notify,
            networks: wire.networks,
            volumes: wire.volumes,
            sources: wire.sources,
        })
    }
}

pub(super) fn proxy_to_wire(proxy: &TrustedProxy) -> TrustedProxyV1 {
    match *proxy {
        TrustedProxy::Loopback => TrustedProxyV1::Loopback,
        TrustedProxy::Project => TrustedProxyV1::Project,
        TrustedProxy::Block(address, bits) => TrustedProxyV1::Block { address, bits },
    }
}

pub(super) fn proxy_from_wire(wire: TrustedProxyV1) -> Result<TrustedProxy, SpecWireError> {
    Ok(match wire {
        TrustedProxyV1::Loopback => TrustedProxy::Loopback,
        TrustedProxyV1::Project => TrustedProxy::Project,
        TrustedProxyV1::Block { address, bits } => {
            let all = match address {
                IpAddr::V4(_) => 32,
                IpAddr::V6(_) => 128,
            };
            require(bits <= all, || format!("{address}/{bits} is no address block"))?;
            TrustedProxy::Block(address, bits)
        }
    })
}

impl TryFrom<ServiceV1> for Service {
    type Error = SpecWireError;

    fn try_from(wire: ServiceV1) -> Result<Self, Self::Error> {
        let name = &wire.name;
        check(&wire)?;
        Ok(Self {
            role: wire.role.into(),
            role_reason: wire.role_reason,
            container: wire.container,
            argv: wire.argv,
            env: wire.env,
            working_dir: wire.working_dir,
            user: wire.user,
            replicas: wire.replicas,
            routing: traffic::routing(wire.routing, &wire.ports, name)?,
            ports: wire.ports.into_iter().map(port_from_wire).collect(),
            app_port: match wire.app_port {
                AppPortV1::Env => AppPort::Env,
                AppPortV1::Fixed(port) => AppPort::Fixed(port),
                AppPortV1::Isolated(port) => AppPort::Isolated(port),
            },
            probe: probe_from_wire(wire.probe, &wire.name)?,
            gate_timeout: Duration::from_millis(wire.gate_timeout_ms),
            drain: Drain {
                requests: Duration::from_millis(wire.drain.requests_ms),
                websockets: Duration::from_millis(wire.drain.websockets_ms),
                stagger: Duration::from_millis(wire.drain.stagger_ms),
            },
            balance: traffic::balance(wire.balance, name)?,
            times: wire.times.into(),
            hold: hold_from_wire(wire.hold, name)?,
            access_log: wire.access_log,
            care: wire.care.into(),
            resources: wire.resources.into(),
            drill_block: wire.drill_block,
            heartbeat: (wire.heartbeat_ms > 0).then_some(Duration::from_millis(wire.heartbeat_ms)),
            bake: Bake {
                time: Duration::from_millis(wire.bake.time_ms),
                errors: f64::from(wire.bake.errors_ppm) / f64::from(MILLION),
            },
            handover: handover_from_wire(wire.handover, &wire.name)?,
            restart: match wire.restart {
                RestartV1::Always => Restart::Always,
                RestartV1::OnFailure { max } => Restart::OnFailure(max),
                RestartV1::No => Restart::No,
            },
            stop_signal: wire.stop_signal,
            stop_grace: Duration::from_millis(wire.stop_grace_ms),
            depends_on: wire.depends_on.into_iter().map(|(name, on)| (name, on.into())).collect(),
            position: wire.position,
            name: wire.name,
        })
    }
}

fn hold_from_wire(wire: HoldV1, service: &str) -> Result<Hold, SpecWireError> {
    require(wire.page.as_ref().is_none_or(|page| page.len() <= PAGE_BYTES_MAX), || {
        format!("{service}: the page for held requests is longer than {PAGE_BYTES_MAX} bytes")
    })?;
    Ok(Hold { time: Duration::from_millis(wire.time_ms), requests: wire.requests, page: wire.page })
}

fn port_from_wire(wire: PortV1) -> Port {
    Port { host: wire.host, published: wire.published, target: wire.target, protocol: wire.protocol }
}

fn probe_from_wire(wire: ProbeV1, service: &str) -> Result<Probe, SpecWireError> {
    require(wire.rise > 0 && wire.fall > 0, || {
        format!("{service}: a probe needs a rise and a fall of at least 1")
    })?;
    require(wire.interval_ms > 0 && wire.start_interval_ms > 0 && wire.timeout_ms > 0, || {
        format!("{service}: a probe's interval or timeout is 0")
    })?;
    Ok(Probe {
        check: match wire.check {
            CheckV1::Http { port, path, host, accept } => {
                Check::Http { port, path, host, accept: accept.into() }
            }
            CheckV1::Exec { argv } => {
                require(!argv.is_empty(), || format!("{service}: a probe has no command"))?;
                Check::Exec(argv)
            }
            CheckV1::Up => Check::Up,
        },
        interval: Duration::from_millis(wire.interval_ms),
        start_interval: Duration::from_millis(wire.start_interval_ms),
        timeout: Duration::from_millis(wire.timeout_ms),
        rise: wire.rise,
        fall: wire.fall,
        start_period: Duration::from_millis(wire.start_period_ms),
        declared: wire.declared,
    })
}
