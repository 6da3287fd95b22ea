//! One tree over another.
//!
//! Owns: what comes out where two files, or a service and the one it extends, say something about the same key; the
//! rules per key are in [`super::rules`]. Values keep their places. Never: looks for repeated items in lists (that is
//! [`super::unique`]) or removes anything (that is [`super::changes`]).

mod forms;

use std::collections::HashMap;

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics, Pos},
        read,
        scalar::Value,
        tree::{Entry, Kind, Node},
    },
    rules::{self, Rule},
};

/// A file over those before it.
pub(super) fn files(base: Node, over: Node, diags: &mut Diagnostics) -> Node {
    Merge { path: Vec::new(), diags }.node(base, over)
}

/// A service over the one that it extends.
pub(super) fn service(name: &str, base: Node, over: Node, diags: &mut Diagnostics) -> Node {
    Merge { path: vec!["services".to_owned(), name.to_owned()], diags }.node(base, over)
}

struct Merge<'d> {
    path: Vec<String>,
    diags: &'d mut Diagnostics,
}

impl Merge<'_> {
    fn node(&mut self, base: Node, over: Node) -> Node {
        let rule = rules::rule(&self.path);
        if rule == Some(Rule::Replace) {
            return over;
        }
        // A key without a value says nothing.
        if is_null(&over) {
            return base;
        }
        if is_null(&base) {
            return over;
        }
        match rule {
            None | Some(Rule::Replace) => self.plain(base, over),
            Some(Rule::Named) => self.converted(base, over, forms::named, Self::replaced),
            Some(Rule::Listed) => self.converted(base, over, forms::listed, Self::plain),
            Some(Rule::Dependencies) => self.converted(base, over, forms::dependencies, Self::plain),
            Some(Rule::Names) => self.converted(base, over, forms::names, Self::plain),
            Some(Rule::Build) => self.converted(base, over, forms::build, Self::plain),
            Some(Rule::Hosts) => self.converted(base, over, forms::hosts, Self::added),
            Some(Rule::Logging) => self.logging(base, over),
            Some(Rule::Pools) => self.pools(base, over),
        }
    }

    /// Brings both into one form first; what has no such form is merged as it is.
    fn converted(
        &mut self,
        base: Node,
        over: Node,
        form: fn(Node) -> Result<Node, Node>,
        merge: fn(&mut Self, Node, Node) -> Node,
    ) -> Node {
        match (form(base), form(over)) {
            (Ok(base), Ok(over)) => merge(self, base, over),
            (Ok(base) | Err(base), Ok(over) | Err(over)) => self.plain(base, over),
        }
    }

    fn plain(&mut self, mut base: Node, over: Node) -> Node {
        match (&mut base.kind, over.kind) {
            (Kind::Mapping(entries), Kind::Mapping(others)) => {
                let all = std::mem::take(entries);
                *entries = self.mappings(all, others);
                base
            }
            (Kind::Sequence(items), Kind::Sequence(others)) => {
                items.extend(others);
                base
            }
            (Kind::Scalar(_), kind) => Node { kind, ..over },
            (_, kind) => {
                let over = Node { kind, ..over };
                let path = self.path.join(".");
                self.diags.push(
                    Diagnostic::error(
                        &over.pos,
                        format!("{path}: {} can't be merged into {}", read::describe(&over), read::describe(&base)),
                    )
                    .hint(format!(
                        "the other one is at {}; write both in the same form, or put `!override` before this one",
                        base.pos
                    )),
                );
                base
            }
        }
    }

    fn mappings(&mut self, mut base: Vec<Entry>, over: Vec<Entry>) -> Vec<Entry> {
        let mut places: HashMap<String, usize> =
            base.iter().enumerate().map(|(i, entry)| (entry.key.clone(), i)).collect();
        for entry in over {
            let place = places.get(&entry.key).and_then(|place| base.get_mut(*place));
            let Some(earlier) = place else {
                places.insert(entry.key.clone(), base.len());
                base.push(entry);
                continue;
            };
            if matches!(entry.value.kind, Kind::Scalar(_)) && !is_null(&entry.value) {
                earlier.key_pos = entry.key_pos;
            }
            let before = std::mem::replace(&mut earlier.value, nothing(&entry.value));
            self.path.push(entry.key);
            earlier.value = self.node(before, entry.value);
            self.path.pop();
        }
        base
    }

    /// The later value of a name wins, also where it is nothing.
    fn replaced(&mut self, mut base: Node, over: Node) -> Node {
        let Kind::Mapping(entries) = &mut base.kind else { return over };
        let mut places: HashMap<String, usize> =
            entries.iter().enumerate().map(|(i, entry)| (entry.key.clone(), i)).collect();
        for entry in forms::entries(over) {
            match places.get(&entry.key).and_then(|place| entries.get_mut(*place)) {
                Some(earlier) => *earlier = entry,
                None => {
                    places.insert(entry.key.clone(), entries.len());
                    entries.push(entry);
                }
            }
        }
        base
    }

    /// Adds the items that aren't there yet.
    fn added(&mut self, mut base: Node, over: Node) -> Node {
        if let (Kind::Sequence(items), Kind::Sequence(others)) = (&mut base.kind, over.kind) {
            let there: std::collections::HashSet<String> = items.iter().filter_map(forms::text).collect();
            items.extend(
                others.into_iter().filter(|item| forms::text(item).is_none_or(|text| !there.contains(&text))),
            );
        }
        base
    }

    fn logging(&mut self, base: Node, over: Node) -> Node {
        let driver = |node: &Node| node.get("driver").and_then(forms::text);
        match (driver(&base), driver(&over)) {
            (Some(before), Some(now)) if before != now => over,
            _ => self.plain(base, over),
        }
    }

    /// As Compose does it, with its surprise: a pool whose subnet the later file doesn't name is gone.
    fn pools(&mut self, base: Node, over: Node) -> Node {
        let pos = base.pos.clone();
        let (Kind::Sequence(items), Kind::Sequence(others)) = (base.kind, over.kind) else {
            self.diags.push(
                Diagnostic::error(&over.pos, format!("{} is no list in both files", self.path.join(".")))
                    .expected("a list of pools"),
            );
            return nothing_at(&pos);
        };
        let subnet = |node: &Node| node.get("subnet").and_then(forms::text);
        let mut pools: Vec<Node> = Vec::new();
        for mut item in items {
            for other in &others {
                let known = |pools: &[Node], subnet_of: &Node| {
                    pools.iter().position(|pool| subnet(pool) == subnet(subnet_of))
                };
                if subnet(other) != subnet(&item) && known(&pools, other).is_none() {
                    pools.push(other.clone());
                    continue;
                }
                item = self.plain(item, other.clone());
                match known(&pools, &item).and_then(|place| pools.get_mut(place)) {
                    Some(pool) => *pool = item.clone(),
                    None => pools.push(item.clone()),
                }
            }
        }
        Node { kind: Kind::Sequence(pools), pos, tag: None }
    }
}

fn is_null(node: &Node) -> bool {
    node.scalar().is_some_and(|scalar| scalar.resolve() == Value::Null)
}

/// A place holder while a value is moved.
fn nothing(node: &Node) -> Node {
    nothing_at(&node.pos)
}

fn nothing_at(pos: &Pos) -> Node {
    Node { kind: Kind::Sequence(Vec::new()), pos: pos.clone(), tag: None }
}
