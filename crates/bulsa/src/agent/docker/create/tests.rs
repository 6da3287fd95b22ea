use std::{collections::BTreeMap, time::Duration};

use bulsa_core::{
    ids::{ReleaseId, ReplicaId},
    spec::{
        Accept, AppPort, Bake, Balance, Check, Drain, Handover, Hold, Probe, Restart, Role, Routing, Service,
        Sources, Spec, Times,
        container::{
            Attachment, Container, Healthcheck, Logging, Mount, MountSource, Network, NetworkMode,
            PortNumber, Published, Ulimit, Volume,
        },
    },
};

use super::*;

fn service(role: Role, container: Container) -> Service {
    Service {
        name: "web".to_owned(),
        role,
        role_reason: String::new(),
        container: Some(Box::new(container)),
        argv: Vec::new(),
        env: BTreeMap::from([
            ("NODE_ENV".to_owned(), "production".to_owned()),
            ("BULSA_RELEASE".to_owned(), "r9".to_owned()),
        ]),
        working_dir: String::new(),
        user: Some("1000:1000".to_owned()),
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
        gate_timeout: Duration::from_secs(60),
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
        stop_grace: Duration::from_millis(2_500),
        depends_on: BTreeMap::new(),
        position: String::new(),
    }
}

fn spec() -> Spec {
    let network = |name: &str| Network { name: format!("shop_{name}"), ..Network::default() };
    Spec {
        project: "shop".to_owned(),
        networks: [("back", network("back")), ("front", network("front"))]
            .map(|(key, network)| (key.to_owned(), network))
            .into(),
        volumes: [("data".to_owned(), Volume { name: "shop_data".to_owned(), ..Volume::default() })].into(),
        sources: Sources {
            directory: "/srv/shop".to_owned(),
            files: vec!["/srv/shop/compose.yaml".to_owned()],
            env_files: Vec::new(),
        },
        ..Spec::default()
    }
}

fn engine(minor: u32) -> EngineInfo {
    EngineInfo { api: (1, minor), version: "test".to_owned(), ..EngineInfo::default() }
}

fn planned(role: Role, container: Container, minor: u32, others: &Others) -> Result<Plan, StartProblem> {
    let service = service(role, container);
    let release = ReleaseId(if role == Role::Shared { 0 } else { 3 });
    let id = ReplicaId { release, service: "web".to_owned(), ordinal: 2, attempt: 7 };
    let env = BTreeMap::from([("EXTRA".to_owned(), "1".to_owned())]);
    let start = StartReplica {
        recreates: false,
        watchers: None,
        project: "shop",
        id: &id,
        service: &service,
        spec: &spec(),
        instance: "4d2c",
        env: &env,
        names: true,
    };
    plan(&start, &engine(minor), "me", others)
}

fn app(container: Container) -> Plan {
    planned(Role::App, container, 41, &Others::new()).unwrap()
}

