//! What is sent: the cases of `http_desync_guardian`, read from the package's own source, and our payloads.

use std::path::PathBuf;
use std::process::Command;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::payloads::{CHUNKS, HOSTS, LINES, OBSCURE_FRAMING, TWO_FRAMINGS};

/// Some bytes that a client sends.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// A request of the package's tests.
#[derive(Debug)]
struct Case {
    name: String,
    /// The request line and the fields, without the empty line.
    head: String,
    has_host: bool,
}

/// A small part of YAML, as far as the cases use it.
#[derive(Debug)]
enum Node {
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Node {
    fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn text(&self, key: &str) -> &str {
        match self.get(key) {
            Some(Self::Text(text)) => text,
            _ => panic!("a text `{key}` in {self:?}"),
        }
    }

    fn items(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }
}

/// All that is sent to the proxy, and to its peers.
pub(crate) fn all() -> Vec<Payload> {
    [guardians(), ours()].concat()
}

fn ours() -> Vec<Payload> {
    let tables = [TWO_FRAMINGS, OBSCURE_FRAMING, LINES, CHUNKS, HOSTS];
    let payload = |bytes: &str| Payload { name: "ours".to_owned(), bytes: bytes.as_bytes().to_vec() };
    let further = ["brew /pot HTTP/1.1\r\nHost: a\r\n\r\n"];
    tables.into_iter().flatten().map(|(bytes, _)| payload(bytes)).chain(further.map(payload)).collect()
}

/// The package's cases, each as it stands and with a host, with nothing behind it and with bodies of both kinds. (One of
/// them can't be taken for the begin of a request.)
fn guardians() -> Vec<Payload> {
    let mut payloads = Vec::new();
    for case in cases() {
        let Case { name, head, has_host } = &case;
        let hosts: &[&str] = if *has_host { &[""] } else { &["", "Host: a\r\n"] };
        for (host, with) in hosts.iter().zip(["", " and a host"]) {
            for (body, behind) in
                [("", ""), (" and chunks", "5\r\nabcde\r\n0\r\n\r\n"), (" and a length", &"=".repeat(100))]
            {
                let bytes = format!("{head}{host}\r\n{behind}").into_bytes();
                payloads.push(Payload { name: format!("{name}{with}{body}"), bytes });
            }
        }
    }
    payloads
}

fn cases() -> Vec<Case> {
    let directory = source_of("http_desync_guardian").join("tests");
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    let documents = files.iter().map(|path| yaml(&std::fs::read_to_string(path).unwrap()));
    let cases: Vec<_> =
        documents.flat_map(|document| document.items().iter().map(case).collect::<Vec<_>>()).collect();
    assert!(150 < cases.len(), "the package has lost its cases: {}", cases.len());
    cases
}

fn case(node: &Node) -> Case {
    let mut head = format!("{} {} {}\r\n", node.text("method"), node.text("uri"), node.text("version"));
    let mut has_host = false;
    for field in node.get("headers").map(Node::items).unwrap_or_default() {
        head += &format!("{}: {}\r\n", field.text("name"), field.text("value"));
        has_host |= field.text("name").eq_ignore_ascii_case("host");
    }
    Case { name: node.text("name").to_owned(), head, has_host }
}

/// Where the source of a package is that this was compiled with.
fn source_of(package: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut packages = metadata["packages"].as_array().unwrap().iter();
    let found = packages.find(|one| one["name"] == package).expect("it is a dependency");
    PathBuf::from(found["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

fn yaml(text: &str) -> Node {
    let mut events = Parser::new_from_str(text).map(|event| event.expect("sound YAML").0);
    loop {
        let event = events.next().expect("a document");
        if !matches!(event, Event::StreamStart | Event::DocumentStart(_) | Event::Nothing) {
            return node(event, &mut events);
        }
    }
}

fn node<'e>(event: Event<'e>, events: &mut impl Iterator<Item = Event<'e>>) -> Node {
    match event {
        // In the package's tests a backslash is an escape in texts without quotes, too.
        Event::Scalar(text, ScalarStyle::Plain, ..) => {
            Node::Text(text.replace("\\t", "\t").replace("\\r", "\r").replace("\\n", "\n"))
        }
        Event::Scalar(text, ..) => Node::Text(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match events.next().expect("the list's end") {
                    Event::SequenceEnd => return Node::List(items),
                    event => items.push(node(event, events)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut entries = Vec::new();
            loop {
                let event = events.next().expect("the mapping's end");
                if matches!(event, Event::MappingEnd) {
                    return Node::Map(entries);
                }
                let Node::Text(key) = node(event, events) else { panic!("a key that is a text") };
                let value = events.next().expect("a value");
                entries.push((key, node(value, events)));
            }
        }
        other => panic!("nothing that a case has: {other:?}"),
    }
}
