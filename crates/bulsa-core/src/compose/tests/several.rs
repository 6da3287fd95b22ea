//! Projects of several files: `-f` more than once, `extends`, `include`, profiles.

use super::*;

fn spec_of(loaded: Loaded) -> Spec {
    assert!(!loaded.diagnostics.has_errors(), "{}", loaded.diagnostics);
    loaded.spec.expect("files without errors give a Spec")
}

fn names(spec: &Spec) -> Vec<&str> {
    spec.services.keys().map(String::as_str).collect()
}

/// Each service's working directory, for the programs that run where they are written.
fn text_of(loaded: &Loaded) -> String {
    loaded.diagnostics.to_string()
}

#[test]
fn a_later_file_is_merged_over_the_earlier_ones_and_mistakes_are_named_where_they_stand() {
    let base = "name: one\nservices:\n  web: {command: [a], ports: ['80:1'], restart: no-way}\n";
    let over =
        "name: two\nservices:\n  web: {command: [b], environment: {A: 1}}\n  job: {command: [j], usr: x}\n";
    let loaded = Shop::new().load_all(&[("base.yaml", base), ("sub/over.yaml", over)]);
    insta::assert_snapshot!(loaded.diagnostics, @r#"
    base.yaml:3:49: error: services.web.restart: "no-way" is no restart policy
      expected: `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`
    sub/over.yaml:4:23: error: services.job: there is no key `usr`
      hint: did you mean `user`?
    "#);
    let base = base.replace(", restart: no-way", "");
    let over = over.replace(", usr: x", "");
    let spec = spec_of(Shop::new().load_all(&[("base.yaml", &base), ("sub/over.yaml", &over)]));
    assert_eq!((spec.project.as_str(), names(&spec)), ("two", vec!["job", "web"]));
    let web = &spec.services["web"];
    assert_eq!(
        (web.argv.as_slice(), web.ports.len(), web.env["A"].as_str()),
        (&["b".to_owned()][..], 1, "1")
    );
    assert_eq!(web.position, "base.yaml:3:3");
    assert_eq!(spec.sources.directory, "/srv/shop");
    assert_eq!(spec.sources.files, ["/srv/shop/base.yaml", "/srv/shop/sub/over.yaml"]);
}

/// As in Compose, which checks a file once it is merged with the ones before.
#[test]
fn what_another_file_or_service_says_may_be_left_open() {
    let base = "services:\n  web: {command: [a], ports: ['80:1'], environment: {A: 1}, depends_on: {db: {condition: service_healthy, required: false}}}\n  db: {command: [d], healthcheck: {test: x}}\n";
    let over = "services:\n  web: {ports: , environment: , depends_on: {db: {restart: true}}}\n  more: {extends: web, ports: , restart: , labels: !reset }\n  db:\n";
    let over = over.replace("extends: web", "extends: {service: web, file: base.yaml}");
    let base = &base.replace("command: [a]", "command: [a], restart: always");
    let shop = Shop::new().file("/srv/shop/base.yaml", base);
    let spec = spec_of(shop.load_all(&[("base.yaml", &base.replace("80:1", "81:1")), ("over.yaml", &over)]));
    let web = &spec.services["web"];
    assert_eq!((web.ports.len(), web.env["A"].as_str()), (1, "1"));
    assert!(web.depends_on.contains_key("db"));
    assert_eq!(spec.services["more"].ports.len(), 1);

    // Where nobody says it, it is a mistake as ever, at its place.
    let over = "services:\n  web: {environment: {A: }}\n  new: {command: [n], ports: }\n  job: {command: [j], depends_on: {web: {restart: true}}}\n";
    let loaded = Shop::new().load_all(&[("base.yaml", base), ("over.yaml", over)]);
    insta::assert_snapshot!(loaded.diagnostics, @r#"
    over.yaml:3:28: error: services.new.ports is nothing
      expected: a list
      hint: for example: ports: ["8080:3000"]
    over.yaml:4:36: error: services.job.depends_on.web has no `condition`
      expected: condition: service_started, service_healthy or service_completed_successfully
    "#);
}

#[test]
fn a_projects_file_may_include_another_one_of_its_files() {
    let shop = Shop::new().file("/srv/shop/a.yaml", "services: {a: {command: [a]}}");
    let text = "include: [a.yaml]\nservices: {b: {command: [b]}}";
    let spec = spec_of(shop.load_all(&[("a.yaml", "services: {a: {command: [a]}}"), ("b.yaml", text)]));
    assert_eq!(names(&spec), ["a", "b"]);
    // However many there are.
    let more = "services: {a: {command: [a]}}";
    let files: Vec<(&str, &str)> =
        std::iter::repeat_n(("x.yaml", more), 20).chain([("b.yaml", text)]).collect();
    spec_of(shop.load_all(&files));
}

#[test]
fn an_empty_file_says_nothing_beside_others() {
    let text = "services: {web: {command: [a]}}";
    let spec = spec_of(Shop::new().load_all(&[("a.yaml", "# later\n"), ("b.yaml", text), ("c.yaml", "")]));
    assert_eq!(names(&spec), ["web"]);
    let shop = Shop::new().file("/srv/shop/inc.yaml", "# nothing\n");
    spec_of(shop.load(&format!("include: [inc.yaml]\n{text}")));
    spec_of(shop.load(&format!("include:\n{text}")));
    let loaded = shop.load_all(&[("a.yaml", ""), ("b.yaml", "# b")]);
    assert_eq!(text_of(&loaded), "a.yaml: error: the file is empty\n  expected: a mapping with `services:`");
}

#[test]
fn a_later_env_file_wins_and_sees_the_earlier_ones() {
    let dotenv = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
    let mut read = |_: &str| Err(ReadError::NotFound);
    let text = "services: {a: {command: [x], environment: {A: $A, B: $B}}}".to_owned();
    let loaded = load(LoadInput {
        dotenvs: vec![dotenv("one.env", "A=1\nC=3"), dotenv("two.env", "A=2\nB=$A$C")],
        ..LoadInput::new(vec![SourceFile { path: "compose.yaml".to_owned(), text }], "/srv", &mut read)
    });
    let spec = spec_of(loaded);
    assert_eq!(
        spec.services["a"].env,
        BTreeMap::from([("A", "2"), ("B", "23")].map(|(k, v)| (k.to_owned(), v.to_owned())))
    );
    assert_eq!(spec.sources.env_files, ["/srv/one.env", "/srv/two.env"]);
}

#[test]
fn a_service_takes_over_what_it_extends_here_and_in_other_files() {
    let shop = Shop::new()
        .file("/srv/shop/common/base.yaml", "services:\n  base: {command: [b], extends: root, env_file: [b.env]}\n  root: {extends: {service: far, file: ../far.yaml}, environment: {R: $R}}\n")
        .file("/srv/shop/far.yaml", "services: {far: {environment: {F: f, A: far}, depends_on: [db]}}")
        .file("/srv/shop/common/b.env", "FROM=file")
        .env("R", "r");
    let spec = shop.spec(
        "services:\n  web: {extends: {service: base, file: common/base.yaml}, environment: {A: own}}\n  two: {extends: web, command: [two], depends_on: !override [web]}\n  db: {command: [db]}\n",
    );
    let web = &spec.services["web"];
    let env =
        |service: &spec::Service| service.env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
    assert_eq!(
        (web.argv.as_slice(), env(web)),
        (&["b".to_owned()][..], vec!["A=own".into(), "F=f".into(), "FROM=file".into(), "R=r".into()])
    );
    assert_eq!(web.depends_on.keys().collect::<Vec<_>>(), ["db"]);
    let two = &spec.services["two"];
    assert_eq!((two.argv.as_slice(), env(two)), (&["two".to_owned()][..], env(web)));
    assert_eq!(two.depends_on.keys().collect::<Vec<_>>(), ["web"]);
    assert_eq!(two.position, "compose.yaml:3:3");
}

#[test]
fn what_extends_gets_wrong_is_named_at_its_place() {
    let shop = Shop::new()
        .file("/srv/shop/x.yaml", "services: {a: {extends: {service: b, file: y.yaml}}, n: }")
        .file("/srv/shop/y.yaml", "services: {b: {extends: {service: a, file: x.yaml}}}")
        .file("/srv/shop/none.yaml", "name: x")
        .file("/srv/shop/bad.yaml", "services: {a: {usr: 1, comand: x}}");
    let loaded = shop.load(
        "\
services:
  a: {command: [a], extends: {service: a, file: x.yaml}}
  b: {command: [b], extends: c}
  c: {command: [c], extends: {service: b}}
  d: {command: [d], extends: webb}
  e: {command: [e], extends: {service: a, file: gone.yaml}}
  f: {command: [f], extends: {service: z, file: x.yaml}}
  g: {command: [g], extends: {file: x.yaml}}
  h: {command: [h], extends: {service: a, file: none.yaml}}
  i: {command: [i], extends: {service: a, file: https://example.com/x.yaml}}
  j: {command: [j], extends: {service: a, file: bad.yaml}}
  k: {command: [k], extends: {service: n, file: x.yaml}}
  l: {command: [l], extends: {servce: a}}
  web: {command: [w]}
",
    );
    insta::assert_snapshot!(loaded.diagnostics, @r#"
    bad.yaml:1:16: error: services.a: there is no key `usr`
      hint: did you mean `user`?
    bad.yaml:1:24: error: services.a: there is no key `comand`
      hint: did you mean `command`?
    compose.yaml:3:30: error: the services extend each other: b → c → b
      hint: remove one of these `extends`
    compose.yaml:5:30: error: services.d.extends: there is no service `webb` in this file
      hint: did you mean `web`?
      hint: one of another file is named with `file:` beside `service:`
    compose.yaml:6:40: error: services.e.extends /srv/shop/gone.yaml: there is no such file
    compose.yaml:7:40: error: services.f.extends: there is no service `z` in x.yaml
    compose.yaml:8:30: error: services.g.extends has no `service`
      expected: service: the name of a service
    compose.yaml:9:40: error: services.h.extends: none.yaml has no `services`
    compose.yaml:10:40: error: services.i.extends https://example.com/x.yaml: files are only read from this host
      hint: download it, check it, and name the copy
    compose.yaml:13:31: error: services.l.extends: there is no key `servce`
      hint: did you mean `service`?
    x.yaml:1:35: error: the services extend each other: a → b → a
      hint: remove one of these `extends`
    "#);
}

#[test]
fn an_included_project_has_its_own_directory_variables_and_files() {
    let shop = Shop::new()
        .dotenv("TOP=top")
        .env("SHELL_SET", "shell")
        .file("/srv/shop/api/compose.yaml", "name: ignored\ninclude: [../db/compose.yaml]\nservices:\n  api: {command: [\"$V\", \"$TOP\", \"$SHELL_SET\"], env_file: [api.env], environment: [V, UNSET], depends_on: [db]}\n")
        .file("/srv/shop/api/.env", "V=api\nTOP=not this\nSHELL_SET=nor this")
        .file("/srv/shop/api/api.env", "FROM=api.env")
        .file("/srv/shop/api/more.yaml", "services: {api: {working_dir: run, environment: {MORE: 1}}}")
        .file("/srv/shop/db/compose.yaml", "services: {db: {command: [db], working_dir: /data}}");
    let spec = shop.spec("include: [api/compose.yaml]\nservices: {web: {command: [web], depends_on: [api]}}");
    assert_eq!((spec.project.as_str(), names(&spec)), ("shop", vec!["api", "db", "web"]));
    let api = &spec.services["api"];
    assert_eq!(api.argv, ["api", "top", "shell"]);
    assert_eq!(
        (api.env["V"].as_str(), api.env["FROM"].as_str(), api.env.get("UNSET")),
        ("api", "api.env", None)
    );
    assert_eq!(api.working_dir, "/srv/shop/api");
    assert_eq!(
        (spec.services["db"].working_dir.as_str(), spec.services["web"].working_dir.as_str()),
        ("/data", "/srv/shop")
    );
    assert_eq!(api.position, "api/compose.yaml:4:3");

    let long = "include:\n  - path: [api/compose.yaml, api/more.yaml]\n    project_directory: elsewhere\n    env_file: [one.env, two.env]\n";
    let shop = shop
        .file("/srv/shop/one.env", "V=1")
        .file("/srv/shop/two.env", "V=2")
        .file("/srv/shop/elsewhere/api.env", "FROM=elsewhere")
        .file("/srv/shop/db/compose.yaml", "{}")
        .file("/srv/db/compose.yaml", "{}")
        .file("/srv/shop/api/compose.yaml", "services: {api: {command: [$V], env_file: [api.env]}}");
    let spec = shop.spec(long);
    let api = &spec.services["api"];
    assert_eq!((api.argv[0].as_str(), api.working_dir.as_str()), ("2", "/srv/shop/elsewhere/run"));
    assert_eq!((api.env["FROM"].as_str(), api.env["MORE"].as_str()), ("elsewhere", "1"));
}

#[test]
fn a_later_file_may_change_and_a_service_may_extend_what_is_included() {
    let shop =
        Shop::new().file("/srv/shop/sub/c.yaml", "services: {db: {command: [db], environment: {A: 1}}}");
    let main = "include: [sub/c.yaml]\nservices: {mine: {extends: db, command: [mine]}}";
    let spec =
        spec_of(shop.load_all(&[("a.yaml", main), ("b.yaml", "services: {db: {environment: {A: 2}}}")]));
    assert_eq!(spec.services["db"].env["A"], "2");
    assert_eq!(spec.services["mine"].env["A"], "1");
}

#[test]
fn the_same_project_may_be_included_over_two_ways_but_nothing_is_defined_twice() {
    let shop = Shop::new()
        .file("/srv/shop/b.yaml", "include: [d.yaml]\nservices: {b: {command: [b]}}")
        .file("/srv/shop/c.yaml", "include: [d.yaml]\nservices: {c: {command: [c]}}")
        .file("/srv/shop/d.yaml", "services: {d: {command: [d]}}");
    assert_eq!(names(&shop.spec("include: [b.yaml, c.yaml]")), ["b", "c", "d"]);
    let loaded = shop.load("include: [d.yaml]\nservices:\n  d: {command: [other]}\n");
    insta::assert_snapshot!(text_of(&loaded), @r#"
    compose.yaml:3:3: error: services.d: include[0] defines it too, and differently
      hint: the other one is at d.yaml:1:12; rename one of them, or change the included one by a second file: `include: [{path: [FILE, CHANGES]}]`
    "#);
}

#[test]
fn what_include_gets_wrong_is_named_at_its_place() {
    let shop = Shop::new()
        .file("/srv/shop/self.yaml", "include: [compose.yaml]")
        .file("/srv/shop/x.yaml", "include: [y.yaml]\nservices: {x: {comand: x}}")
        .file(
            "/srv/shop/y.yaml",
            "include: [x.yaml]\nx-bulsa: {}\nnetwrks: {}\nservices: {y: {command: [$GONE]}}",
        )
        .file("/srv/shop/broken.yaml", "a: [");
    let loaded = shop.load(
        "\
include:
  - self.yaml
  - x.yaml
  - gone.yaml
  - {path: x.yaml, envfile: y}
  - {env_file: y}
  - oci://example.com/x
  - broken.yaml
  - {path: y.yaml, env_file: gone.env}
  - 5
services: {web: {command: [w]}}
",
    );
    insta::assert_snapshot!(loaded.diagnostics, @r#"
    broken.yaml:2:1: error: this isn't valid YAML: while parsing a node, did not find expected node content
      hint: look at this line and the ones above: indentation, quotes and colons
    compose.yaml:4:5: error: include[2] /srv/shop/gone.yaml: there is no such file
    compose.yaml:5:20: error: include[3]: there is no key `envfile`
      hint: did you mean `env_file`?
    compose.yaml:6:5: error: include[4] names no file
      expected: path: a compose file, or a list of them
    compose.yaml:7:5: error: include[5] oci://example.com/x: files are only read from this host
      hint: download it, check it, and name the copy
    compose.yaml:9:30: error: include[7].env_file /srv/shop/gone.env: there is no such file
    compose.yaml:10:5: error: include[8] is the number 5
      expected: a path, or a mapping
    self.yaml:1:11: error: include[0]: the files include each other: compose.yaml → self.yaml → compose.yaml
      hint: remove one of these `include`s
    x.yaml:1:11: error: include[0]: the files include each other: compose.yaml → y.yaml → x.yaml → y.yaml
      hint: remove one of these `include`s
    x.yaml:2:16: error: services.x: there is no key `comand`
      hint: did you mean `command`?
    y.yaml:1:11: error: include[0]: the files include each other: compose.yaml → x.yaml → y.yaml → x.yaml
      hint: remove one of these `include`s
    y.yaml:2:1: warning: `x-bulsa` at the top of an included file is not used
      hint: write it into the file that includes
    y.yaml:3:1: error: the top of the file: there is no key `netwrks`
      hint: did you mean `networks`?
    y.yaml:4:12: error: services.y: the program's name is empty
      expected: `command`, `entrypoint` or both
      hint: for example: command: ["node", "server.js"]
    y.yaml:4:26: warning: services.y.command[0]: the variable `GONE` is not set
      hint: nothing is put in its place; `${GONE:-default}` gives a default
    "#);
    let loaded = shop.load("include: x.yaml\nservices: {web: {command: [w]}}");
    insta::assert_snapshot!(loaded.diagnostics, @r#"
    compose.yaml:1:10: error: include is "x.yaml"
      expected: a list
    "#);
}

#[test]
fn profiles_switch_services_on() {
    let text = "services: {a: {command: [a]}, b: {command: [b], profiles: [p, q]}, c: {command: [c], profiles: [r], depends_on: [b]}, d: {command: [d], depends_on: {b: {condition: service_started, required: false}}}}";
    let on = |shop: Shop| {
        let loaded = shop.load(text);
        loaded.spec.as_ref().map_or_else(|| text_of(&loaded), |spec| names(spec).join(" "))
    };
    let with = |profiles: &[&str], services: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Shop { profiles: owned(profiles), services: owned(services), ..Shop::new() }
    };
    assert_eq!(on(Shop::new()), "a d");
    assert_eq!(on(with(&["q"], &[])), "a b d");
    assert_eq!(on(with(&["*"], &[])), "a b c d");
    assert_eq!(on(with(&[], &["b"])), "a b d");
    assert_eq!(on(with(&["p"], &["c"])), "a b c d");
    assert_eq!(on(Shop::new().dotenv("COMPOSE_PROFILES=x, q")), "a b d");
    assert_eq!(
        on(Shop { dotenv: Shop::new().dotenv("COMPOSE_PROFILES=q").dotenv, ..with(&["x"], &[]) }),
        "a d"
    );
    insta::assert_snapshot!(on(with(&["r"], &[])), @r#"
    compose.yaml:1:114: error: services.c.depends_on: the service `b` is off, because none of its profiles is active
      hint: activate one with `--profile`, or say `required: false` here
    "#);
    let spec = Shop::new().spec(text);
    assert!(spec.services["d"].depends_on.is_empty());
    let loaded = Shop::new().load("services: {a: {command: [a], profiles: [p]}}");
    insta::assert_snapshot!(text_of(&loaded), @r#"
    compose.yaml:1:11: error: every service is off, because no profile is active
      hint: activate one with `--profile` or COMPOSE_PROFILES, or name a service
    "#);
}

/// Loads one file; every other path gives `other`.
fn everywhere(text: &str, other: &str) -> Loaded {
    let mut read = |_: &str| Ok(other.to_owned());
    let file = SourceFile { path: "compose.yaml".to_owned(), text: text.to_owned() };
    load(LoadInput::new(vec![file], "/srv/shop", &mut read))
}

#[test]
fn what_files_read_and_copy_is_bounded() {
    let names: Vec<String> =
        (0..=files::MAX_FILES).map(|i| format!("{{path: d{i}/c.yaml, env_file: /dev/null}}")).collect();
    let loaded = everywhere(&format!("include: [{}]", names.join(", ")), "services: {}");
    assert!(text_of(&loaded).contains("at most 100 files"), "{}", loaded.diagnostics);

    let deep =
        everywhere("include: [d/c.yaml]", "{include: [{path: d/c.yaml, env_file: /dev/null}], services: {}}");
    assert!(text_of(&deep).contains("more than 16 levels"), "{}", deep.diagnostics);

    let many: String =
        (0..MAX_SERVICES - 1).map(|i| format!("  s{i}: {{extends: big, command: [x]}}\n")).collect();
    let big = "x".repeat(tree::MAX_FILE_BYTES / 2);
    let loaded =
        Shop::new().load(&format!("services:\n{many}  big: {{command: [x], environment: {{A: {big}}}}}\n"));
    let text = text_of(&loaded);
    assert!(text.contains("too much together"), "{}", &text[..1000.min(text.len())]);

    let chain: String = (0..=files::MAX_EXTENDS_DEPTH + 1)
        .map(|i| format!("  s{i}: {{extends: s{}, command: [x]}}\n", i + 1))
        .collect();
    let text =
        text_of(&Shop::new().load(&format!("services:\n{chain}  s{}: {{}}\n", files::MAX_EXTENDS_DEPTH + 2)));
    assert!(text.contains("over more than 64 levels"), "{text}");

    let files: Vec<(&str, &str)> = vec![("a.yaml", "{}"); files::MAX_FILES + 1];
    assert!(text_of(&Shop::new().load_all(&files)).contains("there are 101 compose files"));
    let tags = format!(
        "services: {{a: {{command: [a], environment: {{{}}}}}}}",
        (0..=1000).map(|i| format!("A{i}: !reset x")).collect::<Vec<_>>().join(", ")
    );
    assert!(text_of(&Shop::new().load(&tags)).contains("too many `!reset`"));
}
