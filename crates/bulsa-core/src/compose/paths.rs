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

/// The last name of a path, empty for the root.
#[must_use]
pub fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or("")
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
    }
}
