//! `.dockerignore`: which files of a build context are left out.
//!
//! Owns: Docker's rules for the file's lines and for its patterns. Never: reads the file or walks a directory.
//!
//! The rules are those of moby's `patternmatcher` and `ignorefile` packages, which differ from `.gitignore`: a pattern
//! is always seen from the context's root, `**` crosses directories, what lies in a matching directory matches too, and
//! the last pattern that says something about a path decides (`!` takes it back in).

/// A file has at most so many patterns.
const PATTERNS_MAX: usize = 10_000;
/// A pattern has at most so many characters.
const PATTERN_MAX: usize = 4096;

/// The patterns of one `.dockerignore`.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// Why a `.dockerignore` can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct IgnoreError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

#[derive(Clone, Debug)]
struct Pattern {
    keep: bool,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// This character.
    Is(char),
    /// `?`: any but `/`.
    One,
    /// `*`: any number of characters but `/`.
    Many,
    /// `**` or `**/` with something behind it: any number of directories, none included.
    Directories,
    /// `**` at an end: anything.
    Anything,
    /// `[a-z]`, `[^a-z]`
    Class { not: bool, ranges: Vec<(char, char)> },
}

impl Ignore {
    /// Reads the file's text.
    ///
    /// # Errors
    /// At the first line that Docker would refuse too.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let mut patterns = Vec::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            // Only a `#` in the first column begins a comment.
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let failed = |what: String| IgnoreError { line: index + 1, what };
            if patterns.len() == PATTERNS_MAX || line.chars().count() > PATTERN_MAX {
                return Err(failed(format!(
                    "at most {PATTERNS_MAX} patterns of {PATTERN_MAX} characters are read"
                )));
            }
            let line = line.trim();
            let (keep, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if pattern.is_empty() {
                return Err(failed("`!` stands alone; it takes back in what follows it".to_owned()));
            }
            let cleaned = clean(pattern);
            let tokens = tokens(&cleaned)
                .ok_or_else(|| failed(format!("`{pattern}` has a `[` or `\\` without its end")))?;
            patterns.push(Pattern { keep, tokens });
        }
        Ok(Self { patterns })
    }

    /// Whether a path is left out. The path is relative to the context, with `/` between its parts.
    #[must_use]
    pub fn leaves_out(&self, path: &str) -> bool {
        let path: Vec<char> = path.chars().collect();
        let mut out = false;
        for pattern in &self.patterns {
            // A pattern that would change nothing needs no look.
            if pattern.keep == out && pattern.matches_it_or_a_parent(&path) {
                out = !pattern.keep;
            }
        }
        out
    }

    /// Whether something below a directory that is left out may be taken back in, so that all must be looked into.
    #[must_use]
    pub fn may_keep_below(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.keep)
    }
}

impl Pattern {
    fn matches_it_or_a_parent(&self, path: &[char]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, letter)| **letter == '/').map(|(at, _)| at);
        ends.chain([path.len()]).any(|end| matches(&self.tokens, &path[..end]))
    }
}

/// As Go's `filepath.Clean`, and without a slash at its start.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"..") | None if !pattern.starts_with('/') => parts.push(".."),
                _ => {
                    parts.pop();
                }
            },
            other => parts.push(other),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

/// `None` where a class or an escape has no end.
fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        tokens.push(match letter {
            '*' if letters.next_if_eq(&'*').is_some() => {
                // `**/` is the same as `**`: the slash is eaten.
                letters.next_if_eq(&'/');
                match letters.peek() {
                    None => Token::Anything,
                    // `**x` at the very start is anything that ends so, even in the middle of a name.
                    Some(_) if tokens.is_empty() && !pattern.starts_with("**/") => Token::Anything,
                    Some(_) => Token::Directories,
                }
            }
            '*' => Token::Many,
            '?' => Token::One,
            '\\' => Token::Is(letters.next()?),
            '[' => class(&mut letters)?,
            other => Token::Is(other),
        });
    }
    Some(tokens)
}

fn class(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let not = letters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match letters.next()? {
            ']' if !ranges.is_empty() => return Some(Token::Class { not, ranges }),
            '\\' => letters.next()?,
            other => other,
        };
        let mut high = low;
        if letters.next_if_eq(&'-').is_some() {
            high = match letters.next()? {
                ']' => return None,
                '\\' => letters.next()?,
                other => other,
            };
        }
        ranges.push((low, high));
    }
}

