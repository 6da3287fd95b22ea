//! From parser events to the tree.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{
    super::diagnostic::{Diagnostic, Diagnostics, Pos},
    Entry, Kind, MAX_ALIAS_BYTES, MAX_DEPTH, MAX_FILE_BYTES, NODE_WEIGHT, Node, Scalar, Style,
};

/// Reads one document. Mistakes go to `diags`; `None` where there is no tree to go on with. A file without any
/// document is a mapping without keys ([`Node::is_no_document`]).
pub fn parse(file: &str, text: &str, diags: &mut Diagnostics) -> Option<Node> {
    if text.len() > MAX_FILE_BYTES {
        diags.push(
            Diagnostic::error(&Pos::whole(file), format!("the file has {} bytes", text.len()))
                .expected(format!("at most {MAX_FILE_BYTES} bytes")),
        );
        return None;
    }
    let mut builder = Builder::new(file);
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let step = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                let mark = *error.marker();
                let pos = builder.pos(mark.line(), mark.col());
                Err(Diagnostic::error(&pos, format!("this isn't valid YAML: {}", error.info()))
                    .hint("look at this line and the ones above: indentation, quotes and colons")
                    .into())
            }
        };
        if let Err(fatal) = step {
            builder.mistakes.push(*fatal);
            builder.root = None;
            builder.failed = true;
            break;
        }
    }
    for mistake in builder.mistakes.drain(..) {
        diags.push(mistake);
    }
    let nothing = || Node { kind: Kind::Mapping(Vec::new()), pos: Pos::whole(file), tag: None };
    builder.root.or_else(|| (!builder.failed).then(nothing))
}

/// A finished anchor: its value, and what one more copy of it costs.
struct Anchor {
    node: Node,
    weight: usize,
    depth: usize,
}

/// A collection that isn't closed yet.
struct Frame {
    node: Node,
    anchor: usize,
    weight: usize,
    /// The depth of its deepest child, counted from itself.
    depth: usize,
    key: Pending,
    seen: BTreeMap<String, Pos>,
    merges: Vec<Node>,
}

/// What the next node of a mapping is.
enum Pending {
    Key,
    Value(String, Pos),
    Merge(Pos),
    /// The key was no text: its value is read and dropped.
    Dropped,
}

struct Builder {
    file: Arc<str>,
    root: Option<Node>,
    failed: bool,
    documents: usize,
    frames: Vec<Frame>,
    anchors: BTreeMap<usize, Anchor>,
    expanded: usize,
    mistakes: Vec<Diagnostic>,
}

/// Boxed, because nearly every step is fine.
type Step = Result<(), Box<Diagnostic>>;

impl Builder {
    fn new(file: &str) -> Self {
        Self {
            file: Arc::from(file),
            root: None,
            failed: false,
            documents: 0,
            frames: Vec::new(),
            anchors: BTreeMap::new(),
            expanded: 0,
            mistakes: Vec::new(),
        }
    }

