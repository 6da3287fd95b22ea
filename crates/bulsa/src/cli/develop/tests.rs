use bulsa_core::compose::develop::{Copied, WatchRule};

use super::*;

fn rule(service: &str, action: WatchAction, path: &str, ignore: &[&str], include: &[&str]) -> WatchRule {
    let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    WatchRule {
        service: service.to_owned(),
        action,
        path: path.to_owned(),
        ignore: all(ignore),
        include: all(include),
        copied: None,
        exec: None,
    }
}

fn copying(rule: WatchRule) -> WatchRule {
    let copied = Copied { target: "/app".to_owned(), base: "/".to_owned(), initial: false };
    WatchRule { copied: Some(copied), ..rule }
}

fn develop(rules: Vec<WatchRule>, files: FileArgs) -> Result<Develop, CommandError> {
    let watched = Watched { rules, ..Watched::default() };
    Develop::new(watched, &Spec::default(), files, "/nowhere".into())
}

fn changed(files: &[&str], directories: &[&str]) -> Changed {
    let all = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
    Changed { files: all(files), directories: all(directories) }
}

fn due(develop: &Develop, files: &[&str], directories: &[&str]) -> Vec<String> {
    let due = develop.due(&changed(files, directories));
    due.into_iter().map(|(name, due)| format!("{name} {:?} {}", due.action, due.copies.len())).collect()
}

#[test]
fn a_change_is_the_affair_of_the_rules_that_it_is_in_and_the_larger_action_wins() {
    let rules = vec![
        rule("web", WatchAction::Restart, "/app/src", &["*.test.js", "gen/"], &[]),
        rule("web", WatchAction::Rebuild, "/app/src/package.json", &[], &[]),
        rule("api", WatchAction::Restart, "/app", &[], &["*.py"]),
    ];
    let develop = develop(rules, FileArgs::default()).unwrap();
    let due = |paths: &[&str]| due(&develop, paths, &[]);
    assert_eq!(due(&["/app/src/a.js"]), ["web Restart 0"]);
    assert_eq!(due(&["/app/src/a.js", "/app/src/package.json"]), ["web Rebuild 0"]);
    assert_eq!(due(&["/app/src/a.test.js", "/app/src/gen/x.js", "/other/a.js"]), [""; 0]);
    assert_eq!(due(&["/app/src/a.py"]), ["api Restart 0", "web Restart 0"]);
}

#[test]
fn directories_are_copied_and_restart_nothing() {
    let rules = vec![
        copying(rule("web", WatchAction::Restart, "/app/src", &["gen/"], &[])),
        rule("web", WatchAction::Rebuild, "/app", &[], &[]),
    ];
    let develop = develop(rules, FileArgs::default()).unwrap();
    assert_eq!(due(&develop, &[], &["/app/src/new", "/app/src/gen"]), ["web Sync 1"]);
    assert_eq!(due(&develop, &[], &["/app/other"]), [""; 0]);
    assert_eq!(due(&develop, &["/app/src/a.js"], &[]), ["web Rebuild 1"]);
}

#[test]
fn what_editors_write_on_the_way_and_what_the_build_leaves_out_is_not_copied() {
    let ignore = Ignore::parse("*\n!src\nsrc/*.key").unwrap();
    let copied = copying(rule("web", WatchAction::Sync, "/app/src", &[], &[]));
    let copied = Rule::new(copied, Some(("/app".into(), ignore))).unwrap();
    let of = |paths: &[&str]| copied.of(&changed(paths, &[])).files;
    assert_eq!(
        of(&["/app/src/a.js", "/app/src/.a.js.swp", "/app/src/a.key", "/app/b.js"]),
        [PathBuf::from("/app/src/a.js")]
    );
    // A restart without a copy goes by what the file says alone.
    let restarts = Rule::new(rule("web", WatchAction::Restart, "/app", &[], &[]), None).unwrap();
    assert_eq!(restarts.of(&changed(&["/app/a.js~"], &[])).files.len(), 1);
}

#[test]
fn a_file_without_rules_has_nothing_to_watch_for() {
    let error = develop(Vec::new(), FileArgs::default()).err().unwrap();
    assert!(error.message.contains("develop.watch"), "{error:?}");
}

#[test]
fn a_rebuild_is_a_deploy_of_the_same_files() {
    let files =
        FileArgs { files: vec!["a.yaml".into()], profiles: vec!["dev".to_owned()], ..FileArgs::default() };
    let rules = vec![rule("web", WatchAction::Rebuild, "/app", &[], &[])];
    let words = develop(rules, files).unwrap().deploy_words(Path::new("/s"), "shop", "web");
    let expected = ["--socket", "/s", "-p", "shop", "deploy", "--file", "a.yaml", "--profile", "dev", "web"];
    assert_eq!(words, expected.map(OsString::from));
}

#[test]
fn numbers_are_told_as_people_say_them() {
    assert_eq!((count(1, "file"), count(0, "file")), ("1 file".to_owned(), "0 files".to_owned()));
}
