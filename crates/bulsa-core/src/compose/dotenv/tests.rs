use proptest::prelude::*;

use super::{
    super::diagnostic::{Diagnostics, Severity},
    *,
};

fn read(text: &str, format: Format) -> (BTreeMap<String, String>, Vec<String>) {
    let mut diags = Diagnostics::default();
    let environment = |name: &str| (name == "SHELL_VAR").then(|| "from shell".to_owned());
    let values = parse(".env", text, format, &environment, &mut diags);
    let lines = diags.list().iter().map(|d| format!("{}: {}: {}", d.pos, d.severity, d.message)).collect();
    (values, lines)
}

fn value(text: &str) -> String {
    let (values, mistakes) = read(text, Format::Compose);
    assert_eq!(mistakes, Vec::<String>::new(), "{text}");
    values.get("K").unwrap_or_else(|| panic!("{text}: {values:?}")).clone()
}

/// The right sides are Docker Compose 2.40's.
#[test]
fn values_are_read_as_compose_reads_them() {
    for (text, expected) in [
        ("K=1", "1"),
        ("# c\n\n  export K = two words # c\n", "two words"),
        ("K=a#b", "a#b"),
        ("K=a #b", "a"),
        ("K: yaml", "yaml"),
        ("K:\ttab\r\n", "tab"),
        ("K=", ""),
        ("K=a=b", "a=b"),
        ("K=a\\nb", "a\\nb"),
        ("K=`x`", "`x`"),
        ("K=\"x\" # y", "x"),
        ("K='single $A'", "single $A"),
        ("K='a\\nb\\'c'", "a\\nb'c"),
        ("K=\"a\\\\nb\\tc\\0101\\07z\\q\\\"w\"", "a\\nb\tcA\\07z\\q\"w"),
        ("K=\"multi\nline\"\n", "multi\nline"),
        ("A=1\nK=\"${A} \\n \\$A $$A\"", "1 \n $A $A"),
        ("A=1\nK=${A}-${NO:-dflt}", "1-dflt"),
        ("SHELL_VAR=x\nK=$SHELL_VAR", "from shell"),
        ("K=$1 a$", "$1 a$"),
        ("K=1\nK=2", "2"),
        ("K=\"it's\"", "it's"),
        ("K='한국'", "한국"),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}

#[test]
fn a_lone_name_comes_from_the_environment_or_not_at_all() {
    let (values, _) = read("SHELL_VAR\nNOT_THERE\nexport SHELL_VAR", Format::Compose);
    assert_eq!(values, BTreeMap::from([("SHELL_VAR".to_owned(), "from shell".to_owned())]));
}

#[test]
fn raw_files_are_taken_as_they_are() {
    let (values, mistakes) = read("# c\nA=\"q\" # c\nB='$A'\n\nC= sp \r\nSHELL_VAR\nX Y=1\n", Format::Raw);
    let expected = [("A", "\"q\" # c"), ("B", "'$A'"), ("C", " sp "), ("SHELL_VAR", "from shell")];
    assert_eq!(values, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(mistakes, [".env:7:1: error: `X Y` is no variable's name"]);
}

#[test]
fn every_mistake_is_named_and_the_rest_is_read() {
    let (values, mistakes) = read(
        "A B=1\nC*=2\n=x\nOK=1\nQ=\"a\" b\nV=${\nR=${NO:?say}\nW= # c\nU=$NO\nL='x\nLAST=1\n",
        Format::Compose,
    );
    assert_eq!(
        mistakes,
        [
            ".env:1:1: error: ' ' can't be part of a variable's name, in `A B`",
            ".env:2:1: error: '*' can't be part of a variable's name, in `C*`",
            ".env:3:1: error: a name is missing before the `=`",
            ".env:5:7: warning: text follows the closing quote",
            ".env:6:3: error: V: `${` is no valid use of a variable",
            ".env:7:3: error: R: the variable `NO` is required but not set: say",
            ".env:8:4: warning: the value of W starts with `#`",
            ".env:9:3: warning: U: the variable `NO` is not set",
            ".env:10:3: error: the quote that starts the value of L is not closed",
        ]
    );
    assert_eq!(values.get("OK").map(String::as_str), Some("1"));
    assert_eq!(values.get("LAST").map(String::as_str), Some("1"));
}

/// As Compose does it, which says nothing.
#[test]
fn text_behind_a_closing_quote_is_read_as_another_line() {
    let (values, mistakes) = read("A=\"x\"SHELL_VAR\nB='y'C=z # c\nD=\"w\"# c\n", Format::Compose);
    let expected = [("A", "x"), ("B", "y"), ("C", "z"), ("D", "w"), ("SHELL_VAR", "from shell")];
    assert_eq!(values, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(
        mistakes,
        [
            ".env:1:6: warning: text follows the closing quote",
            ".env:2:6: warning: text follows the closing quote",
        ]
    );
}

#[test]
fn values_that_double_with_every_line_are_refused() {
    let mut text = "A0=xxxxxxxxxxxxxxxx\n".to_owned();
    for i in 1..40 {
        text.push_str(&format!("A{i}=$A{0}$A{0}\n", i - 1));
    }
    let (values, mistakes) = read(&text, Format::Compose);
    assert!(values.values().map(String::len).sum::<usize>() <= MAX_VALUES_BYTES);
    assert!(!mistakes.is_empty());
    assert!(mistakes.iter().any(|m| m.contains(&Severity::Error.to_string())));
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        read(&text, Format::Compose);
        read(&text, Format::Raw);
    }

    #[test]
    fn no_text_of_the_special_characters_panics(text in "[A=:'\"\\\\$#{}\n 0né-]{0,40}") {
        read(&text, Format::Compose);
        read(&text, Format::Raw);
    }

    #[test]
    fn single_quotes_keep_everything(text in "[^'\\\\]*") {
        prop_assert_eq!(value(&format!("K='{text}'")), text);
    }
}
