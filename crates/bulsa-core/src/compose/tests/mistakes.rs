use super::*;

#[test]
fn a_file_with_five_mistakes_names_all_five_with_line_and_column() {
    let loaded = Shop::new().load(
        "\
services:
  web:
    comand: node server.js
    ports:
      - \"8080:3000/udp\"
    healthcheck:
      test: [\"CMD\", \"true\"]
      interval: 10
    depends_on:
      databse:
        condition: service_healthy
  database:
    command: postgres
    restart: sometimes
",
    );
    assert!(loaded.spec.is_none());
    insta::assert_snapshot!(loaded.diagnostics, @r#"
    compose.yaml:3:5: error: services.web: there is no key `comand`
      hint: did you mean `command`?
    compose.yaml:5:9: error: services.web.ports[0].protocol: Bulsa's proxy carries TCP only, not udp
      hint: remove it, or publish it by other means
    compose.yaml:8:17: error: services.web.healthcheck.interval is the number 10
      expected: a duration such as 1m30s or 500ms
      hint: add the unit: 10s for seconds, 10ms for milliseconds
    compose.yaml:10:7: error: services.web.depends_on: there is no service `databse`
      hint: did you mean `database`?
    compose.yaml:14:14: error: services.database.restart: "sometimes" is no restart policy
      expected: `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`
    "#);
}

/// One mistake each, in the service `web`: its line (the first of those given is line 3) and column.
type Mistakes = &'static [(&'static str, &'static str)];

const KEYS: Mistakes = &[
    (
        "volumes: [a:/b]",
        "3:5 error: services.web.volumes: `volumes` needs a container, and this service has no `image` and no `build`",
    ),
    (
        "labels: {a: b}",
        "3:5 error: services.web.labels: `labels` needs a container, and this service has no `image` and no `build`",
    ),
    ("extends: x", "3:14 error: services.web.extends: there is no service `x` in this file"),
    ("enviroment: {}", "3:5 error: services.web: there is no key `enviroment`"),
    (
        "deploy: {resources: {reservations: {memory: 1g}}}",
        "3:41 error: services.web.deploy.resources.reservations.memory: `memory` needs a container, and this service has no `image` and no `build`",
    ),
    ("deploy: {replica: 2}", "3:14 error: services.web.deploy: there is no key `replica`"),
];

const TYPES: Mistakes = &[
    ("user: 1000", "3:11 error: services.web.user is the number 1000"),
    ("user: ':x'", "3:11 error: services.web.user: \":x\" is no user"),
    ("working_dir:", "3:16 error: services.web.working_dir is nothing"),
    ("working_dir: \"a\\0b\"", "3:18 error: services.web.working_dir contains a NUL character"),
    ("entrypoint: [sleep, 10]", "3:25 error: services.web.entrypoint[1] is the number 10"),
    (
        "entrypoint: sh -c a; b",
        "3:17 error: services.web.entrypoint can't be split into words: `;` needs a shell, and a command written as one string gets none",
    ),
    (
        "entrypoint: \"a 'b\"",
        "3:17 error: services.web.entrypoint can't be split into words: a ' quote is not closed",
    ),
    ("deploy: {replicas: many}", "3:24 error: services.web.deploy.replicas is \"many\""),
    ("deploy: {replicas: -1}", "3:24 error: services.web.deploy.replicas is the number -1"),
    ("deploy: {replicas: 1001}", "3:24 error: services.web.deploy.replicas is the number 1001"),
    ("deploy: {replicas: 2}\nscale: 3", "4:12 error: services.web: `scale` is 3 but `deploy.replicas` is 2"),
    ("restart: sometimes", "3:14 error: services.web.restart: \"sometimes\" is no restart policy"),
    ("restart: on-failure:x", "3:14 error: services.web.restart: \"on-failure:x\" is no restart policy"),
    ("restart: false", "3:14 error: services.web.restart is the truth value false"),
    ("stop_signal: SIGTREM", "3:18 error: services.web.stop_signal: \"SIGTREM\" is no signal"),
    ("stop_signal: 9", "3:18 error: services.web.stop_signal is the number 9"),
    ("stop_grace_period: 10", "3:24 error: services.web.stop_grace_period is the number 10"),
    ("stop_grace_period: 10 s", "3:24 error: services.web.stop_grace_period is \"10 s\": it is no duration"),
    (
        "stop_grace_period: -1s",
        "3:24 error: services.web.stop_grace_period is \"-1s\": a duration can't be negative",
    ),
    ("stop_grace_period: 2d", "3:24 error: services.web.stop_grace_period is \"48h0m0s\""),
    ("stop_grace_period: 1.5ms", "3:24 error: services.web.stop_grace_period is \"1.5ms\""),
];

const PORTS: Mistakes = &[
    ("ports: 80", "3:12 error: services.web.ports is the number 80"),
    (
        "ports: ['80:80/udp']",
        "3:13 error: services.web.ports[0].protocol: Bulsa's proxy carries TCP only, not udp",
    ),
    (
        "ports: [{target: 80, protocol: udp}]",
        "3:36 error: services.web.ports[0].protocol: Bulsa's proxy carries TCP only, not udp",
    ),
    ("ports: [{published: 80}]", "3:13 error: services.web.ports[0] has no `target`"),
    (
        "ports: [{target: 80, published: 80-81}]",
        "3:37 error: services.web.ports[0].published: a range of published ports for one port of the program isn't supported yet",
    ),
    ("ports: [{target: 0}]", "3:22 error: services.web.ports[0].target is the number 0"),
    ("ports: [{target: 80, mode: hots}]", "3:32 error: services.web.ports[0].mode: \"hots\" is unknown"),
    ("ports: ['80:80', '80:81']", "3:22 error: services.web.ports: port 80 is published twice"),
];

const ENVIRONMENT: Mistakes = &[
    ("environment: [A: 1]", "3:19 error: services.web.environment[0] is a mapping"),
    ("environment: {A: [1]}", "3:22 error: services.web.environment.A is a list"),
    ("environment: ['=x']", "3:19 error: services.web.environment[0]: \"\" can't be a variable's name"),
    ("environment:", "3:16 error: services.web.environment is nothing"),
    ("env_file: no.env", "3:15 error: env_file /srv/shop/no.env: there is no such file"),
    ("env_file: {path: a}", "3:15 error: services.web.env_file is a mapping"),
    ("env_file: [{required: false}]", "3:16 error: services.web.env_file[0] has no `path`"),
    (
        "env_file: [{path: locked.env, required: false}]",
        "3:16 error: env_file /srv/shop/locked.env: permission denied",
    ),
    (
        "env_file: [{path: a, format: json, required: false}]",
        "3:34 error: services.web.env_file[0].format: \"json\" is unknown",
    ),
];

const HEALTHCHECK: Mistakes = &[
    (
        "healthcheck: {test: [a]}",
        "3:25 error: services.web.healthcheck.test starts with none of the words that say what it is",
    ),
    (
        "healthcheck: {test: [CMD]}",
        "3:25 error: services.web.healthcheck.test names no program after \"CMD\"",
    ),
    (
        "healthcheck: {test: [CMD-SHELL]}",
        "3:25 error: services.web.healthcheck.test needs a text after \"CMD-SHELL\"",
    ),
    ("healthcheck: {retries: x}", "3:28 error: services.web.healthcheck.retries is \"x\""),
    ("healthcheck: {intervall: 3s}", "3:19 error: services.web.healthcheck: there is no key `intervall`"),
    ("healthcheck: {disable: maybe}", "3:28 error: services.web.healthcheck.disable is \"maybe\""),
    ("healthcheck: {interval: 25h}", "3:29 error: services.web.healthcheck.interval is \"25h0m0s\""),
];

const DEPENDENCIES: Mistakes = &[
    ("depends_on: [wbe]", "3:18 error: services.web.depends_on: there is no service `wbe`"),
    ("depends_on: [web]", "3:18 error: the services wait for each other: web → web"),
    ("depends_on: web", "3:17 error: services.web.depends_on is \"web\""),
];

const X_BULSA: Mistakes = &[
    ("x-bulsa: {role: apps}", "3:21 error: services.web.x-bulsa.role: \"apps\" is unknown"),
    ("x-bulsa: {roel: app}", "3:15 error: services.web.x-bulsa: there is no key `roel`"),
    ("x-bulsa: {spare: 101}", "3:22 error: services.web.x-bulsa.spare is the number 101"),
    (
        "x-bulsa: {spare: 1}",
        "3:15 error: services.web.x-bulsa.spare: a `worker` gets no requests that another one could take over",
    ),
    (
        "ports: ['80:80']\nx-bulsa: {spare: 1, handover: stop_first}",
        "4:15 error: services.web.x-bulsa.spare: it needs `handover: overlap`",
    ),
    (
        "x-bulsa: {recycle: {memory: 80%}}",
        "3:33 error: services.web.x-bulsa.recycle.memory is a share of a memory limit, and the service has none",
    ),
    ("mem_limit: 5m", "3:16 error: services.web.mem_limit: 5242880 bytes are too little for any program"),
    (
        "deploy: {resources: {limits: {cpus: '0.001'}}}",
        "3:41 error: services.web.deploy.resources.limits.cpus: less than 0.01 of a processor can't be had",
    ),
    (
        "mem_limit: 64m\ndeploy: {resources: {limits: {memory: 128m}}}",
        "3:16 error: services.web: `mem_limit` and `deploy.resources.limits.memory` say different things",
    ),
    ("x-bulsa: {recycle: {age: 1s}}", "3:30 error: services.web.x-bulsa.recycle.age is \"1s\""),
    (
        "x-bulsa: {recycle: {requests: 5000}}",
        "3:15 error: services.web.x-bulsa.recycle: a `worker` gets no requests to count",
    ),
    (
        "x-bulsa: {role: job, recycle: {age: 1h}}",
        "3:26 error: services.web.x-bulsa.recycle: a `job` ends by itself",
    ),
    (
        "x-bulsa: {handover: singleton}",
        "3:25 error: services.web.x-bulsa.handover: `singleton` comes in a later version",
    ),
    ("x-bulsa: {bake: {errors: 0.05}}", "3:30 error: services.web.x-bulsa.bake.errors is the number 0.05"),
    ("x-bulsa: {bake: {errors: 101%}}", "3:30 error: services.web.x-bulsa.bake.errors is \"101%\""),
    ("x-bulsa: {probe: {rise: 0}}", "3:29 error: services.web.x-bulsa.probe.rise is the number 0"),
    ("x-bulsa: {probe: {interval: 0s}}", "3:33 error: services.web.x-bulsa.probe.interval is \"0s\""),
    ("x-bulsa: {app_port: {isolate: true}}", "3:25 error: services.web.x-bulsa.app_port has no `port`"),
    (
        "x-bulsa: {app_port: 3000}\nscale: 2",
        "4:12 error: services.web: 2 replicas can't all listen on port 3000",
    ),
    (
        "x-bulsa: {role: worker}\nports: ['1:1']",
        "4:13 error: services.web: a worker publishes no port, and this is one: the file says so",
    ),
];

const VARIABLES_AND_TAGS: Mistakes = &[
    ("user: ${", "3:11 error: services.web.user: `${` is no valid use of a variable"),
    ("user: ${X:?set it}", "3:11 error: services.web.user: the variable `X` is required but not set: set it"),
    ("user: !resett x", "3:11 error: the tag `!resett` means nothing in a compose file"),
];

#[test]
fn each_mistake_is_one_error_at_its_place() {
    let all = [KEYS, TYPES, PORTS, ENVIRONMENT, HEALTHCHECK, DEPENDENCIES, X_BULSA, VARIABLES_AND_TAGS];
    let mut wrong = String::new();
    for (lines, expected) in all.into_iter().flatten() {
        let complaints = Shop::new().complaints(lines);
        let errors: Vec<_> = complaints.iter().filter(|line| line.contains(" error: ")).collect();
        if errors != [expected] {
            wrong += &format!("{lines}\n  expected {expected}\n  got {errors:#?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_dependency_needs_a_condition() {
    let loaded = Shop::new().load(
        "services:\n  a: {command: x, depends_on: {b: {restart: true, condition: service_healty}, c: {}}}\n  b: {command: x}\n  c: {command: x}\n",
    );
    insta::assert_snapshot!(loaded.diagnostics, @r#"
    compose.yaml:2:62: error: services.a.depends_on.b.condition: "service_healty" is unknown
      expected: one of `service_started`, `service_healthy`, `service_completed_successfully`
      hint: did you mean `service_healthy`?
    compose.yaml:2:79: error: services.a.depends_on.c has no `condition`
      expected: condition: service_started, service_healthy or service_completed_successfully
    "#);
}

#[test]
fn what_is_taken_and_works_otherwise_is_warned_of() {
    let complaints = |lines: &str| Shop::new().complaints(lines);
    assert_eq!(
        complaints("healthcheck: {test: [CMD-SHELL, a, b]}"),
        [
            "3:25 warning: services.web.healthcheck.test: the shell runs \"a\" alone; the words after it are its $0, $1, …"
        ]
    );
    assert!(complaints("healthcheck: {test: [CMD-SHELL, a]}").is_empty());
}

#[test]
fn circles_are_named_once_with_their_way() {
    let loaded = Shop::new().load(
        "\
services:
  a: {command: x, depends_on: [b]}
  b: {command: x, depends_on: [c, d]}
  c: {command: x, depends_on: [a]}
  d: {command: x}
  e: {command: x, depends_on: [f, a]}
  f: {command: x, depends_on: [e]}
",
    );
    insta::assert_snapshot!(loaded.diagnostics, @"
    compose.yaml:4:32: error: the services wait for each other: a → b → c → a
      hint: remove one of these dependencies
    compose.yaml:7:32: error: the services wait for each other: e → f → e
      hint: remove one of these dependencies
    ");
}

#[test]
fn one_port_of_two_services_needs_two_routes_and_one_address() {
    let clash = |a: &str, b: &str, rest: &str| {
        let text = format!(
            "services:\n  a: {{command: x, ports: ['{a}']}}\n  b: {{command: x, ports: ['{b}']{rest}}}\n"
        );
        Shop::new().load(&text).diagnostics.to_string()
    };
    insta::assert_snapshot!(clash("80:1", "80:2", ""), @"
    compose.yaml:3:27: error: services.b.ports: port 80 is published by `a` too
      hint: the other one is at compose.yaml:2:27; take another port, or give the services different `x-bulsa.route`s
    ");
    insta::assert_snapshot!(clash("80:1", "127.0.0.1:80:2", ", x-bulsa: {route: {path: /b}}"), @"
    compose.yaml:3:27: error: services.b.ports: port 80 is published by `a` too, on another address that includes this one or is included
      hint: the other one is at compose.yaml:2:27; give both the same address
    ");
    for (a, b, rest) in [
        ("80:1", "80:2", ", x-bulsa: {route: {path: /b}}"),
        ("80:1", "80:2", ", x-bulsa: {route: {host: b.example}}"),
        ("80:1", "0.0.0.0:80:2", ", x-bulsa: {route: {host: b.example}}"),
        ("127.0.0.1:80:1", "127.0.0.2:80:2", ""),
        ("127.0.0.1:80:1", "[::1]:80:2", ""),
        ("1", "2", ""),
        ("0:1", "0:2", ""),
        ("80:1", "81:1", ""),
    ] {
        assert_eq!(clash(a, b, rest), "", "{a} {b} {rest}");
    }
}

#[test]
fn jobs_publish_nothing_and_only_jobs_complete() {
    let loaded = Shop::new().load(
        "\
services:
  a: {command: x, depends_on: {b: {condition: service_completed_successfully}, c: {condition: service_completed_successfully}}}
  b: {command: x, x-bulsa: {role: app}}
  c: {command: x, ports: ['80']}
",
    );
    insta::assert_snapshot!(loaded.diagnostics, @"
    compose.yaml:3:35: error: services.b: `a` waits for it to complete, but its role isn't `job`
      hint: make it `role: job`, or change the condition
    compose.yaml:4:27: error: services.c: a job publishes no port, and this is one: `a` waits for it to complete
      hint: remove `ports`, or change `x-bulsa.role`
    ");
}

#[test]
fn a_service_needs_a_command() {
    for (text, message) in [
        ("services: {web: {}}", "services.web: there is no command to run"),
        ("services: {web: {command: }}", "services.web: there is no command to run"),
        ("services: {web: {command: ''}}", "services.web: there is no command to run"),
        ("services: {web: {command: ['']}}", "services.web: the program's name is empty"),
        ("services: {web: }", "services.web is nothing"),
        ("services: {web: [a]}", "services.web is a list"),
        ("services: {'a b': {command: x}}", "services: \"a b\" can't be a service's name"),
        ("services: {}", "`services` is empty"),
        ("services: ", "services is nothing"),
        ("{}", "the file has no `services`"),
        ("[]", "the file is a list"),
        ("x", "the file is \"x\""),
        ("", "the file is empty"),
        ("# only\n# comments\n", "the file is empty"),
    ] {
        let loaded = Shop::new().load(text);
        let messages: Vec<_> = loaded.diagnostics.list().iter().map(|d| d.message.as_str()).collect();
        assert_eq!(messages, [message], "{text}");
        assert!(loaded.spec.is_none());
    }
}

#[test]
fn mistakes_in_the_files_around_are_named_in_those_files() {
    let shop = Shop::new().dotenv("OK=1\nB AD=2\n").file("/srv/shop/web.env", "A=\"x\n");
    let loaded = shop.load(&web_file("env_file: web.env"));
    insta::assert_snapshot!(loaded.diagnostics, @r#"
    .env:2:1: error: ' ' can't be part of a variable's name, in `B AD`
      expected: NAME=value
    web.env:1:3: error: the quote that starts the value of A is not closed
      hint: add a " at the end of the value
    "#);
}

#[test]
fn nothing_more_is_said_of_what_follows_from_a_mistake() {
    for (service, messages) in [
        ("image: ''", &["services.web.image is empty"][..]),
        ("image: $NO", &["services.web.image is empty", "services.web.image: the variable `NO` is not set"]),
        ("extends: gone", &["services.web.extends: there is no service `gone` in this file"]),
        (
            "image: a, volumes: [{type: bnd, target: /x}]",
            &["services.web.volumes[0].type: \"bnd\" is unknown"],
        ),
        ("image: a, ulimits: {n: x}", &["services.web.ulimits.n is \"x\""]),
        ("image: a, ulimits: {n: {soft: 1}}", &["services.web.ulimits.n has no `hard`"]),
        (
            "platform: linux/arm64, build: {context: ., platforms: [linux/amd64]}",
            &["services.web: `build.platforms` doesn't have the service's `platform` linux/arm64"],
        ),
    ] {
        let loaded = Shop::new().load(&format!("services: {{web: {{{service}}}}}"));
        let found: Vec<_> = loaded.diagnostics.list().iter().map(|d| d.message.as_str()).collect();
        assert_eq!(found, messages, "{service}");
    }
    let text = "include: [{pth: x}]\nservices: {web: {image: a, secrets: [s]}}\nsecrets: {s: {driver: x}}";
    let loaded = Shop::new().load(text);
    let found: Vec<_> = loaded.diagnostics.list().iter().map(|d| d.message.as_str()).collect();
    assert_eq!(
        found,
        [
            "include[0]: there is no key `pth`",
            "secrets.s.driver: `driver` belongs to Swarm, which comes in a later version"
        ]
    );
}

#[test]
fn a_tag_that_means_nothing_here_is_named() {
    let loaded =
        Shop::new().load("services: {web: {command: x, environment: {A: !!binary aGk=, B: !reste }}}");
    let line = |d: &Diagnostic| format!("{} {}", d.pos, d.message);
    let found: Vec<_> = loaded.diagnostics.list().iter().map(line).collect();
    assert_eq!(
        found,
        [
            "compose.yaml:1:47 the tag `!!binary` means nothing in a compose file",
            "compose.yaml:1:65 the tag `!reste` means nothing in a compose file"
        ]
    );
}

#[test]
fn hundreds_of_mistakes_are_bounded() {
    let lines: String = (0..300).map(|i| format!("    k{i}: 1\n")).collect();
    let loaded = Shop::new().load(&format!("services:\n  web:\n{lines}"));
    assert_eq!(loaded.diagnostics.list().len(), diagnostic::MAX_DIAGNOSTICS);
    assert_eq!(loaded.diagnostics.omitted(), 201);
}

#[test]
fn the_top_takes_only_what_it_knows() {
    let loaded = Shop::new().load(
        "\
servces: {}
networks: {a: {}}
x-own: 1
x-bulsa: {engine: docker, keep: {releases: 1, warm: 31d}, trusted_proxies: [loopbak, 10.0.0.0/33]}
services: {a: {command: x}}
",
    );
    insta::assert_snapshot!(loaded.diagnostics, @r#"
    compose.yaml:1:1: error: the top of the file: there is no key `servces`
      hint: did you mean `services`?
    compose.yaml:4:44: error: x-bulsa.keep.releases is the number 1
      expected: a whole number from 2 to 10
    compose.yaml:4:53: error: x-bulsa.keep.warm is "31d"
      expected: 0s to 720h0m0s
    compose.yaml:4:77: error: x-bulsa.trusted_proxies: "loopbak" is no address block
      expected: `loopback`, `project`, an address, or a block such as 10.0.0.0/8
      hint: did you mean `loopback`?
    compose.yaml:4:86: error: x-bulsa.trusted_proxies: "10.0.0.0/33" is no address block
      expected: `loopback`, `project`, an address, or a block such as 10.0.0.0/8
    "#);
}

#[test]
fn mistakes_about_who_is_told_never_repeat_a_url() {
    let loaded = Shop::new().env("EMPTY", "").load(
        "\
x-bulsa:
  notify:
    - url: hooks.example/secret
      on: [incidents, heal]
    - {url: $EMPTY, format: teams}
    - {format: slack}
    - {url: 'https://a.example/secret', on: []}
    - {url: 'https://b.example/secret'}
    - {url: 'https://b.example/secret', on: all, uri: x}
  heartbeat: {url: ['https://a.example/secret'], interval: 10ms}
services: {a: {command: x}}
",
    );
    insta::assert_snapshot!(loaded.diagnostics);
    assert!(!loaded.diagnostics.to_string().contains("secret"));
}

#[test]
fn the_json_view_has_places_and_suggestions() {
    let loaded = Shop::new().load(&web_file("enviroment: {}"));
    let view = serde_json::to_value(loaded.diagnostics.view()).unwrap();
    assert_eq!(view[0]["line"], 3);
    assert_eq!(view[0]["column"], 5);
    assert_eq!(view[0]["file"], "compose.yaml");
    assert_eq!(view[0]["suggestion"], "environment");
    assert_eq!(view[0]["severity"], "error");
}