/// Whether the tokens match the whole text: all ways at once, so that no pattern takes long.
fn matches(tokens: &[Token], text: &[char]) -> bool {
    // `reached[t]`: the tokens before `t` can match the text up to here.
    let mut reached = vec![false; tokens.len() + 1];
    // Inside the directories of a `Directories` token, where a slash may end them.
    let mut inside = vec![false; tokens.len()];
    reached[0] = true;
    skip_empty(tokens, &mut reached);
    for letter in text {
        let mut next = vec![false; tokens.len() + 1];
        for (at, token) in tokens.iter().enumerate() {
            let here = reached[at];
            match token {
                Token::Is(wanted) => next[at + 1] |= here && wanted == letter,
                Token::One => next[at + 1] |= here && *letter != '/',
                Token::Class { not, ranges } => {
                    let is_in = ranges.iter().any(|(low, high)| (low..=high).contains(&letter));
                    next[at + 1] |= here && is_in != *not;
                }
                Token::Many => next[at] |= here && *letter != '/',
                Token::Anything => next[at] |= here,
                Token::Directories => {
                    inside[at] |= here;
                    next[at + 1] |= inside[at] && *letter == '/';
                }
            }
        }
        skip_empty(tokens, &mut next);
        reached = next;
    }
    reached[tokens.len()]
}

/// Tokens that may match nothing at all.
fn skip_empty(tokens: &[Token], reached: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if reached[at] && matches!(token, Token::Many | Token::Anything | Token::Directories) {
            reached[at + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(patterns: &str, path: &str) -> bool {
        Ignore::parse(patterns).unwrap().leaves_out(path)
    }

    #[test]
    fn patterns_are_seen_from_the_root() {
        for (pattern, path, is_out) in [
            ("node_modules", "node_modules", true),
            ("node_modules", "node_modules/x/y.js", true),
            ("node_modules", "web/node_modules", false),
            ("**/node_modules", "web/node_modules/x", true),
            ("**/node_modules", "node_modules", true),
            ("**/node_modules", "my_node_modules", false),
            ("/dist", "dist/a", true),
            ("./dist/", "dist/a", true),
            ("a/../dist", "dist", true),
            ("*.md", "README.md", true),
            ("*.md", "docs/README.md", false),
            ("*/*.md", "docs/README.md", true),
            ("**/*.md", "a/b/c.md", true),
            ("docs/**", "docs/a/b", true),
            ("docs/**", "docs", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/bz", false),
            ("**", "anything/at/all", true),
            ("*", "anything/at/all", true),
            ("**.log", "a/b.log", true),
            ("temp?", "temp1", true),
            ("temp?", "temp", false),
            ("temp?", "temp/", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            (r"\*x", "*x", true),
            (r"\*x", "ax", false),
            ("a.b", "axb", false),
            (".", "a", false),
        ] {
            assert_eq!(out(pattern, path), is_out, "`{pattern}` on `{path}`");
        }
    }

    #[test]
    fn the_last_pattern_that_says_something_decides() {
        assert!(!out("*.md\n!README.md", "README.md"));
        assert!(out("*.md\n!README*.md\nREADME-secret.md", "README-secret.md"));
        assert!(!out("*\n!src", "src/main.rs"));
        assert!(out("*\n!src\nsrc/*.key", "src/a.key"));
        assert!(out("!README.md\n*.md", "README.md"));
    }

    #[test]
    fn comments_blanks_and_a_byte_order_mark() {
        let text = "\u{feff}# a comment\n\n   \n  secret  \r\n #not-a-comment\n! secret/keep";
        assert!(out(text, "secret"));
        assert!(out(text, "#not-a-comment"));
        assert!(!out(text, "secret/keep"));
        assert!(!out(text, "# a comment"));
    }

    #[test]
    fn a_directory_is_entered_only_where_something_may_come_back() {
        assert!(!Ignore::parse("a").unwrap().may_keep_below());
        assert!(Ignore::parse("a\n!a/b").unwrap().may_keep_below());
    }

    #[test]
    fn what_docker_refuses_is_refused_with_its_line() {
        assert_eq!(Ignore::parse("a\n!").unwrap_err().line, 2);
        assert_eq!(Ignore::parse("[a").unwrap_err().line, 1);
        assert_eq!(
            Ignore::parse("x\\").unwrap_err().to_string(),
            "line 1: `x\\` has a `[` or `\\` without its end"
        );
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = "*a".repeat(40) + "b";
        assert!(!out(&pattern, &"a".repeat(2000)));
    }
}
