use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use super::*;

const SUBJECT: Subject<'_> = Subject { service: "web", position: "compose.yaml:4:3" };

/// Somebody who owns nothing here, whoever runs the test.
fn nobody() -> Account {
    Account {
        uid: 54_321,
        gid: 54_321,
        groups: vec![],
        name: Some("nobody".to_owned()),
        home: "/".to_owned(),
    }
}

/// A directory that everybody may enter, with `bin/tool` (0755), `bin/plain` (0644) and `app` (0755).
fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(place.path().join("bin")).unwrap();
    for (name, mode, text) in
        [("bin/tool", 0o755, "#!/bin/sh\n"), ("bin/plain", 0o644, ""), ("app", 0o755, "#! /bin/sh\n")]
    {
        write(&place, name, mode, text);
    }
    place
}

fn write(place: &TempDir, name: &str, mode: u32, text: &str) {
    let path = place.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn look(place: &TempDir, program: &str, account: Option<&Account>) -> Result<PathBuf, String> {
    let path = format!("/nowhere:{}", place.path().join("bin").display());
    let wanted = Wanted { program, working_dir: place.path(), path: &path, account };
    resolve(SUBJECT, &wanted).map_err(|problem| problem.to_string())
}

#[track_caller]
fn assert_says(result: Result<PathBuf, String>, parts: &[&str]) {
    let error = result.unwrap_err();
    assert!(error.starts_with("compose.yaml:4:3: service `web`: "), "{error}");
    for part in parts {
        assert!(error.contains(part), "`{part}` isn't in: {error}");
    }
}

#[test]
fn a_program_is_found_absolute_relative_and_through_path() {
    let place = place();
    let tool = place.path().join("bin/tool");
    assert_eq!(look(&place, tool.to_str().unwrap(), None), Ok(tool.clone()));
    assert_eq!(look(&place, "tool", None), Ok(tool));
    assert_eq!(look(&place, "./app", None), Ok(place.path().join("./app")));
    assert_eq!(look(&place, "bin/tool", Some(&nobody())), Ok(place.path().join("bin/tool")));
}

#[test]
fn a_missing_program_is_an_error_that_says_where_it_was_looked_for() {
    let place = place();
    assert_says(look(&place, "nodee", None), &["`nodee` is nowhere in PATH (/nowhere:", "install it"]);
    assert_says(look(&place, "app", None), &["write `./app`"]);
    assert_says(look(&place, "./serve", None), &["./serve", "from its working directory", "No such file"]);
    assert_says(look(&place, "/nowhere/x", None), &["/nowhere/x", "No such file"]);
    assert_says(look(&place, "", None), &["command is empty"]);
    assert_says(look(&place, "./bin", None), &["is a directory"]);
}

#[test]
fn a_file_that_may_not_be_executed_is_an_error_with_the_remedy() {
    let place = place();
    assert_says(look(&place, "plain", None), &["bin/plain may not be executed by user ", "chmod a+x"]);
    assert_says(look(&place, "bin/plain", Some(&nobody())), &["executed by user `nobody`"]);
}

#[test]
fn a_program_behind_a_closed_door_is_an_error_that_names_the_door() {
    let place = place();
    fs::create_dir(place.path().join("closed")).unwrap();
    write(&place, "closed/tool", 0o755, "");
    fs::set_permissions(place.path().join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(look(&place, "closed/tool", None), Ok(place.path().join("closed/tool")));
    assert_says(look(&place, "closed/tool", Some(&nobody())), &["may not run", "/closed is closed to it"]);

    let wanted = Wanted {
        program: "sh",
        working_dir: &place.path().join("closed"),
        path: "/bin",
        account: Some(&nobody()),
    };
    assert!(resolve(SUBJECT, &wanted).unwrap_err().problem.contains("may not enter its working directory"));
}

#[test]
fn a_working_directory_must_be_one() {
    let place = place();
    for (working_dir, part) in
        [("/nowhere/at/all", "No such file"), (place.path().join("app").to_str().unwrap(), "is no directory")]
    {
        let wanted =
            Wanted { program: "sh", working_dir: Path::new(working_dir), path: "/bin", account: None };
        let problem = resolve(SUBJECT, &wanted).unwrap_err();
        assert!(problem.problem.contains(part) && problem.hint.contains("working_dir"), "{problem}");
    }
}

#[test]
fn a_script_whose_interpreter_is_missing_is_an_error_that_names_it() {
    let place = place();
    write(&place, "bin/script", 0o755, "#!/nowhere/python9 -u\n");
    assert_says(look(&place, "script", None), &["asks for `/nowhere/python9` in its first line"]);
    write(&place, "bin/dos", 0o755, "#!/bin/sh\r\necho\r\n");
    assert_says(look(&place, "dos", None), &["carriage return"]);
}

#[test]
fn shebang_lines_are_read_as_the_kernel_does() {
    let read = |text: &[u8]| parse_shebang(text);
    assert_eq!(read(b"#!/bin/sh\nx").as_deref(), Some("/bin/sh"));
    assert_eq!(read(b"#! \t/usr/bin/env node").as_deref(), Some("/usr/bin/env"));
    for none in [&b""[..], b"#", b"#!", b"#!  \n", b"\x7fELF", b"/bin/sh"] {
        assert_eq!(read(none), None, "{none:?}");
    }
}

#[test]
fn the_first_class_that_applies_decides() {
    assert!(execute_bits(0o700, true, false) && !execute_bits(0o077, true, true));
    assert!(execute_bits(0o010, false, true) && !execute_bits(0o701, false, true));
    assert!(execute_bits(0o001, false, false) && !execute_bits(0o770, false, false));
}
