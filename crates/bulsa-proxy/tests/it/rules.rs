//! What a route does besides leading to a service.

use bulsa_proxy::{HeaderRule, Redirect, Route, Rules};

use crate::support::*;

fn set(name: &str, value: Option<&str>) -> HeaderRule {
    HeaderRule { name: name.into(), value: value.map(str::to_owned) }
}

#[tokio::test]
async fn a_redirect_is_answered_without_asking_anybody() {
    let mut table = table(1, &[]);
    let mut route = Route::new(Some("www.shop.example"), "/", 0);
    let to = "https://shop.example{path}{query}".into();
    route.rules = Rules { redirect: Some(Redirect { status: 301, to }), ..Rules::default() };
    table.listeners[0].routes.push(route);
    let rig = Rig::new(&table).await;
    let answer = ask(rig.addr, "GET /a/b?c HTTP/1.1\r\nHost: www.shop.example\r\n\r\n").await;
    assert_eq!(answer.status(), 301);
    assert_eq!(answer.field("location"), "https://shop.example/a/b?c");
}

#[tokio::test]
async fn a_prefix_is_taken_off_and_told() {
    let backend = Backend::saying("x").await;
    let mut table = table(1, &[backend.target("a")]);
    let mut route = Route::new(None, "/api", 0);
    route.rules.strip_prefix = true;
    table.listeners[0].routes.push(route);
    let rig = Rig::new(&table).await;
    rig.get("/api/users?page=2").await;
    rig.get("/other").await;
    let seen = backend.seen.all();
    assert_eq!(seen[0].line(), "GET /users?page=2 HTTP/1.1");
    assert_eq!(seen[0].field("x-forwarded-prefix"), "/api");
    assert_eq!(seen[1].line(), "GET /other HTTP/1.1");
    assert_eq!(seen[1].field("x-forwarded-prefix"), "");
}

#[tokio::test]
async fn fields_are_set_and_removed_both_ways() {
    let backend = Backend::serving(|mut wire, seen| async move {
        while seen.next(&mut wire).await.is_some() {
            wire.write("HTTP/1.1 200 OK\r\nServer: secret/1.0\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let mut table = table(1, &[backend.target("a")]);
    table.listeners[0].routes[0].rules = Rules {
        request_headers: vec![set("X-Tenant", Some("a")), set("Cookie", None)],
        response_headers: vec![set("Server", None), set("X-Frame-Options", Some("DENY"))],
        ..Rules::default()
    };
    let rig = Rig::new(&table).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Tenant: forged\r\nCookie: a=b\r\n\r\n";
    let answer = ask(rig.addr, request).await;
    assert_eq!((answer.field("server"), answer.field("x-frame-options")), ("".into(), "DENY".into()));
    let seen = &backend.seen.all()[0];
    assert_eq!((seen.field("x-tenant"), seen.field("cookie")), ("a".into(), "".into()));
}

#[tokio::test]
async fn every_request_has_an_id_that_a_stranger_cannot_choose() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    ask(rig.addr, "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n\r\n").await;
    rig.get("/").await;
    let ids: Vec<_> = backend.seen.all().iter().map(|seen| seen.field("x-request-id")).collect();
    assert!(ids.iter().all(|id| id.len() == 32), "{ids:?}");
    assert_ne!(ids[0], ids[1]);
}
