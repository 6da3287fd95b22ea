//! `!reset` and `!override`: what a file takes away from the files before it.
//!
//! Owns: finding the tags in one file's tree, and taking away what they name: `!reset` removes the key everywhere,
//! `!override` only what earlier files (or an extended service) say about it. In a list, `!reset` removes the item and
//! reaches no further, as in Compose. Never: merges.

use super::super::{
    diagnostic::{Diagnostic, Diagnostics},
    tree::{Kind, Node},
};

/// At most this many tags in one file.
pub(super) const MAX_TAGS: usize = 1000;

/// The keys that one file takes away, each as the way there from the top.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    paths: Vec<Vec<String>>,
}

impl Changes {
    /// Takes the tags out of a file's tree; any other tag is a mistake.
    pub(super) fn take(root: &mut Node, diags: &mut Diagnostics) -> Self {
        let mut changes = Self::default();
        if let Some(tag) = root.tag.take() {
            diags.push(
                Diagnostic::error(&root.pos, format!("the tag `{tag}` means nothing for a whole file"))
                    .hint("remove the tag"),
            );
        }
        changes.below(root, &mut Vec::new(), true, diags);
        if changes.paths.len() > MAX_TAGS {
            diags.push(
                Diagnostic::error(&root.pos, "the file has too many `!reset` and `!override` tags")
                    .expected(format!("at most {MAX_TAGS}")),
            );
            changes.paths.clear();
        }
        changes
    }

    /// `record` is false inside lists, whose items have no name that another file could give.
    fn below(&mut self, node: &mut Node, way: &mut Vec<String>, record: bool, diags: &mut Diagnostics) {
        match &mut node.kind {
            Kind::Scalar(_) => {}
            Kind::Sequence(items) => items.retain_mut(|item| {
                let keep = tag(item, diags) != Some(Tag::Reset);
                if keep {
                    self.below(item, way, false, diags);
                }
                keep
            }),
            Kind::Mapping(entries) => entries.retain_mut(|entry| {
                way.push(entry.key.clone());
                let tag = tag(&mut entry.value, diags);
                if tag.is_some() && record && self.paths.len() <= MAX_TAGS {
                    self.paths.push(way.clone());
                }
                let keep = tag != Some(Tag::Reset);
                if keep {
                    self.below(&mut entry.value, way, record, diags);
                }
                way.pop();
                keep
            }),
        }
    }

    /// Takes away what is named from the files before.
    pub(super) fn apply(&self, root: &mut Node) {
        for path in &self.paths {
            remove(root, path);
        }
    }

    /// Takes away what is named below `services.NAME` from the service that this one extends.
    pub(super) fn apply_to_service(&self, name: &str, service: &mut Node) {
        for path in &self.paths {
            if let [top, of, rest @ ..] = path.as_slice()
                && top == "services"
                && of == name
            {
                remove(service, rest);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Reset,
    Override,
}

fn tag(node: &mut Node, diags: &mut Diagnostics) -> Option<Tag> {
    match node.tag.take()?.as_str() {
        "!reset" => Some(Tag::Reset),
        "!override" => Some(Tag::Override),
        other => {
            let mistake = format!("the tag `{other}` means nothing in a compose file");
            diags.push(Diagnostic::error(&node.pos, mistake).hint("remove the tag"));
            None
        }
    }
}

fn remove(root: &mut Node, path: &[String]) {
    let Some((last, way)) = path.split_last() else { return };
    let mut node = root;
    for key in way {
        let Kind::Mapping(entries) = &mut node.kind else { return };
        let Some(entry) = entries.iter_mut().find(|entry| entry.key == *key) else { return };
        node = &mut entry.value;
    }
    if let Kind::Mapping(entries) = &mut node.kind {
        entries.retain(|entry| entry.key != *last);
    }
}
