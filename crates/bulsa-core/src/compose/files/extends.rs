//! `extends`: a service that takes over what another one says.
//!
//! Owns: finding the other one (in this file, or in another, whose relative paths are seen from its own directory),
//! following chains, and putting the service over it with the rules of merging. The whole service is taken over,
//! `depends_on` and the like too, as in Docker Compose 2.40: what they name must be in the project then. Never: follows
//! an `include` of the other file.

use std::{collections::BTreeMap, rc::Rc};

use super::{
    super::{
        MAX_SERVICES, canonical,
        diagnostic::{Diagnostic, Pos},
        paths,
        tree::{Entry, Kind, Node},
    },
    Files, MAX_EXTENDS_DEPTH, Prepared, Scope, absolute,
    changes::Changes,
    merge, open,
};

/// Puts every service of `root` that extends another over it, and takes `extends` away.
pub(super) fn apply(files: &mut Files<'_, '_>, scope: &Scope<'_>, root: &mut Node, changes: &Changes) {
    let Some(services) = services_mut(root) else { return };
    // Too many of them are a mistake that is named later.
    if services.len() > MAX_SERVICES || !services.iter().any(|entry| entry.value.get("extends").is_some()) {
        return;
    }
    let own = services.iter_mut().map(|entry| {
        let pos = entry.value.pos.clone();
        let placeholder = Node { kind: Kind::Sequence(Vec::new()), pos, tag: None };
        (entry.key.clone(), Rc::new(std::mem::replace(&mut entry.value, placeholder)))
    });
    let library =
        Library { services: own.collect(), changes: changes.clone(), directory: scope.directory.clone() };
    let mut extends = Extends {
        files,
        scope,
        libraries: BTreeMap::from([(THIS_FILE.to_owned(), Some(library))]),
        done: BTreeMap::new(),
    };
    let names: Vec<String> = services.iter().map(|entry| entry.key.clone()).collect();
    let mut whole = BTreeMap::new();
    for name in names {
        if let Some(service) =
            extends.service(&Place { file: THIS_FILE.to_owned(), name: name.clone() }, &mut Vec::new())
        {
            whole.insert(name, service);
        }
    }
    drop(extends);
    for entry in services {
        if let Some(service) = whole.remove(&entry.key) {
            entry.value = Rc::try_unwrap(service).unwrap_or_else(|shared| (*shared).clone());
        }
    }
}

/// The library of the file that is being read.
const THIS_FILE: &str = "";

/// The services of one file that may be extended.
struct Library {
    services: BTreeMap<String, Rc<Node>>,
    changes: Changes,
    directory: String,
}

/// A service in a file, by its absolute path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: String,
    name: String,
}

struct Extends<'x, 's, 'a, 'r> {
    files: &'x mut Files<'a, 'r>,
    scope: &'x Scope<'s>,
    /// By absolute path; `None` is one that can't be read.
    libraries: BTreeMap<String, Option<Library>>,
    done: BTreeMap<Place, Rc<Node>>,
}

/// What `extends` says.
struct Reference {
    service: String,
    file: Option<String>,
    pos: Pos,
}

impl Extends<'_, '_, '_, '_> {
    /// A service with everything that it extends. Mistakes leave out what they concern.
    fn service(&mut self, place: &Place, way: &mut Vec<Place>) -> Option<Rc<Node>> {
        if let Some(done) = self.done.get(place) {
            return Some(Rc::clone(done));
        }
        let library = self.libraries.get(&place.file)?.as_ref()?;
        let own = Rc::clone(library.services.get(&place.name)?);
        let Some(entry) = own.entry("extends") else { return Some(own) };
        let path = format!("services.{}.extends", place.name);
        let base = match self.reference(&entry.value, &path) {
            Some(reference) if !self.in_a_circle(place, &reference, way) => {
                way.push(place.clone());
                let base = self.base(place, &reference, &path, way);
                way.pop();
                base
            }
            _ => None,
        };
        let pos = entry.value.pos.clone();
        let mut service = (*own).clone();
        match canonical::child_mut(&mut service, "extends") {
            // What the service lacks then is no mistake of its own.
            Some(extends) if base.is_none() => canonical::spoil(extends),
            _ => canonical::remove(&mut service, "extends"),
        }
        let whole = Rc::new(match base {
            Some(base) if self.files.spend(&base, &pos) && self.files.spend(&own, &pos) => {
                self.over(place, &base, service)
            }
            _ => service,
        });
        self.done.insert(place.clone(), Rc::clone(&whole));
        Some(whole)
    }

    fn over(&mut self, place: &Place, base: &Node, service: Node) -> Node {
        let mut base = base.clone();
        if let Some(Some(library)) = self.libraries.get(&place.file) {
            library.changes.apply_to_service(&place.name, &mut base);
        }
        // Where the service starts is where it is written, not where it comes from.
        let pos = service.pos.clone();
        let mut merged = merge::service(&place.name, base, service, self.files.diags);
        merged.pos = pos;
        merged
    }

