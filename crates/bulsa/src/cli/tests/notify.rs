//! What is shown of messages that don't arrive, and of those that were tried.

use bulsa_core::wire::api::{NotifyTested, NotifyView};

use super::*;
use crate::cli::notify as command;

#[test]
fn urls_that_take_no_message_are_shown_and_the_others_not() {
    let clock = Clock::fixed(NOW_MS);
    let mut untold = busy_snapshot();
    untold.projects[0].notify = vec![
        NotifyView { kind: "json".to_owned(), sent: 9, ..NotifyView::default() },
        NotifyView {
            kind: "slack".to_owned(),
            target: "https://hooks.slack.com/…".to_owned(),
            waiting: 3,
            sent: 2,
            given_up: 1,
            last_sent_at_ms: Some(NOW_MS - 60_000),
            error: Some("no answer within 10 s".to_owned()),
            next_try_at_ms: Some(NOW_MS + 5_000),
        },
    ];
    insta::assert_snapshot!("status", plain(&status::status_text(&untold, &clock)));
    let tested = |accepted: bool, error: Option<&str>| NotifyTested {
        kind: "slack".to_owned(),
        target: "https://hooks.slack.com/…".to_owned(),
        accepted,
        status: accepted.then_some(200),
        error: error.map(str::to_owned),
        hint: error.map(|_| "look at the host in the URL".to_owned()),
    };
    let tested = [tested(true, None), tested(false, Some("can't connect: connection refused"))];
    insta::assert_snapshot!("test", plain(&command::tested_text(&tested)));
}

#[tokio::test]
async fn a_project_that_tells_nobody_says_how_to_change_that_and_a_wrong_url_is_not_repeated() {
    let daemon = Daemon::start().await;
    daemon.publish(|_| {});
    let dir = project_dir();
    let socket = daemon.client.socket();
    let ran = bulsa(&["notify", "test"], dir.path(), socket).await;
    assert_eq!(ran.code(), 1);
    let text = format!("{:?}", ran.error());
    assert!(text.contains("tells nobody") && text.contains("x-bulsa"), "{text}");
    let ran = bulsa(&["notify", "test", "--url", "hooks.example/secret"], dir.path(), socket).await;
    let text = format!("{:?}", ran.error());
    assert!(ran.code() == 1 && !text.contains("secret"), "{text}");
}
