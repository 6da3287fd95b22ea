use super::*;
use crate::wire::api::Event;

fn event(detail: Option<Detail>) -> Event {
    Event {
        id: 1,
        at_ms: 1,
        project: "shop".to_owned(),
        kind: "x".to_owned(),
        service: None,
        replica: None,
        text: String::new(),
        detail,
    }
}

fn deployment(kind: DeployKind, outcome: Outcome) -> Option<Detail> {
    Some(Detail::Deployment { kind, outcome, deployment: Some(1), release: Some(2), serving: true })
}

#[test]
fn a_rollback_is_one_whoever_wanted_it() {
    let topic = |detail| Topic::of(&event(detail));
    assert_eq!(topic(deployment(DeployKind::Deploy, Outcome::Deployed)), Some(Topic::Deploy));
    assert_eq!(topic(deployment(DeployKind::Deploy, Outcome::Failed)), Some(Topic::Deploy));
    assert_eq!(topic(deployment(DeployKind::Deploy, Outcome::RolledBack)), Some(Topic::Rollback));
    assert_eq!(topic(deployment(DeployKind::Rollback, Outcome::Deployed)), Some(Topic::Rollback));
    assert_eq!(
        topic(Some(Detail::Incident { incident: Some(1), cause: "hung".to_owned() })),
        Some(Topic::Incident)
    );
    assert_eq!((topic(None), topic(Some(Detail::Unknown))), (None, None));
}

#[test]
fn a_detail_of_a_later_version_is_read_as_unknown() {
    let text = r#"{"id":1,"at_ms":2,"kind":"x","text":"y","detail":{"of":"weather","rain":true}}"#;
    let event: Event = serde_json::from_str(text).unwrap();
    assert_eq!(event.detail, Some(Detail::Unknown));
    let old: Event = serde_json::from_str(r#"{"id":1,"at_ms":2,"kind":"x","text":"y"}"#).unwrap();
    assert_eq!(old.detail, None);
}

#[test]
fn a_host_says_which_format_it_takes() {
    for (host, format) in [
        ("hooks.slack.com", Format::Slack),
        ("discord.com", Format::Discord),
        ("ptb.discord.com", Format::Discord),
        ("notdiscord.com", Format::Json),
        ("hooks.slack.com.evil.example", Format::Json),
    ] {
        assert_eq!(Format::of_host(host), format, "{host}");
    }
}

#[test]
fn a_url_shows_its_host_and_nothing_else() {
    for (text, shown) in [
        ("https://hooks.slack.com/services/T0/B0/secret", "https://hooks.slack.com/…"),
        ("https://user:secret@Example.com:8443/?key=secret", "https://example.com:8443/…"),
        ("http://127.0.0.1:9/", "http://127.0.0.1:9/"),
        ("HTTP://[::1]/a#secret", "http://[::1]/…"),
    ] {
        let url = SecretUrl::parse(text).unwrap();
        assert_eq!(url.to_string(), shown);
        assert!(!format!("{url:?}").contains("secret"), "{url:?}");
        assert_eq!(url.expose(), text);
    }
}

#[test]
fn what_can_not_be_called_is_refused_without_saying_it() {
    for (text, error) in [
        ("", UrlError::Empty),
        ("hooks.slack.com/secret", UrlError::Scheme),
        ("ftp://example.com/", UrlError::Scheme),
        ("https://", UrlError::Malformed),
        ("https://a b/", UrlError::Malformed),
        ("https://exa\nmple.com/", UrlError::Malformed),
        ("https://example.com:99999/", UrlError::Malformed),
    ] {
        assert_eq!(SecretUrl::parse(text), Err(error), "{text}");
    }
    assert_eq!(SecretUrl::parse(&format!("https://a/{}", "x".repeat(3000))), Err(UrlError::Long));
    assert!(SecretUrl::parse("日本語日本語日本語").is_err(), "no character is cut in two");
}