    /// What `extends` says, in its canonical form; `None` where it was malformed.
    fn reference(&mut self, node: &Node, path: &str) -> Option<Reference> {
        let service = node.get("service").filter(|node| !canonical::is_malformed(node))?;
        let name = canonical::text_of(node, "service").unwrap_or_default();
        if name.is_empty() {
            let mistake = Diagnostic::error(&service.pos, format!("{path} names no service"));
            self.files.diags.push(mistake.expected("service: the name of another service"));
            return None;
        }
        let file = node.get("file").filter(|file| !canonical::is_null(file));
        Some(Reference {
            service: name.to_owned(),
            file: file.and_then(Node::scalar).map(|file| file.value.clone()),
            pos: service.pos.clone(),
        })
    }

    fn in_a_circle(&mut self, place: &Place, reference: &Reference, way: &[Place]) -> bool {
        let mistake = if let Some(first) = way.iter().position(|earlier| earlier == place) {
            let names = way.iter().skip(first).chain([place]).map(|place| place.name.as_str());
            let circle: Vec<&str> = names.collect();
            format!("the services extend each other: {}", circle.join(" → "))
        } else if way.len() >= MAX_EXTENDS_DEPTH {
            format!("services extend each other over more than {MAX_EXTENDS_DEPTH} levels")
        } else {
            return false;
        };
        let mistake = Diagnostic::error(&reference.pos, mistake);
        self.files.diags.push(mistake.hint("remove one of these `extends`"));
        true
    }

    /// The service that is extended, with what it extends itself; `None` after a mistake, or if it says nothing.
    fn base(
        &mut self,
        place: &Place,
        reference: &Reference,
        path: &str,
        way: &mut Vec<Place>,
    ) -> Option<Rc<Node>> {
        let file = match &reference.file {
            None => place.file.clone(),
            Some(file) => {
                if self.files.is_remote(file, &reference.pos, path) {
                    return None;
                }
                let directory = &self.libraries.get(&place.file)?.as_ref()?.directory;
                let absolute = paths::clean(&self.scope.environment.absolute(directory, file));
                self.library(&absolute, &reference.pos, path);
                absolute
            }
        };
        let library = self.libraries.get(&file)?.as_ref()?;
        if !library.services.contains_key(&reference.service) {
            let (name, names) = (&reference.service, library.services.keys().map(String::as_str));
            let mistake = match &reference.file {
                None => format!("{path}: there is no service `{name}` in this file"),
                Some(_) => format!("{path}: there is no service `{name}` in {}", self.files.shown(&file)),
            };
            let mistake = Diagnostic::error(&reference.pos, mistake).nearest(name, names);
            self.files.diags.push(match reference.file {
                None => mistake.hint("one of another file is named with `file:` beside `service:`"),
                Some(_) => mistake,
            });
            return None;
        }
        let base = self.service(&Place { file, name: reference.service.clone() }, way)?;
        // A service that is no mapping has been named already.
        matches!(base.kind, Kind::Mapping(_)).then_some(base)
    }

    /// Reads another file's services, once.
    fn library(&mut self, absolute: &str, pos: &Pos, path: &str) {
        if self.libraries.contains_key(absolute) {
            return;
        }
        let library = self.files.open(absolute, pos, path).and_then(|root| {
            let directory = paths::directory(absolute).to_owned();
            let Prepared { mut root, changes } =
                self.files.prepare(allowed(root), self.scope, open::everything)?;
            absolute::resolve_in(&mut root, &directory, &self.scope.environment);
            let Some(services) = services_mut(&mut root) else {
                let what = format!("{path}: {} has no `services`", self.files.shown(absolute));
                self.files.diags.push(Diagnostic::error(pos, what));
                return None;
            };
            let services = std::mem::take(services).into_iter();
            let services = services.map(|entry| (entry.key, Rc::new(entry.value))).collect();
            Some(Library { services, changes, directory })
        });
        self.libraries.insert(absolute.to_owned(), library);
    }
}

/// A service without a value, which is a mistake elsewhere, says nothing to those who extend it, as in Compose.
fn allowed(mut root: Node) -> Node {
    for entry in services_mut(&mut root).into_iter().flatten() {
        if canonical::is_null(&entry.value) {
            entry.value.kind = Kind::Mapping(Vec::new());
        }
    }
    root
}

fn services_mut(root: &mut Node) -> Option<&mut Vec<Entry>> {
    let Kind::Mapping(entries) = &mut root.kind else { return None };
    let services = entries.iter_mut().find(|entry| entry.key == "services")?;
    match &mut services.value.kind {
        Kind::Mapping(services) => Some(services),
        _ => None,
    }
}
