//! Paths as text: the core never asks the file system.

/// `path` seen from `dir`, with `.` and `..` resolved by their names. An absolute `path` stays where it is.
#[must_use]
pub fn join(dir: &str, path: &str) -> String {
    let full = if path.starts_with('/') { path.to_owned() } else { format!("{dir}/{path}") };
    let absolute = full.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in full.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// `path` with `.`, `..` and repeated slashes resolved by their names; it stays relative if it is.
#[must_use]
pub fn clean(path: &str) -> String {
    if path.starts_with('/') { join("/", path) } else { join(".", path) }
}

/// The last name of a path, empty for the root.
#[must_use]
pub fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or("")
}

/// The directory that an absolute path's file is in.
#[must_use]
pub fn directory(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((directory, _)) => directory,
    }
}

/// An absolute path as somebody in `here` would write it: what lies below is shown from there.
#[must_use]
pub fn shown<'p>(here: &str, path: &'p str) -> &'p str {
    let below = path.strip_prefix(here.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
    below.filter(|rest| !rest.is_empty()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_join_by_their_names() {
        for (dir, path, joined) in [
            ("/srv/shop", "a.env", "/srv/shop/a.env"),
            ("/srv/shop", "./x/../a.env", "/srv/shop/a.env"),
            ("/srv/shop", "../a", "/srv/a"),
            ("/srv", "/etc/./a", "/etc/a"),
            ("/", "../a", "/a"),
            ("shop", "../../a", "../a"),
            ("/srv/", ".", "/srv"),
            (".", ".", "."),
        ] {
            assert_eq!(join(dir, path), joined, "{dir} {path}");
        }
        assert_eq!(base_name("/srv/shop/"), "shop");
        assert_eq!(base_name("/"), "");
        assert_eq!([directory("/srv/a/b"), directory("/a"), directory("/")], ["/srv/a", "/", "/"]);
        let seen =
            [("/srv", "/srv/a/b"), ("/srv/", "/srv/a"), ("/srv", "/srvs/a"), ("/srv", "/srv"), ("/", "/a")];
        assert_eq!(seen.map(|(here, path)| shown(here, path)), ["a/b", "a", "/srvs/a", "/srv", "a"]);
    }
}