fn host(container: Container) -> bollard::models::HostConfig {
    app(container).body.host_config.unwrap()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_replica_is_named_after_its_place_and_then_after_its_attempt() {
    let named = Container { container_name: Some("shop-web".to_owned()), ..Container::default() };
    assert_eq!(app(named.clone()).names, ["shop-web-r3-2", "shop-web-r3-2.7"]);
    let shared = planned(Role::Shared, named, 41, &Others::new()).unwrap();
    assert_eq!(shared.names, ["shop-web"]);
    let job = planned(Role::Job, Container::default(), 41, &Others::new()).unwrap();
    assert_eq!(job.names, ["shop-web-2", "shop-web-r3-2", "shop-web-r3-2.7"]);
}

#[test]
fn compose_sees_it_and_we_find_it_again() {
    let container = Container {
        image: "shop:1".to_owned(),
        image_id: Some("sha256:1".to_owned()),
        labels: [("a".to_owned(), "b".to_owned()), (labels::SERVICE.to_owned(), "lie".to_owned())].into(),
        ..Container::default()
    };
    let body = app(container.clone()).body;
    assert_eq!(body.image.as_deref(), Some("sha256:1"));
    let labels = body.labels.unwrap();
    let get = |name: &str| labels[name].as_str();
    assert_eq!((get("a"), get(labels::SERVICE), get(labels::NUMBER)), ("b", "web", "2"));
    assert_eq!((get(labels::ONEOFF), get("com.docker.compose.image")), ("False", "sha256:1"));
    assert_eq!(get("com.docker.compose.project.config_files"), "/srv/shop/compose.yaml");
    assert_eq!((get("bulsa.owner"), get("bulsa.replica"), get("bulsa.release")), ("me", "web-r3-2.7", "r3"));
    assert_eq!(get("bulsa.role"), "app");
    assert!(get(labels::CONFIG_HASH).starts_with("bulsa-"));
    let other = app(Container { tty: true, ..container }).body.labels.unwrap();
    assert_ne!(other[labels::CONFIG_HASH], labels[labels::CONFIG_HASH]);
}

#[test]
fn the_environment_is_the_files_then_ours_and_has_no_port() {
    let env = app(Container::default()).body.env.unwrap();
    let expected = [
        "BULSA_INSTANCE=4d2c",
        "BULSA_RELEASE=r3",
        "BULSA_REPLICA=web-r3-2",
        "BULSA_SERVICE=web",
        "EXTRA=1",
        "NODE_ENV=production",
    ];
    assert_eq!(env, expected);
}

#[test]
fn entrypoint_and_command_replace_the_images_and_an_empty_one_removes_it() {
    let body = app(Container { entrypoint: Some(vec![]), ..Container::default() }).body;
    let json = serde_json::to_value(&body).unwrap();
    assert_eq!(json["Entrypoint"], serde_json::json!([]));
    assert!(json.get("Cmd").is_none(), "the image's command stays");
    let both = Container {
        entrypoint: Some(strings(&["/run"])),
        command: Some(strings(&["-v"])),
        ..Container::default()
    };
    let body = app(both).body;
    assert_eq!((body.entrypoint.unwrap(), body.cmd.unwrap()), (strings(&["/run"]), strings(&["-v"])));
    assert_eq!(body.stop_timeout, Some(3), "2.5 s of grace are rounded up");
}

#[test]
fn what_bulsa_restarts_docker_does_not() {
    let policy = |role, word: Option<&str>| {
        let container = Container { docker_restart: word.map(str::to_owned), ..Container::default() };
        let policy = planned(role, container, 41, &Others::new()).unwrap().body.host_config.unwrap();
        let policy = policy.restart_policy.unwrap();
        (policy.name.unwrap().to_string(), policy.maximum_retry_count)
    };
    assert_eq!(policy(Role::App, Some("always")).0, "no");
    assert_eq!(policy(Role::Job, None).0, "no");
    assert_eq!(policy(Role::Shared, None).0, "unless-stopped");
    assert_eq!(policy(Role::Shared, Some("no")).0, "no");
    assert_eq!(policy(Role::Shared, Some("on-failure:5")), ("on-failure".to_owned(), Some(5)));
}

#[test]
fn only_what_bulsa_does_not_route_is_published_by_docker() {
    let container = Container {
        expose: vec![PortNumber { port: 9000, protocol: "tcp".to_owned() }],
        published: vec![
            Published {
                host: None,
                published: Some("5432".to_owned()),
                target: 5432,
                protocol: "tcp".to_owned(),
            },
            Published {
                host: Some("127.0.0.1".parse().unwrap()),
                published: None,
                target: 53,
                protocol: "udp".to_owned(),
            },
        ],
        ..Container::default()
    };
    let body = app(container.clone()).body;
    assert!(body.host_config.unwrap().port_bindings.is_none());
    assert_eq!(body.exposed_ports.unwrap(), ["53/udp", "5432/tcp", "9000/tcp"]);
    let shared = planned(Role::Shared, container, 41, &Others::new()).unwrap().body.host_config.unwrap();
    let ports = shared.port_bindings.unwrap();
    let bound = ports["53/udp"].as_ref().unwrap();
    assert_eq!((bound[0].host_ip.as_deref(), bound[0].host_port.as_deref()), (Some("127.0.0.1"), Some("")));
    assert_eq!(ports["5432/tcp"].as_ref().unwrap()[0].host_port.as_deref(), Some("5432"));
}

fn two_networks() -> Container {
    let back = Attachment { aliases: strings(&["api", "web"]), ..Attachment::default() };
    let front = Attachment {
        priority: 10,
        ipv4: Some("172.30.0.9".parse().unwrap()),
        interface_name: Some("eth7".to_owned()),
        gateway_priority: Some(1),
        ..Attachment::default()
    };
    Container {
        container_name: Some("shop-web".to_owned()),
        networks: [("back".to_owned(), back), ("front".to_owned(), front)].into(),
        links: vec![("db".to_owned(), "database".to_owned()), ("cache".to_owned(), "cache".to_owned())],
        external_links: strings(&["old"]),
        ..Container::default()
    }
}

#[test]
fn an_old_engine_joins_one_network_at_once_and_the_others_by_priority() {
    let plan = app(two_networks());
    let now = plan.body.networking_config.unwrap().endpoints_config.unwrap();
    assert_eq!(now.keys().collect::<Vec<_>>(), ["shop_front"]);
    assert_eq!(plan.body.host_config.unwrap().network_mode.as_deref(), Some("shop_front"));
    assert_eq!(plan.later[0].0, "shop_back");
    let back = &plan.later[0].1;
    assert_eq!(back.aliases.as_ref().unwrap(), &["web", "shop-web", "api"]);
    assert_eq!(back.links.as_ref().unwrap(), &["db:database", "old:old"]);
    let front = &now["shop_front"];
    assert_eq!(front.ipam_config.as_ref().unwrap().ipv4_address.as_deref(), Some("172.30.0.9"));
    assert_eq!(front.gw_priority, None);
}

#[test]
fn a_new_engine_joins_them_all_at_once() {
    let plan = planned(Role::App, two_networks(), 51, &Others::new()).unwrap();
    assert!(plan.later.is_empty());
    let now = plan.body.networking_config.unwrap().endpoints_config.unwrap();
    assert_eq!(now.len(), 2);
    assert_eq!(now["shop_front"].gw_priority, Some(1));
    assert_eq!(now["shop_front"].driver_opts.as_ref().unwrap()["com.docker.network.endpoint.ifname"], "eth7");
}

#[test]
fn in_another_containers_network_no_port_is_said() {
    for mode in [NetworkMode::Service("vpn".to_owned()), NetworkMode::Container("vpn".to_owned())] {
        let container = Container {
            network_mode: Some(mode),
            expose: vec![PortNumber { port: 80, protocol: "tcp".to_owned() }],
            published: vec![Published {
                host: None,
                published: None,
                target: 80,
                protocol: "tcp".to_owned(),
            }],
            ..Container::default()
        };
        let others = Others::from([("vpn".to_owned(), "abc".to_owned())]);
        let plan = planned(Role::Worker, container, 44, &others).unwrap();
        assert_eq!(plan.body.exposed_ports, None);
        assert_eq!(plan.body.host_config.unwrap().port_bindings, None);
    }
}

#[test]
fn what_an_old_engine_cannot_keep_of_a_network_is_said() {
    let attachment = Attachment {
        gateway_priority: Some(1),
        interface_name: Some("lan0".to_owned()),
        ..Attachment::default()
    };
    let container = Container { networks: [("back".to_owned(), attachment)].into(), ..Container::default() };
    let old = planned(Role::App, container.clone(), 47, &Others::new()).unwrap();
    assert_eq!(old.notes.len(), 1, "{:?}", old.notes);
    assert!(old.notes[0].contains("`gw_priority` and `interface_name`"), "{:?}", old.notes);
    assert!(planned(Role::App, container, 48, &Others::new()).unwrap().notes.is_empty());
}

#[test]
fn other_services_name_spaces_are_their_containers() {
    let mut container = Container {
        network_mode: Some(NetworkMode::Service("vpn".to_owned())),
        volumes_from: strings(&["data:ro", "container:old"]),
        ..Container::default()
    };
    container.isolation.pid = Some("service:vpn".to_owned());
    container.isolation.ipc = Some("shareable".to_owned());
    assert_eq!(needed(&container), ["data", "vpn"]);
    let others: Others = [("vpn", "1f"), ("data", "2f")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let host = planned(Role::App, container.clone(), 41, &others).unwrap().body.host_config.unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("container:1f"));
    assert_eq!(
        (host.pid_mode.as_deref(), host.ipc_mode.as_deref()),
        (Some("container:1f"), Some("shareable"))
    );
    assert_eq!(host.volumes_from.unwrap(), ["2f:ro", "old"]);
    let problem = planned(Role::App, container, 41, &Others::new()).unwrap_err();
    assert!(!problem.permanent && problem.message.contains("there is none yet"), "{problem}");
}

fn bind(create: bool, selinux: Option<&str>, recursive: Option<&str>) -> Mount {
    Mount {
        target: "/in".to_owned(),
        source: MountSource::Bind {
            path: "/out".to_owned(),
            create,
            propagation: None,
            selinux: selinux.map(str::to_owned),
            recursive: recursive.map(str::to_owned),
        },
        read_only: true,
        consistency: None,
    }
}

#[test]
fn a_bind_makes_its_directory_or_refuses_as_the_file_says() {
    let with = |mount| host(Container { mounts: vec![mount], ..Container::default() });
    assert_eq!(with(bind(true, Some("z"), None)).binds.unwrap(), ["/out:/in:ro,z"]);
    let refusing = with(bind(false, None, None));
    assert!(refusing.binds.is_none());
    assert_eq!(refusing.mounts.unwrap()[0].source.as_deref(), Some("/out"));
    let old = Container { mounts: vec![bind(true, None, Some("readonly"))], ..Container::default() };
    assert!(planned(Role::App, old.clone(), 41, &Others::new()).unwrap_err().permanent);
    let new = planned(Role::App, old, 44, &Others::new()).unwrap().body.host_config.unwrap().mounts.unwrap();
    let options = new[0].bind_options.as_ref().unwrap();
    assert_eq!((options.read_only_force_recursive, options.create_mountpoint), (Some(true), Some(true)));
}

#[test]
fn volumes_are_known_to_the_engine_by_the_projects_names() {
    let volume = |name: Option<&str>| Mount {
        target: "/data".to_owned(),
        source: MountSource::Volume {
            name: name.map(str::to_owned),
            no_copy: name.is_some(),
            subpath: None,
            labels: BTreeMap::new(),
        },
        read_only: false,
        consistency: None,
    };
    let mounts = host(Container { mounts: vec![volume(Some("data")), volume(None)], ..Container::default() })
        .mounts
        .unwrap();
    assert_eq!(mounts[0].source.as_deref(), Some("shop_data"));
    assert_eq!(mounts[0].volume_options.as_ref().unwrap().no_copy, Some(true));
    assert_eq!((mounts[1].source.as_deref(), mounts[1].volume_options.as_ref()), (None, None));
}

#[test]
fn health_checks_lose_only_what_an_old_engine_lacks() {
    let check = Healthcheck {
        test: strings(&["CMD", "true"]),
        interval: Some(Duration::from_secs(2)),
        start_interval: Some(Duration::from_millis(100)),
        retries: Some(3),
        ..Healthcheck::default()
    };
    let container = Container { healthcheck: Some(check), ..Container::default() };
    let old = app(container.clone());
    assert_eq!(old.notes.len(), 1, "{:?}", old.notes);
    let told = old.body.healthcheck.unwrap();
    assert_eq!((told.interval, told.start_interval, told.retries), (Some(2_000_000_000), None, Some(3)));
    let new = planned(Role::App, container, 44, &Others::new()).unwrap();
    assert_eq!(new.body.healthcheck.unwrap().start_interval, Some(100_000_000));
    assert!(new.notes.is_empty());
}

#[test]
fn limits_and_rights_are_passed_on() {
    let mut container = Container {
        init: Some(true),
        shm_size: Some(1 << 20),
        extra_hosts: vec![("gw".to_owned(), "host-gateway".to_owned())],
        logging: Some(Logging {
            driver: Some("json-file".to_owned()),
            options: [("max-size".to_owned(), "1m".to_owned())].into(),
        }),
        ..Container::default()
    };
    container.resources.cpus = Some(0.5);
    container.resources.memory = Some(64 << 20);
    container.resources.ulimits.insert("nofile".to_owned(), Ulimit { soft: 10, hard: 20 });
    container.isolation.cap_drop = strings(&["ALL"]);
    container.isolation.read_only = true;
    container.isolation.cgroup = Some("private".to_owned());
    container.isolation.devices.push(("/dev/a".to_owned(), "/dev/b".to_owned(), "rw".to_owned()));
    let host = host(container);
    assert_eq!((host.nano_cpus, host.memory, host.init), (Some(500_000_000), Some(64 << 20), Some(true)));
    assert_eq!(host.ulimits.unwrap()[0].hard, Some(20));
    assert_eq!((host.cap_drop.unwrap(), host.readonly_rootfs), (strings(&["ALL"]), Some(true)));
    assert_eq!(host.extra_hosts.unwrap(), ["gw:host-gateway"]);
    assert_eq!(host.cgroupns_mode.unwrap().to_string(), "private");
    assert_eq!(host.devices.unwrap()[0].path_in_container.as_deref(), Some("/dev/b"));
    assert_eq!(host.log_config.unwrap().config.unwrap()["max-size"], "1m");
    assert_eq!(host.network_mode.as_deref(), Some("none"), "no networks at all");
}

#[test]
fn what_an_old_engine_would_drop_in_silence_is_refused() {
    let mut container = two_networks();
    container.isolation.mac_address = Some("02:42:ac:11:00:01".to_owned());
    let problem = planned(Role::App, container.clone(), 43, &Others::new()).unwrap_err();
    assert!(problem.permanent && problem.message.contains("Docker Engine 25"), "{problem}");
    let new = planned(Role::App, container, 44, &Others::new()).unwrap();
    let now = new.body.networking_config.unwrap().endpoints_config.unwrap();
    assert_eq!(now["shop_front"].mac_address.as_deref(), Some("02:42:ac:11:00:01"));
    assert_eq!(now["shop_back"].mac_address, None);
}
