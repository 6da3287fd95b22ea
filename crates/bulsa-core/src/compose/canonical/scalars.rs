//! Single values: numbers, truth values, sizes, durations, texts.

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        duration,
        keys::Shape,
        read,
        scalar::Value,
        tree::{Kind, Node, Scalar, Style},
    },
    is_null,
};

/// Checks a scalar and brings it into the one form of its kind.
pub(super) fn scalar(node: &mut Node, shape: &Shape, path: &str, diags: &mut Diagnostics) -> bool {
    match shape {
        Shape::Text => read::text(node, path, diags).is_some(),
        Shape::Word => word(node, path, "text or a number", diags),
        Shape::Label if is_null(node) => {
            node.kind = Kind::Scalar(Scalar { value: String::new(), style: Style::Quoted });
            true
        }
        Shape::Label => word(node, path, "one value", diags),
        Shape::Variable => variable(node, path, diags),
        Shape::Choice(names) => choice(node, path, names, diags),
        Shape::Bool => boolean(node, path, diags),
        Shape::Int => converted(node, path, "a whole number", diags, whole),
        Shape::Float => converted(node, path, "a number", diags, fraction),
        Shape::DeviceCount => converted(node, path, "a whole number, or `all`", diags, |value| match value {
            Value::Text(all) if all.eq_ignore_ascii_case("all") => Some("-1".to_owned()),
            other => whole(other),
        }),
        Shape::Bytes => sized(node, path, diags),
        Shape::Mode => mode(node, path, diags),
        Shape::Duration => time(node, path, diags),
        // The others hold further values.
        _ => true,
    }
}

fn set(node: &mut Node, value: String, style: Style) {
    if node.scalar().is_some_and(|scalar| {
        scalar.value == value && (scalar.style == Style::Plain) == (style == Style::Plain)
    }) {
        return;
    }
    node.kind = Kind::Scalar(Scalar { value, style });
}

/// A value that becomes a plain one.
fn converted(
    node: &mut Node,
    path: &str,
    expected: &str,
    diags: &mut Diagnostics,
    convert: impl Fn(Value<'_>) -> Option<String>,
) -> bool {
    let Some(value) = node.scalar().and_then(|scalar| convert(scalar.resolve())) else {
        diags.push(read::wrong(node, path, expected));
        return false;
    };
    set(node, value, Style::Plain);
    true
}

/// A whole number that fits into 64 bits with a sign.
fn whole(value: Value<'_>) -> Option<String> {
    /// Every whole number up to here is exact as a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let n = match value {
        Value::Int(n) => i64::try_from(n).ok()?,
        Value::Float(n) if n.fract() == 0.0 && n.abs() <= EXACT => return Some(format!("{n:.0}")),
        Value::Text(text) => text.parse().ok()?,
        _ => return None,
    };
    Some(n.to_string())
}

/// A number as Compose keeps it: with 32 bits.
fn fraction(value: Value<'_>) -> Option<String> {
    let n: f32 = match value {
        Value::Int(n) => n.to_string().parse().ok()?,
        Value::Float(n) => n.to_string().parse().ok()?,
        Value::Text(text) => text.parse().ok()?,
        _ => return None,
    };
    n.is_finite().then(|| n.to_string())
}

fn word(node: &mut Node, path: &str, expected: &str, diags: &mut Diagnostics) -> bool {
    let Some(scalar) = node.scalar() else {
        diags.push(read::wrong(node, path, expected));
        return false;
    };
    match scalar.resolve() {
        Value::Text(_) => read::text(node, path, diags).is_some(),
        Value::Null => {
            diags.push(read::wrong(node, path, expected));
            false
        }
        other => {
            let text = other.into_text().unwrap_or_default();
            set(node, text, Style::Quoted);
            true
        }
    }
}

/// A variable's value. A number is what YAML makes of it, which may not be what was meant.
fn variable(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    if is_null(node) {
        return true;
    }
    let before = node.clone();
    if !word(node, path, "one value", diags) {
        return false;
    }
    let (Some(was), Some(is)) = (before.scalar(), node.scalar()) else { return true };
    if was.value != is.value && !matches!(was.resolve(), Value::Bool(_)) {
        diags.push(
            Diagnostic::warning(
                &node.pos,
                format!("{path}: the program gets {:?}, not {:?}", is.value, was.value),
            )
            .hint(format!("YAML reads it as a number; put it in quotes to keep it: \"{}\"", was.value)),
        );
    }
    true
}

fn choice(node: &Node, path: &str, names: &[&'static str], diags: &mut Diagnostics) -> bool {
    let pairs: Vec<(&str, ())> = names.iter().map(|name| (*name, ())).collect();
    read::choice(node, path, &pairs, &[], diags).is_some()
}

fn boolean(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    // The words of YAML 1.1 count where Compose casts text.
    let word = match node.scalar().map(Scalar::resolve) {
        Some(Value::Text(text)) => match text.to_ascii_lowercase().as_str() {
            "true" | "y" | "yes" | "on" => Some("true"),
            "false" | "n" | "no" | "off" => Some("false"),
            _ => None,
        },
        Some(Value::Bool(b)) => Some(if b { "true" } else { "false" }),
        _ => None,
    };
    let Some(word) = word else {
        diags.push(read::wrong(node, path, "true or false"));
        return false;
    };
    set(node, word.to_owned(), Style::Plain);
    true
}

fn sized(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    let bytes = node.scalar().and_then(|scalar| match scalar.resolve() {
        Value::Int(n) => i64::try_from(n).ok(),
        Value::Float(n) => bytes(&n.to_string()),
        Value::Text(text) => bytes(text),
        _ => None,
    });
    let Some(bytes) = bytes else {
        diags.push(read::wrong(node, path, "a size such as 512m or 2gb, or a number of bytes"));
        return false;
    };
    set(node, bytes.to_string(), Style::Quoted);
    true
}

/// A size in bytes: a number, or one with a unit of 1024 (`k`, `m`, `g`, `t`, `p`, `kb`, `kib`, …), in any case.
pub(super) fn bytes(text: &str) -> Option<i64> {
    if let Ok(exact) = text.parse::<i64>() {
        return Some(exact);
    }
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if !unit.starts_with('i') => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let scaled = (number * 1024_f64.powi(power)).trunc();
    format!("{scaled:.0}").parse().ok()
}

fn mode(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    let bits = node.scalar().and_then(|scalar| match scalar.resolve() {
        Value::Int(n) => i64::try_from(n).ok(),
        Value::Text(text) => i64::from_str_radix(text, 8).ok(),
        _ => None,
    });
    let Some(bits) = bits.filter(|bits| *bits >= 0) else {
        diags.push(read::wrong(node, path, "permission bits such as 0440"));
        return false;
    };
    set(node, format!("0{bits:o}"), Style::Quoted);
    true
}

fn time(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    const ANY: duration::Bounds =
        duration::Bounds { min: std::time::Duration::ZERO, max: std::time::Duration::MAX };
    let Some(found) = read::any_duration(node, path, ANY, diags) else { return false };
    set(node, duration::format(found), Style::Quoted);
    true
}
