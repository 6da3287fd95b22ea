use serde_json::Value;

use crate::{
    compose::{self, LoadInput, ReadError, SourceFile, tests::Shop},
    spec::{
        Handover, Restart, Rolling, Spec,
        container::{BuildSecret, MountSource},
    },
};

/// Every key of a container, most in the form that Compose prints.
const EVERYTHING: &str = include_str!("tests/everything.yaml");

fn shop() -> Shop {
    Shop::new()
        .env("TOKEN", "s3cret")
        .file("/srv/shop/key.pem", "KEY\n")
        .file("/srv/shop/profile.json", "{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }")
        .file("/srv/shop/labels.env", "from.file=1\na=overridden\n")
}

/// Without what is empty, so that a person can read it.
fn trimmed(value: Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Array(items) => (!items.is_empty()).then(|| {
            Value::Array(items.into_iter().map(|item| trimmed(item).unwrap_or(Value::Null)).collect())
        }),
        Value::Object(map) => {
            let map: serde_json::Map<_, _> =
                map.into_iter().filter_map(|(key, value)| Some((key, trimmed(value)?))).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        other => Some(other),
    }
}

fn container(spec: &Spec, name: &str) -> Value {
    let container = spec.services[name].container.as_ref().expect("it has a container");
    trimmed(serde_json::to_value(container).unwrap()).unwrap_or_default()
}

#[test]
fn every_key_of_a_container_is_read() {
    let spec = shop().spec(EVERYTHING);
    insta::assert_snapshot!(serde_json::to_string_pretty(&container(&spec, "web")).unwrap());
    let tops = serde_json::json!({"networks": spec.networks, "volumes": spec.volumes});
    insta::assert_snapshot!(serde_json::to_string_pretty(&trimmed(tops)).unwrap());
}

