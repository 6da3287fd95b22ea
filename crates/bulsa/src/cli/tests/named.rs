//! Which project a command takes that deploys none.

use super::*;

fn dir_with(file: &str, text: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(file), text).unwrap();
    dir
}

#[tokio::test]
async fn a_file_names_its_project_and_never_the_only_one_that_runs() {
    let mut daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    daemon.publish(|project| {
        project.services = vec![service("web", ServiceState::Healthy, 2, Vec::new())];
    });
    let (shop, blog) = (project_dir(), dir_with("compose.yaml", "name: blog\nservices: {web: {image: x}}\n"));
    let file = blog.path().join("compose.yaml");
    let there = ["-f", file.to_str().unwrap()];
    for words in [
        &["down"][..],
        &["stop", "web"],
        &["start", "web"],
        &["restart", "web"],
        &["scale", "web=1"],
        &["rollback"],
        &["releases"],
        &["wait"],
        &["logs"],
    ] {
        for (before, directory) in [(&[][..], &blog), (&there[..], &shop)] {
            let ran = bulsa(&[before, words].concat(), directory.path(), &socket).await;
            assert_eq!(ran.code(), 1, "{words:?}");
            for text in ["doesn't run `blog`, the project of ", "compose.yaml; it runs `shop`"] {
                assert!(ran.error().message.contains(text), "{words:?}: {:?}", ran.error());
            }
            assert!(ran.error().hints.iter().any(|hint| hint.contains("-p NAME")), "{:?}", ran.error());
        }
    }
    assert!(daemon.requests.try_recv().is_err(), "something was asked");
    // Its own file means it from everywhere, and so does its name.
    let file = shop.path().join("compose.yaml");
    for before in [["-f", file.to_str().unwrap()], ["-p", "shop"]] {
        let so = Answer::AlreadySo { text: "it is going down".to_owned(), notes: Vec::new() };
        let words = [&before[..], &["down"]].concat();
        let (ran, request) = tokio::join!(bulsa(&words, blog.path(), &socket), answer_next(&mut daemon, so));
        assert_eq!(ran.code(), 0);
        assert_eq!(request, Request::Down { project: "shop".to_owned() });
    }
    // Those that show all of them go on to do so.
    assert_eq!(bulsa(&["status"], blog.path(), &socket).await.code(), 0);
    assert_eq!(bulsa(&["ps"], blog.path(), &socket).await.code(), 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_stops_what_changes_something() {
    let mut daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    daemon.publish(|_| {});
    let dir = dir_with("compose.yaml", "name: shop\nservices: {web: [\n");
    let ran = bulsa(&["down"], dir.path(), &socket).await;
    assert_eq!(ran.code(), 1);
    let error = ran.error();
    assert!(error.message.contains("which project is meant: compose.yaml can't be read"), "{error:?}");
    assert!(error.causes[0].contains("compose.yaml:"), "{error:?}");
    assert!(error.hints[0].contains("-p NAME") && error.hints[0].contains("`shop`"), "{error:?}");
    assert!(daemon.requests.try_recv().is_err(), "something was asked");
    assert_eq!(bulsa(&["releases"], dir.path(), &socket).await.code(), 0);
    assert_eq!(bulsa(&["-f", "compose.yaml", "releases"], dir.path(), &socket).await.code(), 1);
    // What is wrong in the rest of the file doesn't matter.
    fs::write(dir.path().join("compose.yaml"), "name: shop\nservices: {web: {restrat: 1}}\n").unwrap();
    let so = Answer::AlreadySo { text: "it is going down".to_owned(), notes: Vec::new() };
    let (ran, _) = tokio::join!(bulsa(&["down"], dir.path(), &socket), answer_next(&mut daemon, so));
    assert_eq!(ran.code(), 0);
}