    /// The parser counts lines from 1 and columns from 0.
    fn pos(&self, line: usize, col: usize) -> Pos {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Pos { file: Arc::clone(&self.file), line: number(line.max(1)), col: number(col.saturating_add(1)) }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Step {
        let pos = self.pos(span.start.line(), span.start.col());
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.document(&pos),
            Event::Alias(id) => self.alias(id, &pos),
            Event::Scalar(value, style, anchor, tag) => {
                let (tag, text) = own_tag(tag.as_deref());
                let style = match style {
                    ScalarStyle::Plain if !text => Style::Plain,
                    _ => Style::Quoted,
                };
                let weight = NODE_WEIGHT + value.len();
                let kind = Kind::Scalar(Scalar { value: value.into_owned(), style });
                self.complete(Anchor { node: Node { kind, pos, tag }, weight, depth: 1 }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                let (tag, _) = own_tag(tag.as_deref());
                self.open(Node { kind: Kind::Sequence(Vec::new()), pos, tag }, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                let (tag, _) = own_tag(tag.as_deref());
                self.open(Node { kind: Kind::Mapping(Vec::new()), pos, tag }, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn document(&mut self, pos: &Pos) -> Step {
        self.documents += 1;
        if self.documents > 1 {
            return Err(Diagnostic::error(pos, "a second YAML document starts here")
                .expected("one document in a compose file")
                .hint("remove the `---`, or move what follows to a file of its own")
                .into());
        }
        Ok(())
    }

    fn open(&mut self, node: Node, anchor: usize) -> Step {
        if self.frames.len() >= MAX_DEPTH {
            return Err(too_deep(&node.pos));
        }
        self.frames.push(Frame {
            node,
            anchor,
            weight: NODE_WEIGHT,
            depth: 0,
            key: Pending::Key,
            seen: BTreeMap::new(),
            merges: Vec::new(),
        });
        Ok(())
    }

    fn close(&mut self) -> Step {
        let Some(mut frame) = self.frames.pop() else {
            return Ok(());
        };
        if let Kind::Mapping(entries) = &mut frame.node.kind {
            apply_merges(entries, std::mem::take(&mut frame.merges));
        }
        let (weight, depth) = (frame.weight, frame.depth + 1);
        self.complete(Anchor { node: frame.node, weight, depth }, frame.anchor)
    }

    fn alias(&mut self, id: usize, pos: &Pos) -> Step {
        let Some(anchor) = self.anchors.get(&id) else {
            return Err(Diagnostic::error(pos, "this alias refers to a value that contains it").into());
        };
        let copy = Anchor { node: anchor.node.clone(), weight: anchor.weight, depth: anchor.depth };
        self.spend(copy.weight, pos)?;
        self.place(copy, Some(pos))
    }

    /// Every copy of a node counts, the one that an anchor keeps too.
    fn spend(&mut self, weight: usize, pos: &Pos) -> Step {
        self.expanded = self.expanded.saturating_add(weight);
        if self.expanded > MAX_ALIAS_BYTES {
            return Err(Diagnostic::error(pos, "the anchors and aliases of this file expand to too much")
                .expected(format!("at most {MAX_ALIAS_BYTES} bytes once every alias is written out"))
                .into());
        }
        Ok(())
    }

    /// A node is whole: remember it under its anchor and put it where it belongs.
    fn complete(&mut self, done: Anchor, anchor: usize) -> Step {
        if anchor > 0 {
            self.spend(done.weight, &done.node.pos)?;
            let copy = Anchor { node: done.node.clone(), weight: done.weight, depth: done.depth };
            self.anchors.insert(anchor, copy);
        }
        self.place(done, None)
    }

    /// `alias` is where the node is used, if that isn't where it is written.
    fn place(&mut self, done: Anchor, alias: Option<&Pos>) -> Step {
        let Anchor { node, weight, depth } = done;
        if self.frames.len() + depth > MAX_DEPTH {
            return Err(too_deep(alias.unwrap_or(&node.pos)));
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        frame.weight = frame.weight.saturating_add(weight);
        frame.depth = frame.depth.max(depth);
        let entries = match &mut frame.node.kind {
            Kind::Sequence(items) => {
                items.push(node);
                return Ok(());
            }
            Kind::Mapping(entries) => entries,
            Kind::Scalar(_) => return Ok(()),
        };
        match std::mem::replace(&mut frame.key, Pending::Key) {
            Pending::Key => frame.key = key(node, alias, &mut self.mistakes),
            Pending::Dropped => {}
            Pending::Merge(pos) => merge_sources(node, &pos, &mut frame.merges, &mut self.mistakes),
            Pending::Value(key, key_pos) => {
                if let Some(first) = frame.seen.get(&key) {
                    self.mistakes.push(
                        Diagnostic::error(&key_pos, format!("`{key}` comes twice in this mapping"))
                            .hint(format!("the first one is at {first}; keep one of them")),
                    );
                } else {
                    frame.seen.insert(key.clone(), key_pos.clone());
                    entries.push(Entry { key, key_pos, value: node });
                }
            }
        }
        Ok(())
    }
}

fn key(node: Node, alias: Option<&Pos>, mistakes: &mut Vec<Diagnostic>) -> Pending {
    let pos = alias.cloned().unwrap_or(node.pos);
    match node.kind {
        Kind::Scalar(Scalar { value, style: Style::Plain }) if value == "<<" => Pending::Merge(pos),
        Kind::Scalar(Scalar { value, style: Style::Plain }) if value.is_empty() => {
            mistakes.push(Diagnostic::error(&pos, "a key is missing here").expected("`key: value`"));
            Pending::Dropped
        }
        Kind::Scalar(scalar) => Pending::Value(scalar.value, pos),
        Kind::Sequence(_) | Kind::Mapping(_) => {
            mistakes.push(Diagnostic::error(&pos, "a list or mapping can't be a key").expected("a name"));
            Pending::Dropped
        }
    }
}

fn merge_sources(node: Node, pos: &Pos, merges: &mut Vec<Node>, mistakes: &mut Vec<Diagnostic>) {
    let mut add = |node: Node| match node.kind {
        Kind::Mapping(_) => merges.push(node),
        _ => mistakes.push(
            Diagnostic::error(pos, "`<<` merges something that isn't a mapping")
                .expected("an alias of a mapping (`<<: *base`), or a list of them"),
        ),
    };
    match node.kind {
        Kind::Sequence(items) => items.into_iter().for_each(add),
        _ => add(node),
    }
}

/// Shallow: a key that is there already keeps its whole value.
fn apply_merges(entries: &mut Vec<Entry>, merges: Vec<Node>) {
    if merges.is_empty() {
        return;
    }
    let mut seen: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    for source in merges {
        if let Kind::Mapping(from) = source.kind {
            entries.extend(from.into_iter().filter(|entry| seen.insert(entry.key.clone())));
        }
    }
}

/// A tag of YAML's own schema says no more than the style does, except that `!!str` and `!` make text. What `!!binary`
/// stands for is no text, so it is kept, and refused later.
fn own_tag(tag: Option<&Tag>) -> (Option<String>, bool) {
    match tag {
        None => (None, false),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "binary" => {
            (Some("!!binary".to_owned()), true)
        }
        Some(tag) if tag.is_yaml_core_schema() => (None, tag.suffix == "str"),
        Some(tag) => match tag.to_string().as_str() {
            "!" | "!!" => (None, true),
            other => (Some(other.to_owned()), false),
        },
    }
}

fn too_deep(pos: &Pos) -> Box<Diagnostic> {
    Box::new(
        Diagnostic::error(pos, "the file is nested too deeply")
            .expected(format!("at most {MAX_DEPTH} levels")),
    )
}
