use proptest::prelude::*;

use super::{
    super::diagnostic::{Diagnostics, Severity},
    *,
};

fn read(text: &str) -> (Option<Node>, Vec<String>) {
    let mut diags = Diagnostics::default();
    let node = parse("f.yaml", text, &mut diags);
    assert!(diags.list().iter().all(|d| d.severity == Severity::Error));
    (node, diags.list().iter().map(|d| format!("{}: {}", d.pos, d.message)).collect())
}

/// The tree in one line, without positions; a text in quotes was written as one.
fn shape(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar(s) if s.style == Style::Plain => s.value.clone(),
        Kind::Scalar(s) => format!("{:?}", s.value),
        Kind::Sequence(items) => format!("[{}]", items.iter().map(shape).collect::<Vec<_>>().join(", ")),
        Kind::Mapping(entries) => {
            let entries: Vec<_> = entries.iter().map(|e| format!("{}: {}", e.key, shape(&e.value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

fn check(text: &str, expected: &str) {
    let (node, mistakes) = read(text);
    assert_eq!(mistakes, Vec::<String>::new(), "{text}");
    assert_eq!(shape(&node.unwrap()), expected, "{text}");
}

#[test]
fn documents_become_trees() {
    check("a: 1\nb: [x, 'y', \"z\"]\n", r#"{a: 1, b: [x, "y", "z"]}"#);
    check("---\na: |\n  x\n  y\n...\n", r#"{a: "x\ny\n"}"#);
    check("\u{feff}a: !!str 1\nb: !!int 2\nc: ! 3\n", r#"{a: "1", b: 2, c: "3"}"#);
    check("a:\n  - b: 1\n    c:\n  -\n", "{a: [{b: 1, c: }, ]}");
    check("1: x\ntrue: y\n", "{1: x, true: y}");
    check("a: 1\r\nb: 2\r\n", "{a: 1, b: 2}");
}

#[test]
fn places_are_counted_from_one_in_characters() {
    let (node, _) = read("가: {b: x}\nc:\n  - 'd'\n");
    let node = node.unwrap();
    let place = |n: &Node| (n.pos.line, n.pos.col);
    assert_eq!(place(&node), (1, 1));
    let b = node.get("가").unwrap();
    assert_eq!(place(b), (1, 4));
    assert_eq!(place(b.get("b").unwrap()), (1, 8));
    let Kind::Sequence(items) = &node.get("c").unwrap().kind else { panic!() };
    assert_eq!(place(&items[0]), (3, 5));
    let entry = node.entry("c").unwrap();
    assert_eq!((entry.key_pos.line, entry.key_pos.col), (2, 1));
}

#[test]
fn merge_keys_are_shallow_and_lose_against_explicit_keys() {
    let base = "a: &a {x: 1, m: {p: 1}}\nb: &b {x: 2, y: 2}\n";
    check(
        &format!("{base}c:\n  <<: *a\n  m: {{q: 2}}\n"),
        "{a: {x: 1, m: {p: 1}}, b: {x: 2, y: 2}, c: {m: {q: 2}, x: 1}}",
    );
    check(
        &format!("{base}c: {{<<: [*a, *b]}}\n"),
        "{a: {x: 1, m: {p: 1}}, b: {x: 2, y: 2}, c: {x: 1, m: {p: 1}, y: 2}}",
    );
    check("c: {'<<': 1}\n", "{c: {<<: 1}}");
    let (_, mistakes) = read("a: &a 1\nb: {<<: *a}\n");
    assert_eq!(mistakes, ["f.yaml:2:5: `<<` merges something that isn't a mapping"]);
}

#[test]
fn tags_of_composes_own_are_kept() {
    let (node, _) = read("a: !reset null\nb: !override [x]\n");
    let node = node.unwrap();
    assert_eq!(node.get("a").unwrap().tag.as_deref(), Some("!reset"));
    assert_eq!(node.get("b").unwrap().tag.as_deref(), Some("!override"));
}

#[test]
fn a_file_without_a_document_is_a_mapping_without_keys() {
    for text in ["", "# nothing\n", "\u{feff}\n"] {
        let (node, mistakes) = read(text);
        assert!(node.is_some_and(|node| node.is_no_document()) && mistakes.is_empty(), "{text:?}");
    }
    assert!(!read("{}").0.unwrap().is_no_document());
}

#[test]
fn mistakes_are_named_at_their_place() {
    for (text, expected) in [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "f.yaml:5:3: `c` comes twice in this mapping"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: a second YAML document starts here"),
        ("[a]: 1\n", "f.yaml:1:1: a list or mapping can't be a key"),
        ("a: &a [*a]\n", "f.yaml:1:8: this alias refers to a value that contains it"),
    ] {
        assert_eq!(read(text).1, [expected], "{text}");
    }
    let (node, mistakes) = read("a: 1\nb: 'x\n");
    assert!(node.is_none());
    assert!(mistakes[0].starts_with("f.yaml:2:4: this isn't valid YAML"), "{mistakes:?}");
}

#[test]
fn a_repeated_key_stops_nothing() {
    let (node, mistakes) = read("a: 1\na: 2\nb: 3\nb: 4\n");
    assert_eq!(shape(&node.unwrap()), "{a: 1, b: 3}");
    assert_eq!(mistakes.len(), 2);
}

#[test]
fn small_files_that_grow_are_refused() {
    let mut bomb = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for i in 1..20 {
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 8].join(", ")));
    }
    assert!(read(&bomb).1[0].contains("expand to too much"));

    let mut tower = "a0: &a0 [x]\n".to_owned();
    for i in 1..200 {
        tower.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
    }
    assert!(read(&tower).1[0].contains("nested too deeply"));
    let nested = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
    assert!(read(&nested).1[0].contains("nested too deeply"));
    assert!(read(&"[".repeat(100_000)).0.is_none());
    assert!(read(&"x".repeat(MAX_FILE_BYTES + 1)).1[0].contains("bytes"));
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn no_text_of_yamls_special_characters_panics(text in "[a \n\t:,?&*!|>'\"%@`<{}#~-]{0,60}|(\\[|\\]|a|-|\n| |:|\\{|\\}|&a |\\*a){0,40}") {
        read(&text);
    }
}
