//! What a file asks of the proxy: routes and their rules, balancing, limits.

use super::*;
use crate::{
    compose::doctor::{Level, findings},
    spec::{Policy, ProxyHeader, ResourceLimits, Route, TrustedProxy},
};

/// One mistake each, as in [`super::mistakes`]; with everything that is said of it.
const MISTAKES: &[&str] = &[
    "x-bulsa: {balance: {policy: stiky}}",
    "x-bulsa: {balance: {polcy: sticky}}",
    "x-bulsa: {balance: {max_fails: -1}}",
    "x-bulsa: {balance: {fail_timeout: 0s}}",
    "x-bulsa: {balance: {slow_start: 2h}}",
    "x-bulsa: {balance: {weight: 0}}",
    "x-bulsa: {balance: {weight: 1001}}",
    "x-bulsa: {balance: {weight: []}}",
    "x-bulsa: {balance: {weight: [1, x]}}",
    "x-bulsa: {balance: {max_conns: many}}",
    "x-bulsa: {balance: {max_requests: 1000001}}",
    "x-bulsa: {timeouts: {first_byte: 10}}",
    "x-bulsa: {timeouts: {first_bite: 10s}}",
    "x-bulsa: {timeouts: {tunnel_life: 31d}}",
    "x-bulsa: {hold: {page: gone.html}}",
    "x-bulsa: {hold: {page: long.html}}",
    "x-bulsa: {hold: {page: ''}}",
    "x-bulsa: {hold: {page: [a]}}",
    "x-bulsa: {access_log: sometimes}",
    "x-bulsa: {acces_log: true}",
    "x-bulsa: {access_log: true, route: {protocol: tcp}}",
    "x-bulsa: {route: {path: a}}",
    "x-bulsa: {route: {path: '/a?b'}}",
    "x-bulsa: {route: {host: 'http://a'}}",
    "x-bulsa: {route: {protocol: tls}}",
    "x-bulsa: {route: []}",
    "x-bulsa: {route: web}",
    "x-bulsa: {route: [{host: a.b}, {hots: c.d}]}",
    "x-bulsa: {route: [{host: a.b, path: /x}, {host: A.b, path: /x/}]}",
    "x-bulsa: {route: [{host: a.b, protocol: http}, {host: c.d, protocol: http}]}",
    "x-bulsa: {route: {strip_prefix: true}}",
    "x-bulsa: {route: {path: /, strip_prefix: yes}}",
    "x-bulsa: {route: {redirect: shop.example}}",
    "x-bulsa: {route: {redirect: 'https://{hst}{path}'}}",
    "x-bulsa: {route: {redirect: 'https://a.b/{path'}}",
    "x-bulsa: {route: {redirect: 'https://a b'}}",
    "x-bulsa: {route: {redirect: '//a.b'}}",
    "x-bulsa: {route: {redirect: {status: 301}}}",
    "x-bulsa: {route: {redirect: {to: /x, status: 200}}}",
    "x-bulsa: {route: {redirect: {to: /x, code: 301}}}",
    "x-bulsa: {route: {path: /x, strip_prefix: true, redirect: /y}}",
    "x-bulsa: {route: {redirect: /y, request_headers: {A: b}}}",
    "x-bulsa: {route: {request_headers: [A]}}",
    "x-bulsa: {route: {request_headers: {Host: a.b}}}",
    "x-bulsa: {route: {request_headers: {'A B': c}}}",
    "x-bulsa: {route: {response_headers: {A: [b]}}}",
    "x-bulsa: {route: {response_headers: {A: é}}}",
    "x-bulsa: {route: {response_headers: {A: \"b\\nC: d\"}}}",
    "x-bulsa: {route: {response_headers: {A: b, a: c}}}",
    "x-bulsa: {route: {proxy_protocol: [10.0.0.0/33]}}",
    "x-bulsa: {route: {proxy_protocol: true}}",
    "x-bulsa: {route: {send_proxy: v3}}",
    "x-bulsa: {route: {send_proxy: v1, protocol: http}}",
    "x-bulsa: {route: {protocol: tcp, host: a.b}}",
    "x-bulsa: {route: {protocol: tcp, path: /a}}",
    "x-bulsa: {route: {protocol: tcp, path: /a, strip_prefix: false}}",
    "x-bulsa: {route: {protocol: tcp, redirect: /a}}",
    "x-bulsa: {route: {protocol: tcp, response_headers: {A: b}}}",
    "x-bulsa: {route: {protocol: tcp}, balance: {policy: sticky}}",
    "x-bulsa: {route: {protocol: tcp}, balance: {max_requests: 1}}",
    "x-bulsa: {route: {protocol: tcp}, timeouts: {first_byte: 1s}}",
    "x-bulsa: {route: {protocol: tcp}, hold: {page: held.html}}",
];

