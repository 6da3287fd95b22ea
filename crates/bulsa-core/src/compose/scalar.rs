//! What a scalar means: nothing, a truth value, a number, or text.
//!
//! Owns: the rules that Compose's own YAML reader follows (YAML 1.2 with the number forms of 1.1), and the text that
//! Compose makes of a number where it wants text: `0x1F` in `environment` is `31` in the container, `1.50` is `1.5`.
//! Never: knows which key a value belongs to.

use super::tree::{Scalar, Style};

/// A scalar with its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number of at most 64 bits, with or without a sign.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// Everything else.
    Text(&'a str),
}

impl Scalar {
    /// Its type and value.
    #[must_use]
    pub fn resolve(&self) -> Value<'_> {
        if self.style != Style::Plain {
            return Value::Text(&self.value);
        }
        match self.value.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            ".nan" | ".NaN" | ".NAN" => Value::Float(f64::NAN),
            text => infinity(text).or_else(|| int(text)).or_else(|| float(text)).unwrap_or(Value::Text(text)),
        }
    }
}

impl Value<'_> {
    /// For messages: `the number 5`, `true`, `nothing`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(b) => format!("the truth value {b}"),
            Self::Int(n) => format!("the number {n}"),
            Self::Float(n) => format!("the number {}", float_text(*n)),
            Self::Text(text) => format!("{text:?}"),
        }
    }

    /// The text that Compose makes of it where it wants text; `None` for nothing.
    #[must_use]
    pub fn into_text(self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Bool(b) => Some(b.to_string()),
            Self::Int(n) => Some(n.to_string()),
            Self::Float(n) => Some(float_text(n)),
            Self::Text(text) => Some(text.to_owned()),
        }
    }
}

fn infinity(text: &str) -> Option<Value<'static>> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    matches!(rest, ".inf" | ".Inf" | ".INF").then_some(Value::Float(sign * f64::INFINITY))
}

fn int(text: &str) -> Option<Value<'static>> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = digits.replace('_', "");
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        Some(two) if two.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let n = i128::from_str_radix(digits, radix).ok()?;
    let n = if negative { -n } else { n };
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&n).then_some(Value::Int(n))
}

fn float(text: &str) -> Option<Value<'static>> {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-' | '_');
    let starts = body.starts_with(|c: char| c.is_ascii_digit())
        || (body.starts_with('.') && body[1..].starts_with(|c: char| c.is_ascii_digit()));
    if !starts || !body.chars().all(numeric) {
        return None;
    }
    text.replace('_', "").parse().ok().filter(|n: &f64| n.is_finite()).map(Value::Float)
}

/// The shortest text that reads back as `n`, in the notation that Go chooses.
fn float_text(n: f64) -> String {
    /// From this power of ten on (and below the minus fourth) Go writes an exponent.
    const EXPONENT_FROM: i32 = 6;
    const EXPONENT_BELOW: i32 = -4;
    if n.is_nan() {
        return "NaN".to_owned();
    }
    if n.is_infinite() {
        return if n > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{n:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (EXPONENT_BELOW..EXPONENT_FROM).contains(&exponent) {
        return n.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_become_the_text_that_compose_gives_a_container() {
        // Each right side is what Docker Compose 2.40 prints for it in `environment`.
        for (written, text) in [
            ("1.10", "1.1"),
            ("1e3", "1000"),
            ("0o17", "15"),
            ("1_000", "1000"),
            (".inf", "+Inf"),
            ("12345678901234567890", "12345678901234567890"),
            ("-0", "0"),
            ("+1", "1"),
            ("1e30", "1e+30"),
            ("0b11", "3"),
            ("on", "on"),
            ("yes", "yes"),
            ("1.", "1"),
            ("017", "15"),
            ("089", "89"),
            ("0755", "493"),
            ("0x1F", "31"),
            ("100000000.5", "1.000000005e+08"),
            ("1e20", "1e+20"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("123456789.0", "1.23456789e+08"),
            (".5", "0.5"),
            ("True", "true"),
            ("0x", "0x"),
            ("y", "y"),
            ("1-2", "1-2"),
            ("1.2.3", "1.2.3"),
            ("-", "-"),
            (".", "."),
            ("0_", "0"),
        ] {
            let scalar = Scalar { value: written.to_owned(), style: Style::Plain };
            assert_eq!(scalar.resolve().into_text().as_deref(), Some(text), "{written}");
        }
        for nothing in ["", "~", "null", "NULL"] {
            let scalar = Scalar { value: nothing.to_owned(), style: Style::Plain };
            assert_eq!(scalar.resolve(), Value::Null);
        }
    }

    #[test]
    fn quotes_and_variables_make_text() {
        for style in [Style::Quoted, Style::Substituted] {
            let scalar = Scalar { value: "0755".to_owned(), style };
            assert_eq!(scalar.resolve(), Value::Text("0755"));
        }
    }
}
