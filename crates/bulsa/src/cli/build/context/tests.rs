//! Which files are in the tar, and how.

use std::{collections::BTreeMap, os::unix::fs::symlink, os::unix::net::UnixListener};

use super::*;
use crate::cli::pack::{PIECE, PIECES_WAITING};

/// The paths in the tar, and what their files hold.
fn sent(root: &Path, build: &Build) -> Result<(Context, BTreeMap<String, String>), String> {
    let none = BTreeMap::new();
    let build = Build { context: root.display().to_string(), ..build.clone() };
    let order = Order {
        service: "web",
        build: &build,
        tag: "web",
        platform: None,
        socket: Path::new("/nowhere"),
        credentials: &none,
    };
    let context = Context::open(&order).map_err(|error| error.to_string())?;
    let (to, mut pieces) = mpsc::channel(PIECES_WAITING);
    let (tar, result) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let result = context.send(&to).map_err(|error| error.to_string());
            drop(to);
            result
        });
        let mut tar = Vec::new();
        while let Some(piece) = pieces.blocking_recv() {
            tar.extend_from_slice(&piece.unwrap_or_default());
        }
        (tar, sending.join().unwrap())
    });
    result?;
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        if let Some(target) = entry.link_name().unwrap() {
            text = format!("-> {}", target.display());
        }
        files.insert(entry.path().unwrap().display().to_string(), text);
    }
    Ok((context, files))
}

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn names(files: &BTreeMap<String, String>) -> Vec<&str> {
    files.keys().map(String::as_str).collect()
}

#[test]
fn what_is_ignored_stays_here_and_the_dockerfile_goes() {
    let root = tree(&[
        ("Dockerfile", "FROM scratch"),
        ("app.js", "1"),
        ("node_modules/x/index.js", "2"),
        ("docs/a.md", "3"),
        ("docs/keep.md", "4"),
        (".dockerignore", "node_modules\nDockerfile\ndocs\n!docs/keep.md\n.dockerignore"),
    ]);
    let (context, files) = sent(root.path(), &Build::default()).unwrap();
    assert_eq!(names(&files), ["Dockerfile", "app.js", "docs/keep.md"]);
    assert_eq!(files["docs/keep.md"], "4");
    assert_eq!(context.dockerfile, "Dockerfile");
}

#[test]
fn a_dockerfile_in_an_ignored_directory_goes_too_with_its_own_ignore_file() {
    let root = tree(&[
        ("deploy/Dockerfile", "FROM scratch"),
        ("deploy/Dockerfile.dockerignore", "deploy\nsecret"),
        (".dockerignore", "app.js"),
        ("app.js", "1"),
        ("secret", "2"),
    ]);
    let build = Build { dockerfile: Some("deploy/Dockerfile".to_owned()), ..Build::default() };
    let (_, files) = sent(root.path(), &build).unwrap();
    assert_eq!(names(&files), [".dockerignore", "app.js", "deploy/Dockerfile"]);
}

#[test]
fn a_dockerfile_from_elsewhere_is_added() {
    let root = tree(&[("app.js", "1")]);
    let elsewhere = tree(&[("D", "FROM scratch")]);
    let path = elsewhere.path().join("D").display().to_string();
    for build in [
        Build { dockerfile: Some(path), ..Build::default() },
        Build { dockerfile_inline: Some("FROM scratch".to_owned()), ..Build::default() },
    ] {
        let (context, files) = sent(root.path(), &build).unwrap();
        assert!(context.dockerfile.starts_with(".bulsa-"), "{}", context.dockerfile);
        assert_eq!(files[&context.dockerfile], "FROM scratch");
        assert_eq!(files.len(), 2);
    }
}

#[test]
fn links_are_links_and_sockets_are_left_out() {
    let root = tree(&[("Dockerfile", ""), ("big", &"x".repeat(3 * PIECE))]);
    symlink("/etc/passwd", root.path().join("link")).unwrap();
    let _socket = UnixListener::bind(root.path().join("socket")).unwrap();
    let (_, files) = sent(root.path(), &Build::default()).unwrap();
    assert_eq!(names(&files), ["Dockerfile", "big", "link"]);
    assert_eq!(files["link"], "-> /etc/passwd");
    assert_eq!(files["big"].len(), 3 * PIECE);
}

#[test]
fn what_can_not_be_read_is_named() {
    let root = tree(&[("app.js", "1")]);
    assert!(sent(root.path(), &Build::default()).unwrap_err().contains("/Dockerfile: No such file"));
    assert!(sent(Path::new("/nowhere/at/all"), &Build::default()).unwrap_err().contains("/nowhere/at/all"));
    let root = tree(&[("Dockerfile", ""), (".dockerignore", "a\n[")]);
    assert!(sent(root.path(), &Build::default()).unwrap_err().contains(".dockerignore: line 2"));
}

#[test]
fn it_ends_when_nobody_takes_it() {
    let root = tree(&[("Dockerfile", ""), ("big", &"x".repeat(40 * PIECE))]);
    let build = Build { context: root.path().display().to_string(), ..Build::default() };
    let none = BTreeMap::new();
    let (service, tag, socket) = ("web", "web", Path::new("/"));
    let order = Order { service, build: &build, tag, platform: None, socket, credentials: &none };
    let (to, pieces) = mpsc::channel(PIECES_WAITING);
    drop(pieces);
    assert!(Context::open(&order).unwrap().send(&to).is_ok());
}