#[test]
fn each_mistake_is_one_error_at_its_place() {
    let long = "x".repeat(64 * 1024 + 1);
    let shop = Shop::new().file("/srv/shop/long.html", &long).file("/srv/shop/held.html", "soon");
    let mut all = String::new();
    for lines in MISTAKES {
        let loaded = shop.load(&web_file(lines));
        let errors = loaded.diagnostics.list();
        assert_eq!(errors.len(), 1, "{lines}\n{}", loaded.diagnostics);
        assert!(loaded.diagnostics.has_errors(), "{lines}");
        all += &format!("{lines}\n  {}\n", loaded.diagnostics.to_string().replace("compose.yaml:", ""));
    }
    insta::assert_snapshot!(all);
}

fn routes(lines: &str) -> Vec<String> {
    let web = Shop::new().web(&format!("ports: ['80:3000']\n{lines}"));
    let text = |route: &Route| {
        let redirect = route.rules.redirect.as_ref().map(|to| format!(" {} {}", to.status, to.to));
        format!("{:?} {}{}", route.host, route.path, redirect.unwrap_or_default())
    };
    web.routing.routes.iter().map(text).collect()
}

#[test]
fn a_service_has_one_route_or_a_list_of_them() {
    assert_eq!(routes(""), ["None /"]);
    assert_eq!(routes("x-bulsa: {route: {}}"), ["None /"]);
    assert_eq!(routes("x-bulsa: {route: {protocol: tcp}}"), ["None /"]);
    assert_eq!(routes("x-bulsa: {route: {path: /api/}}"), ["None /api/"]);
    let apex = "\
x-bulsa:
  route:
    - host: shop.example
    - host: WWW.shop.example
      redirect: http://shop.example{path}{query}
    - {path: /old, redirect: {to: '/new{path}', status: 301}}
";
    assert_eq!(
        routes(apex),
        [
            "Some(\"shop.example\") /",
            "Some(\"www.shop.example\") / 308 http://shop.example{path}{query}",
            "None /old 301 /new{path}"
        ]
    );
}

#[test]
fn header_rules_are_in_the_order_of_their_names_and_numbers_are_taken_as_written() {
    let lines = "\
ports: ['80:3000']
x-bulsa:
  route:
    response_headers:
      X-XSS-Protection: 0
      strict-transport-security: max-age=31536000
      Server:
      Content-Security-Policy: >
        default-src 'self';
        img-src *
      X-Version: 1.10
";
    let web = Shop::new().web(lines);
    let rules = web.routing.routes[0].rules.response_headers.iter();
    let rules: Vec<_> = rules.map(|rule| (rule.name.as_str(), rule.value.as_deref())).collect();
    assert_eq!(
        rules,
        [
            ("Content-Security-Policy", Some("default-src 'self'; img-src *")),
            ("Server", None),
            ("strict-transport-security", Some("max-age=31536000")),
            ("X-Version", Some("1.10")),
            ("X-XSS-Protection", Some("0")),
        ]
    );
}

#[test]
fn every_policy_has_its_name() {
    for (name, policy) in [
        ("round_robin", Policy::RoundRobin),
        ("least_conn", Policy::LeastConn),
        ("two_choices", Policy::TwoChoices),
        ("ip_hash", Policy::IpHash),
        ("sticky", Policy::Sticky),
    ] {
        assert_eq!(
            Shop::new().web(&format!("x-bulsa: {{balance: {{policy: {name}}}}}")).balance.policy,
            policy
        );
    }
    assert_eq!(Shop::new().web("x-bulsa: {balance: {weight: 3}}").balance.weights, [3]);
    let tcp =
        Shop::new().web("x-bulsa: {route: {protocol: tcp, send_proxy: v2}, balance: {policy: ip_hash}}");
    assert_eq!((tcp.routing.send_proxy, tcp.balance.policy), (Some(ProxyHeader::V2), Policy::IpHash));
}

