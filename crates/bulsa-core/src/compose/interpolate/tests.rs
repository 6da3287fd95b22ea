use proptest::prelude::*;

use super::{
    super::{
        diagnostic::{Diagnostics, Severity},
        tree,
    },
    *,
};

fn environment(name: &str) -> Option<String> {
    match name {
        "A" => Some("aval".to_owned()),
        "E" => Some(String::new()),
        _ => None,
    }
}

fn check(text: &str) -> String {
    match substitute(text, &environment) {
        Ok(done) if done.missing.is_empty() => done.text,
        Ok(done) => format!("{} (missing {})", done.text, done.missing.join(" ")),
        Err(error) => format!("error: {error}"),
    }
}

/// `A` is `aval`, `E` is set but empty, the others are unset; the right sides are Docker Compose 2.40's.
#[test]
fn every_form_gives_what_compose_gives() {
    for (text, expected) in [
        ("$A", "aval"),
        ("${A}", "aval"),
        ("x $A.y ${A}_z", "x aval.y aval_z"),
        ("${U-d}", "d"),
        ("${E-d}", ""),
        ("${U:-d}", "d"),
        ("${E:-d}", "d"),
        ("${A:-d}", "aval"),
        ("${U+x}", ""),
        ("${E+x}", "x"),
        ("${E:+x}", ""),
        ("${A:+x$A}", "xaval"),
        ("${U:-${W:-deep}}", "deep"),
        ("${U:-$A-${E:-q}}", "aval-q"),
        ("${U:-a:-b}", "a:-b"),
        ("${U-a?b}", "a?b"),
        ("${U:-}}", "}"),
        ("${U:-a}b}", "ab}"),
        ("${U:-{a}}", "{a}"),
        ("${A:-{a}}", "aval"),
        ("${U:-{{x}}", "{{x}"),
        ("${A:+{}}", "{}"),
        ("${U:-${A}}}", "aval}"),
        ("${U:-$${x}}", "${x}"),
        ("${U:-$$x}", "$x"),
        ("$$A", "$A"),
        ("$$$A", "$aval"),
        ("$${A}", "${A}"),
        ("$$$$", "$$"),
        ("$$$", "$$"),
        ("$1", "$1"),
        ("$ x", "$ x"),
        ("a$", "a$"),
        ("$É", "$É"),
        ("${U-$}", "$"),
        ("${E?must}", ""),
        ("${A:?must}", "aval"),
        ("한국 ${A}", "한국 aval"),
        ("$U", " (missing U)"),
        ("$A_z", " (missing A_z)"),
        ("${U:-$V}", " (missing V)"),
        ("${U:?must set}", "error: the variable `U` is required but not set: must set"),
        ("${E:?must set}", "error: the variable `E` is required but empty: must set"),
        ("${U?}", "error: the variable `U` is required but not set"),
        ("${U:?need $A}", "error: the variable `U` is required but not set: need aval"),
        ("${}", "error: `${}` is no valid use of a variable"),
        ("${A", "error: `${A` is no valid use of a variable"),
        ("${A:}", "error: `${A:}` is no valid use of a variable"),
        ("${1}", "error: `${1}` is no valid use of a variable"),
        ("${A }", "error: `${A }` is no valid use of a variable"),
        ("${U!x}", "error: `${U!x}` is no valid use of a variable"),
        ("${A/b/c}", "error: `${A/b/c}` is no valid use of a variable"),
        ("${-x}", "error: `${-x}` is no valid use of a variable"),
        ("${é}", "error: `${é}` is no valid use of a variable"),
        ("${A:-${}}", "error: `${}` is no valid use of a variable"),
        ("${U:-${A", "error: `${U:-${A` is no valid use of a variable"),
    ] {
        assert_eq!(check(text), expected, "{text}");
    }
}

#[test]
fn an_unused_arm_may_require_or_name_what_is_missing() {
    assert_eq!(check("${A:-${U:?x}}"), "aval");
    assert_eq!(check("${U:+${V:?x}}"), "");
    assert_eq!(check("${A:-$U}"), "aval");
    assert_eq!(check("${U:-${V:?x}}"), "error: the variable `V` is required but not set: x");
}

#[test]
fn long_and_deep_texts_are_refused() {
    let deep = format!("{}x{}", "${U-".repeat(MAX_NESTING + 2), "}".repeat(MAX_NESTING + 2));
    assert_eq!(substitute(&deep, &environment), Err(SubstituteError::TooDeep));
    let big = |_: &str| Some("x".repeat(MAX_VALUE_BYTES / 2));
    assert_eq!(substitute("$A$A$A", &big), Err(SubstituteError::TooLong));
}

fn interpolated(text: &str) -> (Node, Diagnostics) {
    let mut diags = Diagnostics::default();
    let mut node = tree::parse("f.yaml", text, &mut diags).expect("valid YAML");
    interpolate(&mut node, &environment, &mut diags);
    (node, diags)
}

#[test]
fn values_are_filled_in_and_keys_are_not() {
    let (node, diags) = interpolated("$A: [$A, {k: '$A'}]\nn: $E1\n");
    assert!(node.get("$A").is_some());
    let Some(Kind::Sequence(items)) = node.get("$A").map(|n| n.kind.clone()) else { panic!() };
    assert_eq!(items[0].scalar().map(|s| (s.value.as_str(), s.style)), Some(("aval", Style::Substituted)));
    assert_eq!(items[1].get("k").and_then(Node::scalar).map(|s| s.style), Some(Style::Quoted));
    assert_eq!(diags.list().len(), 1);
}

#[test]
fn mistakes_stand_at_the_value_and_a_variable_is_warned_of_once() {
    let (_, diags) = interpolated("a:\n  b: x${A\nc: $U\nd: [$U, '${V?say}']\n");
    let seen: Vec<_> = diags.list().iter().map(|d| (d.severity, d.pos.line, d.pos.col)).collect();
    assert_eq!(seen, [(Severity::Error, 2, 6), (Severity::Warning, 3, 4), (Severity::Error, 4, 9)]);
    assert_eq!(diags.list()[0].message, "a.b: `${A` is no valid use of a variable");
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn no_text_of_the_special_characters_panics(text in "[$A{}:?+ -é]{0,40}") {
        check(&text);
    }

    #[test]
    fn text_without_dollars_is_left_alone(text in "[^$]*") {
        prop_assert_eq!(check(&text), text);
    }

    #[test]
    fn doubled_dollars_give_the_text_back(text in any::<String>()) {
        prop_assert_eq!(check(&text.replace('$', "$$")), text);
    }
}
