//! `x-bulsa.hold`: how long requests wait, and the page for those who did in vain.

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        duration, keys,
        model::Service,
        paths, read,
        service::{Context, ReadError},
        tree::Node,
    },
    Bulsa, set,
};
use crate::spec::traffic::PAGE_BYTES_MAX;

/// At most this many requests wait for a target.
const MAX_HELD: u32 = 100_000;

pub(super) fn read(bulsa: &mut Bulsa, node: &Node, path: &str, diags: &mut Diagnostics) {
    let Bulsa { hold, page, at, .. } = bulsa;
    read::keys(node, path, &keys::BULSA_HOLD, diags, |entry, path, diags| {
        at.insert(format!("hold.{}", entry.key), entry.key_pos.clone());
        let node = &entry.value;
        match entry.key.as_str() {
            "time" => set(&mut hold.time, read::duration(node, path, duration::HOLD, diags)),
            "requests" => set(&mut hold.requests, read::number(node, path, 0..=MAX_HELD, diags)),
            _ => *page = file(node, path, diags).map(|file| (file, node.pos.clone())),
        }
    });
}

fn file(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<String> {
    let file = read::text(node, path, diags)?;
    if file.is_empty() {
        diags.push(Diagnostic::error(&node.pos, format!("{path} is empty")).expected("the path of a file"));
        return None;
    }
    Some(file.to_owned())
}

/// Reads the page's file, where a service names one.
pub(in crate::compose) fn page(
    service: &mut Service,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) {
    let Some((file, pos)) = &service.bulsa.page else { return };
    let path = format!("services.{}.x-bulsa.hold.page", service.name);
    let full = paths::join(context.project_dir, file);
    let expected = format!("a page in HTML, as text in UTF-8, of at most {} KiB", PAGE_BYTES_MAX / 1024);
    let mistake = match (context.read)(&full) {
        Ok(text) if text.len() <= PAGE_BYTES_MAX => {
            service.bulsa.hold.page = Some(text);
            return;
        }
        Ok(text) => {
            Diagnostic::error(pos, format!("{path}: {full} has {} bytes", text.len())).expected(expected)
        }
        Err(error @ ReadError::NotText(_)) => {
            Diagnostic::error(pos, format!("{path}: can't use {full}: {error}")).expected(expected)
        }
        Err(error) => Diagnostic::error(pos, format!("{path}: can't read {full}: {error}"))
            .hint("the file must be there when the project is read"),
    };
    diags.push(mistake.about_this_host());
}