#[test]
fn mistakes_stand_at_their_place() {
    let mut wrong = Vec::new();
    for (lines, expected) in [
        (
            "credential_spec: {file: x}",
            "4:5 services.web.credential_spec: `credential_spec` is about Windows containers, which Bulsa doesn't run",
        ),
        ("mem_limit: much", "4:16 services.web.mem_limit is \"much\""),
        ("networks: {frnt: null}", "4:16 services.web.networks: there is no network `frnt`"),
        (
            "volumes: [{type: volume, source: data, target: /data}]",
            "4:15 services.web.volumes: there is no volume `data`",
        ),
        (
            "volumes: [{type: npipe, source: x, target: /x}]",
            "4:22 services.web.volumes[0]: `npipe` is for Windows containers",
        ),
        ("secrets: [{source: token}]", "4:15 services.web.secrets: there is no secret `token`"),
        ("network_mode: 'service:db'", "4:19 services.web.depends_on: there is no service `db`"),
        (
            "network_mode: host\nnetworks: {default: null}",
            "5:5 services.web: `network_mode` and `networks` can't be together",
        ),
        ("deploy: {mode: replicated-job}", "4:20 services.web.deploy.mode: `replicated-job` needs Swarm"),
        (
            "mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}",
            "4:16 services.web: `mem_limit` and `deploy.resources.limits.memory` say different things",
        ),
        (
            "ports: [{target: 53, published: '53', protocol: udp}]",
            "4:13 services.web.ports: UDP port 53 of an app can't be switched from one release to the next: Bulsa's proxy carries TCP only",
        ),
        ("x-bulsa: {heartbeat: 30s}", "4:15 services.web: `heartbeat` is for programs without a container"),
        ("x-bulsa: {app_port: 3000}", "4:25 services.web: `app_port` is for programs without a container"),
        ("expose: ['0']", "4:14 services.web.expose[0]: \"0\" is no port"),
    ] {
        let indented: String = lines.lines().map(|line| format!("    {line}\n")).collect();
        let loaded = Shop::new().load(&format!("services:\n  web:\n    image: shop\n{indented}"));
        let found: Vec<String> = loaded
            .diagnostics
            .list()
            .iter()
            .map(|it| format!("{}:{} {}", it.pos.line, it.pos.col, it.message))
            .collect();
        if found != [expected] {
            wrong.push(format!("{lines}\n  expected {expected}\n  found {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mistakes_that_only_a_container_can_have_are_named() {
    for (lines, expected) in [
        ("user: ':'", "warning: services.web.user is \":\", which is root to the Engine"),
        (
            "volumes: ['data:/data:Z']",
            "warning: services.web.volumes[0]: `z` and `Z` are for directories of the host, and do nothing here",
        ),
        (
            "build: {additional_contexts: {base: 'service:db'}}",
            "error: services.web.build.additional_contexts.base: the image of another service as a context comes in a later version",
        ),
        (
            "build: {secrets: [written]}",
            "error: services.web.build: the secret `written` is neither in a file nor in a variable, and a build reads no others",
        ),
        ("build: {secrets: [unset]}", "error: secrets.unset: the variable `NOT_SET` is not set"),
    ] {
        let more = "  db: {image: postgres, build: .}\nvolumes: {data: {}}\nsecrets:\n  written: {external: true}\n  unset: {environment: NOT_SET}\n";
        let loaded = Shop::new().load(&format!("services:\n  web:\n    image: shop\n    {lines}\n{more}"));
        let found: Vec<String> =
            loaded.diagnostics.list().iter().map(|it| format!("{}: {}", it.severity, it.message)).collect();
        assert_eq!(found, [expected], "{lines}");
    }
}

#[test]
fn a_directory_of_the_host_is_made_as_compose_makes_it() {
    let created = |mount: &str| {
        let text = format!("services:\n  web:\n    image: shop\n    volumes: [{mount}]\n");
        let mounts = Shop::new().spec(&text).services["web"].container.as_ref().unwrap().mounts.clone();
        matches!(mounts[0].source, MountSource::Bind { create: true, .. })
    };
    assert!(created("./data:/data"));
    assert!(created("{type: bind, source: ./data, target: /data}"));
    assert!(created("{type: bind, source: ./data, target: /data, bind: {create_host_path: true}}"));
    assert!(!created("{type: bind, source: ./data, target: /data, bind: {create_host_path: false}}"));
    assert!(!created("{type: bind, source: ./data, target: /data, bind: {propagation: rslave}}"));
}

#[test]
fn a_config_that_may_be_run_stays_so() {
    let text = "services:\n  web: {image: shop, configs: [run, read, said]}\nconfigs:\n  run: {file: ./run.sh}\n  read: {file: ./read.conf}\n  said: {content: x}\n";
    let files = vec![SourceFile { path: "compose.yaml".to_owned(), text: text.to_owned() }];
    let mut read = |_: &str| Ok("x".to_owned());
    let input = LoadInput {
        is_executable: |path| path == "/srv/shop/run.sh",
        ..LoadInput::new(files, "/srv/shop", &mut read)
    };
    let spec = compose::load(input).spec.unwrap();
    let files = &spec.services["web"].container.as_ref().unwrap().files;
    let modes: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.mode)).collect();
    assert_eq!(modes, [("run", Some(0o555)), ("read", None), ("said", None)]);
}

#[test]
fn a_build_reads_secrets_from_files_and_variables_and_their_values_are_not_stored() {
    let spec = shop().spec(
        "services:\n  web: {build: {context: ., secrets: [key, token]}}\nsecrets:\n  key: {file: key.pem}\n  token: {environment: TOKEN}\n",
    );
    let build = spec.services["web"].container.as_ref().unwrap().build.as_ref().unwrap();
    assert_eq!(build.secrets["key"], BuildSecret::File("/srv/shop/key.pem".to_owned()));
    assert_eq!(build.secrets["token"], BuildSecret::Variable("TOKEN".to_owned()));
    assert_eq!(build.variables["TOKEN"], "s3cret");
    assert!(!serde_json::to_string(&build).unwrap().contains("s3cret"));
}

#[test]
fn what_the_engine_does_not_know_is_translated() {
    let spec = Shop::new().spec(
        "services:\n  web: {image: shop, security_opt: ['systempaths=unconfined', 'label:disable'], devices: ['vendor.com/gpu=0', '/dev/fuse', 'vendor.com/gpu=1']}\n",
    );
    let container = spec.services["web"].container.as_ref().unwrap();
    let isolation = &container.isolation;
    assert!(isolation.unconfined_paths && isolation.security_options == ["label=disable"], "{isolation:?}");
    assert_eq!(isolation.devices.len(), 1);
    let request = &container.resources.device_requests[0];
    assert_eq!(request.driver.as_deref(), Some("cdi"));
    assert_eq!(request.device_ids, ["vendor.com/gpu=0", "vendor.com/gpu=1"]);
}

#[test]
fn names_that_begin_as_extensions_do_are_names() {
    let spec = Shop::new().env("K", "v").spec(
        "services:\n  web: {image: shop, secrets: [x-key], volumes: ['x-data:/d'], networks: [x-net]}\nsecrets: {x-key: {environment: K}}\nvolumes: {x-data: {}}\nnetworks: {x-net: {}}\n",
    );
    assert_eq!(spec.volumes["x-data"].name, "shop_x-data");
    assert_eq!(spec.networks["x-net"].name, "shop_x-net");
    assert_eq!(spec.services["web"].container.as_ref().unwrap().files[0].content, b"v");
}

#[test]
fn of_two_restart_policies_deploys_counts() {
    let restart = |lines: &str| {
        Shop::new().spec(&format!("services:\n  web:\n    image: shop\n    {lines}\n")).services["web"]
            .restart
    };
    assert_eq!(restart("restart: 'no'\n    deploy: {restart_policy: {condition: any}}"), Restart::Always);
    assert_eq!(restart("restart: always\n    deploy: {restart_policy: {condition: none}}"), Restart::No);
    assert_eq!(restart("restart: 'no'\n    deploy: {replicas: 1}"), Restart::No);
}

#[test]
fn one_port_in_both_families_is_one_listener() {
    let text = "services:\n  web: {image: shop, ports: ['0.0.0.0:80:3000', '[::]:80:3000', '0.0.0.0:81:3000']}\n  db: {image: postgres, ports: ['0.0.0.0:5432:5432', '[::]:5432:5432']}\n";
    let spec = Shop::new().spec(text);
    let web: Vec<_> = spec.services["web"].ports.iter().map(|port| (port.host, port.published)).collect();
    assert_eq!(web, [(None, Some(80)), (Some([0, 0, 0, 0].into()), Some(81))]);
    assert_eq!(spec.services["db"].container.as_ref().unwrap().published.len(), 2, "Docker publishes both");
}

#[test]
fn a_secret_need_not_be_text_and_an_env_file_must() {
    let load = |text: &str| {
        let files = vec![SourceFile { path: "compose.yaml".to_owned(), text: text.to_owned() }];
        let mut read = |_: &str| Err(ReadError::NotText(vec![0, 159, 255]));
        compose::load(LoadInput::new(files, "/srv/shop", &mut read))
    };
    let loaded = load("services:\n  web: {image: shop, secrets: [s]}\nsecrets:\n  s: {file: key.der}\n");
    let spec = loaded.spec.expect("it is right");
    assert_eq!(spec.services["web"].container.as_ref().unwrap().files[0].content, [0, 159, 255]);
    let loaded = load("services:\n  web: {image: shop, env_file: web.env}\n");
    assert!(loaded.diagnostics.to_string().contains("it doesn't hold text"), "{}", loaded.diagnostics);
}

#[test]
fn an_external_secret_says_what_to_do() {
    let text =
        "services:\n  web: {image: shop, secrets: [{source: s}]}\nsecrets:\n  s: {name: s, external: true}\n";
    insta::assert_snapshot!(Shop::new().load(text).diagnostics, @"
    compose.yaml:4:26: error: secrets.s: `external` secrets are kept by Swarm, and there is none
      hint: put the content into a file and say `file: PATH`, or name a variable with `environment: NAME`
    ");
}

#[test]
fn who_is_routed_by_labels_gets_the_patch() {
    let text = "services:\n  proxy: {image: 'traefik:3', ports: [{target: 80, published: '80'}]}\n  web:\n    image: shop\n    labels:\n      a: b\n      traefik.http.routers.web.rule: Host(`shop.example`)\n      traefik.http.services.web.loadbalancer.server.port: '3000'\n";
    let loaded = Shop::new().load(text);
    let found = &loaded.diagnostics.list()[0];
    assert_eq!((found.pos.line, found.pos.col), (7, 7), "{found}");
    let hint = found.hint.as_deref().unwrap_or_default();
    assert!(hint.contains("ports: [\"80:3000\"]") && hint.contains("host: shop.example"), "{hint}");
}

#[test]
fn labels_that_bulsa_gives_are_refused_at_their_line() {
    let text = "services:\n  web:\n    image: shop\n    labels:\n      a: b\n      bulsa.anchor: x\n";
    let loaded = Shop::new().load(text);
    let found = &loaded.diagnostics.list()[0];
    assert_eq!((found.pos.line, found.pos.col), (6, 7), "{found}");
    assert!(found.message.contains("`bulsa.anchor`"), "{found}");
}

#[test]
fn roles_have_reasons() {
    let spec = Shop::new().spec(
        "\
services:
  redis: {image: redis}
  own: {image: redis, build: {context: .}, expose: ['1']}
  nginx: {image: nginx, ports: [{target: 80, published: '80'}]}
  web: {image: shop, ports: [{target: 80, published: 8000-8001}]}
  api: {image: shop, expose: ['3000']}
  queue: {image: shop}
  plex: {image: plex, network_mode: host, ports: [{target: 1, published: '1'}]}
  said: {image: shop, x-bulsa: {role: shared}, ports: [{target: 53, published: '53', protocol: udp}]}
  migrate: {image: shop}
  last: {image: shop, depends_on: {migrate: {condition: service_completed_successfully}}}
",
    );
    let lines: String = spec
        .services
        .values()
        .map(|it| {
            let published = it.container.as_ref().map_or(0, |container| container.published.len());
            let bound: Vec<_> = it.ports.iter().map(|port| port.published).collect();
            format!(
                "{}: {:?} {:?}, docker {published}, bulsa {bound:?}: {}\n",
                it.name, it.role, it.handover, it.role_reason
            )
        })
        .collect();
    insta::assert_snapshot!(lines);
}

#[test]
fn what_cannot_run_twice_stops_first() {
    for (lines, expected) in [
        ("ports: [{target: 80}]\n    volumes: [{type: volume, source: v, target: /d}]", true),
        (
            "ports: [{target: 80}]\n    volumes: [{type: volume, source: v, target: /d, read_only: true}]",
            false,
        ),
        ("ports: [{target: 80}]\n    volumes: [{type: volume, target: /d}]", false),
        ("ports: [{target: 80}]\n    volumes: [{type: bind, source: /logs, target: /d}]", false),
        (
            "ports: [{target: 80}]\n    volumes: [{type: volume, source: v, target: /d}]\n    x-bulsa: {handover: overlap}",
            false,
        ),
        ("ports: [{target: 80}]\n    networks: {default: {ipv4_address: 10.0.0.9}}", true),
        ("ports: [{target: 80}]\n    container_name: shop", false),
        ("container_name: shop", true),
        ("ports: [{target: 80}]\n    deploy: {update_config: {order: stop-first}}", true),
    ] {
        let spec = Shop::new()
            .spec(&format!("services:\n  web:\n    image: shop\n    {lines}\nvolumes: {{v: {{}}}}\n"));
        let web = &spec.services["web"];
        assert_eq!(web.handover == Handover::StopFirst, expected, "{lines}");
    }
}

#[test]
fn an_update_config_makes_it_rolling_unless_it_cannot_run_twice() {
    let rolling = |parallelism, stop_first, seconds| {
        let delay = std::time::Duration::from_secs(seconds);
        Handover::Rolling(Rolling { parallelism, stop_first, delay })
    };
    for (config, more, expected) in [
        ("{}", "", Handover::Overlap),
        ("{parallelism: 2, delay: 10s}", "", rolling(2, false, 10)),
        ("{order: start-first}", "", rolling(1, false, 0)),
        ("{order: stop-first, parallelism: 3}", "", rolling(3, true, 0)),
        ("{parallelism: 0}", "", Handover::Overlap),
        ("{parallelism: 4}", "", Handover::Overlap),
        ("{parallelism: 0, order: stop-first}", "", Handover::StopFirst),
        ("{parallelism: 2}", "volumes: [{type: volume, source: v, target: /d}]", Handover::StopFirst),
        ("{order: start-first}", "volumes: [{type: volume, source: v, target: /d}]", rolling(1, false, 0)),
        ("{order: start-first}", "mac_address: 02:42:ac:11:00:02", Handover::StopFirst),
        ("{parallelism: 2}", "x-bulsa: {handover: overlap}", Handover::Overlap),
        ("{parallelism: 2}", "x-bulsa: {handover: rolling}", rolling(1, false, 0)),
    ] {
        let text = format!(
            "services:\n  web:\n    image: shop\n    ports: [{{target: 80}}]\n    \
             deploy: {{replicas: 4, update_config: {config}}}\n    {more}\nvolumes: {{v: {{}}}}\n"
        );
        assert_eq!(Shop::new().spec(&text).services["web"].handover, expected, "{config} {more}");
    }
}
