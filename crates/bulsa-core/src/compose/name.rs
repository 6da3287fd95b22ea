//! The project's name: `-p`, then COMPOSE_PROJECT_NAME, then the last file's `name`, then the directory.

use super::{
    diagnostic::{Diagnostic, Diagnostics, Pos},
    environment::{Environment, PROJECT_NAME},
    interpolate, paths, read,
    tree::Node,
};

/// The longest name, in bytes: it is part of file and host names.
pub const MAX_NAME_BYTES: usize = 63;

/// Finds the name. `None` after a mistake.
pub(super) fn find(
    given: Option<&str>,
    roots: &[Node],
    project_dir: &str,
    environment: &Environment<'_>,
    diags: &mut Diagnostics,
) -> Option<String> {
    if let Some(given) = given {
        return exact(given, "the project name", "-p", diags);
    }
    if let Some(name) = environment.get(PROJECT_NAME).filter(|name| !name.is_empty()) {
        return exact(name, "the project name", PROJECT_NAME, diags);
    }
    let nothing = |node: &&Node| node.scalar().is_some_and(|scalar| scalar.value.is_empty());
    let last = roots.iter().rev().filter_map(|root| root.get("name")).find(|node| !nothing(node));
    if let Some(node) = last {
        let text = read::text(node, "name", diags)?;
        // A mistake in here is named when the whole tree is interpolated.
        let lookup = |name: &str| environment.get(name).map(str::to_owned);
        let text = interpolate::substitute(text, &lookup).ok()?.text;
        let name = normalised(&text);
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            diags.push(bad(Diagnostic::error(&node.pos, format!("name: {text:?} is no name for a project"))));
            return None;
        }
        return Some(name);
    }
    let mut name = normalised(paths::base_name(project_dir));
    name.truncate(MAX_NAME_BYTES);
    if name.is_empty() {
        let mistake = format!("the directory {project_dir:?} gives the project no name");
        diags.push(
            Diagnostic::error(
                &roots.first().map_or_else(|| Pos::whole(""), |root| root.pos.clone()),
                mistake,
            )
            .hint("add `name: my-project` at the top of the file, or use -p"),
        );
        return None;
    }
    Some(name)
}

fn bad(mistake: Diagnostic) -> Diagnostic {
    mistake.expected(format!(
        "a-z, 0-9, `-` and `_`, starting with a letter or digit, at most {MAX_NAME_BYTES} characters"
    ))
}

fn exact(name: &str, what: &str, source: &str, diags: &mut Diagnostics) -> Option<String> {
    if !name.is_empty() && name.len() <= MAX_NAME_BYTES && normalised(name) == name {
        return Some(name.to_owned());
    }
    diags.push(bad(Diagnostic::error(
        &Pos::whole(""),
        format!("{what} {name:?}, given by {source}, can't be used"),
    )));
    None
}

/// Lower case; what a name can't have is dropped, as Compose does with directories.
fn normalised(text: &str) -> String {
    let lower = text.to_lowercase();
    let kept: String = lower
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .collect();
    kept.trim_start_matches(['-', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_in_compose() {
        for (text, name) in
            [("My.Proj_1", "myproj_1"), ("_-A.b é-", "ab-"), ("a B", "ab"), ("한국", ""), ("9x", "9x")]
        {
            assert_eq!(normalised(text), name, "{text}");
        }
    }
}