#[test]
fn limits_are_the_projects_and_zero_is_none() {
    let limit = |top: &str| {
        let spec = Shop::new().spec(&format!("{top}services: {{a: {{command: x}}}}\n"));
        spec.limits.connections_per_address
    };
    assert_eq!(limit(""), 4096);
    assert_eq!(limit("x-bulsa: {limits: {connections_per_address: 0}}\n"), 0);
    let loaded = Shop::new().load(
        "x-bulsa: {limits: {conections: 1, connections_per_address: -1}}\nservices: {a: {command: x}}\n",
    );
    insta::assert_snapshot!(loaded.diagnostics, @"
    compose.yaml:1:20: error: x-bulsa.limits: there is no key `conections`
      hint: did you mean `connections_per_address`?
    compose.yaml:1:60: error: x-bulsa.limits.connections_per_address is the number -1
      expected: a whole number from 0 to 1000000
    ");
}

#[test]
fn without_a_port_there_is_no_route_and_the_hash_is_the_one_of_before() {
    let web = |lines: &str| Shop::new().web(lines).routing;
    assert_eq!(web("x-bulsa: {route: {host: a.b, path: /x}}").routes, [Route::default()]);
    let proxied = "x-bulsa: {route: {proxy_protocol: [loopback]}}";
    assert_eq!(web(proxied).proxy_from, []);
    assert_eq!(web(&format!("ports: ['80:1']\n{proxied}")).proxy_from, [TrustedProxy::Loopback]);
}

#[test]
fn a_page_is_read_from_where_its_file_says() {
    let shop = Shop::new()
        .file("/srv/shop/held.html", "<h1>Soon</h1>")
        .file("/srv/shop/sub/held.html", "<h1>Sub</h1>")
        .file(
            "/srv/shop/sub/base.yaml",
            "services: {web: {command: x, x-bulsa: {hold: {page: held.html}}}}\n",
        );
    let page = |lines: &str| shop.web(lines).hold.page;
    assert_eq!(page("x-bulsa: {hold: {page: ./held.html}}").as_deref(), Some("<h1>Soon</h1>"));
    assert_eq!(page("x-bulsa: {hold: {time: 1s}}"), None);
    assert_eq!(page("extends: {file: sub/base.yaml, service: web}").as_deref(), Some("<h1>Sub</h1>"));
}

#[test]
fn a_process_has_limits_by_the_short_keys_and_the_long_ones() {
    let shop = Shop::new();
    let all = ResourceLimits { millicpus: Some(1500), memory: Some(256 << 20), pids: Some(100) };
    let limits = |lines: &str| shop.web(lines).resources;
    assert_eq!(limits("cpus: 1.5\nmem_limit: 256m\npids_limit: 100"), all);
    assert_eq!(limits("deploy: {resources: {limits: {cpus: '1.5', memory: 256M, pids: 100}}}"), all);
    assert!(limits("cpus: 0\nmem_limit: 0\npids_limit: -1").is_empty(), "no limits, as to the Engine");
    let care = shop.web("mem_limit: 100m\nx-bulsa: {recycle: {memory: 80%}}").care;
    assert_eq!(care.memory, Some(80 << 20));
}

#[test]
fn a_drill_finds_the_path_that_blocks_the_app() {
    let shop = Shop::new();
    assert_eq!(shop.web("x-bulsa: {}").drill_block, None);
    assert_eq!(
        shop.web("x-bulsa: {drill: {block: '/drill?ms=60000'}}").drill_block.as_deref(),
        Some("/drill?ms=60000")
    );
    assert!(shop.complaints("x-bulsa: {drill: {block: drill}}")[0].contains("is no path of a URL"));
    assert!(shop.complaints("x-bulsa: {drill: {blok: /drill}}")[0].contains("there is no key `blok`"));
}

#[test]
fn a_service_has_an_access_log_where_its_file_says_so() {
    let shop = Shop::new();
    assert!(!shop.web("x-bulsa: {}").access_log && !shop.web("x-bulsa: {access_log: false}").access_log);
    assert!(shop.web("x-bulsa: {access_log: true}").access_log);
    let tcp = "x-bulsa: {access_log: false, route: {protocol: tcp}}";
    assert!(!shop.web(tcp).access_log, "nothing is asked of plain TCP");
}

#[test]
fn routes_of_two_files_are_one_list_and_one_of_them_may_override() {
    let base = "services: {web: {command: x, ports: ['80:1'], x-bulsa: {route: [{host: a.b}]}}}\n";
    let over = |route: &str| {
        let over = format!("services: {{web: {{x-bulsa: {{route: {route}}}}}}}\n");
        let loaded = Shop::new().load_all(&[("compose.yaml", base), ("over.yaml", &over)]);
        assert!(loaded.spec.is_some(), "{}", loaded.diagnostics);
        let routes = loaded.spec.unwrap().services["web"].routing.routes.clone();
        routes.into_iter().filter_map(|route| route.host).collect::<Vec<_>>()
    };
    assert_eq!(over("[{host: c.d}]"), ["a.b", "c.d"]);
    assert_eq!(over("!override {host: c.d}"), ["c.d"]);
}

#[test]
fn services_on_one_port_share_no_route_and_speak_http() {
    let clash = |a: &str, b: &str| {
        let text = format!(
            "services:\n  a: {{command: x, ports: ['80:1'], x-bulsa: {{route: {a}}}}}\n  b: {{command: x, ports: ['80:2'], x-bulsa: {{route: {b}}}}}\n"
        );
        Shop::new().load(&text).diagnostics.to_string()
    };
    assert_eq!(clash("[{host: a.b}, {host: c.d}]", "[{host: e.f}, {host: a.b, path: /x}]"), "");
    assert_eq!(clash("{path: /api, strip_prefix: true}", "{}"), "");
    insta::assert_snapshot!(clash("[{host: a.b}, {host: c.d, path: /x}]", "[{host: c.d, path: /x/}]"), @"
    compose.yaml:3:27: error: services.b.ports: port 80 is published by `a` too
      hint: the other one is at compose.yaml:2:27; take another port, or give the services different `x-bulsa.route`s
    ");
    insta::assert_snapshot!(clash("{protocol: tcp}", "{host: a.b}"), @"
    compose.yaml:3:27: error: services.b.ports: port 80 is published by `a` too
      hint: the other one is at compose.yaml:2:27; take another port: `a` is plain TCP, which has no hosts and paths to tell services apart by
    ");
}

#[test]
fn what_is_asked_of_the_proxy_in_vain_is_found_by_the_check() {
    let found = |lines: &str| {
        let found =
            findings(&Shop::new().load(&web_file(&format!("healthcheck: {{test: [CMD, x]}}\n{lines}"))));
        let found = found.into_iter().filter(|it| it.level < Level::Note);
        found
            .map(|it| format!("{} {}: {}", it.position, it.level.word(), it.what))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let port = "ports: ['80:1']\n";
    insta::assert_snapshot!(found(&format!("{port}x-bulsa: {{balance: {{policy: sticky, weight: 2}}}}")), @"
    compose.yaml:5:25 warning: `policy: sticky` of `web` has no effect: it has one replica
    compose.yaml:5:41 warning: `weight` of `web` has no effect: it has one replica
    ");
    insta::assert_snapshot!(found(&format!("{port}scale: 2\nx-bulsa: {{balance: {{policy: sticky, weight: [3, 2, 1]}}}}")), @"compose.yaml:6:41 warning: `web` has 3 weights and 2 replicas");
    insta::assert_snapshot!(found("x-bulsa: {route: {host: a.b, protocol: http}}"), @"compose.yaml:4:23 warning: `route.host` of `web` has no effect: Bulsa publishes no port of it");
    assert_eq!(
        found(&format!("{port}scale: 2\nx-bulsa: {{balance: {{policy: sticky, weight: [3, 1]}}}}")),
        ""
    );
    assert_eq!(found(&format!("{port}x-bulsa: {{balance: {{policy: least_conn, max_fails: 0}}}}")), "");
    assert_eq!(found("x-bulsa: {route: {protocol: tcp, send_proxy: v1}}"), "");
}
