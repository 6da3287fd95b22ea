//! A command written as one string, split into words as Compose splits it.
//!
//! Owns: quotes, backslashes, and that a `` `…` `` or `$(…)` stays one word, for the shell that may get it. No shell is started, so a redirection, a pipe or a second command would be lost:
//! Compose drops everything from there on; here it is a mistake.

/// Why a string can't be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// A quote has no partner.
    #[error("a {0} quote is not closed")]
    OpenQuote(char),
    /// A `$(` has no partner.
    #[error("a `$(` is not closed")]
    OpenSubstitution,
    /// A character that only a shell understands.
    #[error("`{0}` needs a shell, and a command written as one string gets none")]
    ShellOperator(char),
    /// A backslash with nothing after it.
    #[error("it ends in a backslash")]
    TrailingBackslash,
}

/// Splits at spaces, tabs and line breaks outside quotes. In double quotes and outside quotes a backslash keeps the
/// next character as it is; in single quotes everything is.
pub fn split(text: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    // Within `…` and $(…) spaces and operators are the shell's.
    let (mut back, mut dollar) = (false, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"') | None, '\\') => {
                let next = chars.next().ok_or(WordsError::TrailingBackslash)?;
                word.get_or_insert_default().push(next);
            }
            (None, '"' | '\'') if !dollar => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '`') if !dollar => {
                back = !back;
                word.get_or_insert_default().push(c);
            }
            (None, '(' | ')') if !back => {
                let opens = !dollar && word.as_ref().is_some_and(|word| word.ends_with('$'));
                if (c == '(') != opens || (c == ')') != dollar {
                    return Err(WordsError::ShellOperator(c));
                }
                dollar = opens;
                word.get_or_insert_default().push(c);
            }
            (None, ' ' | '\t' | '\n' | '\r') if !back && !dollar => words.extend(word.take()),
            (None, ';' | '&' | '|' | '<' | '>') if !back && !dollar => {
                return Err(WordsError::ShellOperator(c));
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(WordsError::OpenQuote(open));
    }
    match (back, dollar) {
        (true, _) => return Err(WordsError::OpenQuote('`')),
        (false, true) => return Err(WordsError::OpenSubstitution),
        (false, false) => {}
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_split_as_in_compose() {
        for (text, words) in [
            ("", &[][..]),
            ("  a  b\tc\n", &["a", "b", "c"]),
            (r#"echo "a b" 'c d' \"x"#, &["echo", "a b", "c d", "\"x"]),
            (r#"a\tb "c\nd" "e\"f" 'g\h' "i\x" # j"#, &["atb", "cnd", "e\"f", "g\\h", "ix", "#", "j"]),
            ("a'b c'd \"\" ''", &["ab cd", "", ""]),
            (r"a\ b", &["a b"]),
            ("a `b; c` d", &["a", "`b; c`", "d"]),
            ("a x$(b 'c d' | e)y d", &["a", "x$(b 'c d' | e)y", "d"]),
            ("a `b '(' c`", &["a", "`b ( c`"]),
            ("a '(' \"$(b c)\"", &["a", "(", "$(b c)"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
    }

    #[test]
    fn what_needs_a_shell_is_refused_instead_of_dropped() {
        assert_eq!(split("sh -c foo; bar"), Err(WordsError::ShellOperator(';')));
        assert_eq!(split("a > b"), Err(WordsError::ShellOperator('>')));
        assert_eq!(split("a 'b"), Err(WordsError::OpenQuote('\'')));
        for text in ["a (b)", "a b)", "a $(b (c))"] {
            assert!(matches!(split(text), Err(WordsError::ShellOperator('(' | ')'))), "{text}");
        }
        assert_eq!(split("a `b c"), Err(WordsError::OpenQuote('`')));
        assert_eq!(split("a $(b c"), Err(WordsError::OpenSubstitution));
        assert_eq!(split("a \\"), Err(WordsError::TrailingBackslash));
        assert_eq!(split("a ';' \\| \"&\"").unwrap(), ["a", ";", "|", "&"]);
    }
}
