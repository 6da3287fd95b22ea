//! Texts of strangers in messages that mean something to their reader's program.
//!
//! Owns: what of a text may pass, as a line of prose and as a line of a code block, for Slack and for Discord; and cutting
//! it to a length. Never: leaves anything in that could mention people, open a link, or end the block that it stands in.

/// What follows a text that was cut.
const CUT: char = '…';
/// Stands behind each backtick that can't be escaped, so that three never meet: they begin and end a code block. It has
/// no width.
const ZERO_WIDTH_SPACE: char = '\u{200b}';

/// For whom a text is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Slack's mrkdwn. Its three characters have entities, in blocks too; nothing else can be escaped, and formatting that
    /// a text brings along harms nobody.
    Slack,
    /// Discord's markdown, where every punctuation mark may be escaped, but in code blocks.
    Discord,
}

/// How a message's length is counted: UTF-16 units, the largest of what those services count in.
pub(super) fn length(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// A text without control characters and without the escape sequences of terminals; a tab is a space. Characters that turn
/// the direction of what follows go, too.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                // Parameters, up to and with the letter that ends the sequence.
                while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
                chars.next_if(|c| matches!(c, '@'..='~'));
            }
            '\t' | '\n' | '\r' => out.push(' '),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// A clean text as prose, at most `max` long.
pub(super) fn prose(text: &str, dialect: Dialect, max: usize) -> String {
    cut(&clean(text), max, |c, out| match (dialect, c) {
        (Dialect::Slack, '`') => out.extend(['`', ZERO_WIDTH_SPACE]),
        (Dialect::Slack, c) => entity(c, out),
        (Dialect::Discord, c) => {
            if c.is_ascii_punctuation() && !matches!(c, '.' | ',' | ';' | '?' | '!' | '%' | '\'' | '"' | '/')
            {
                out.push('\\');
            }
            out.push(c);
        }
    })
}

/// A clean text as a line of a code block, at most `max` long.
pub(super) fn code(text: &str, dialect: Dialect, max: usize) -> String {
    cut(&clean(text), max, |c, out| match (c, dialect) {
        ('`', _) => out.extend(['`', ZERO_WIDTH_SPACE]),
        (c, Dialect::Slack) => entity(c, out),
        (c, Dialect::Discord) => out.push(c),
    })
}

fn entity(c: char, out: &mut String) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        c => out.push(c),
    }
}

/// Writes character by character while the whole, and the mark of a cut, has room: no escape is ever cut in two.
fn cut(text: &str, max: usize, mut write: impl FnMut(char, &mut String)) -> String {
    let mark = CUT.len_utf16();
    let (mut out, mut used) = (String::new(), 0);
    // How far the text may go where it has to be cut.
    let mut fits = 0;
    for c in text.chars() {
        let before = out.len();
        write(c, &mut out);
        used += length(&out[before..]);
        if used > max {
            out.truncate(fits);
            if mark <= max {
                out.push(CUT);
            }
            return out;
        }
        if used + mark <= max {
            fits = out.len();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_keeps_its_words_and_loses_its_powers() {
        let text = "\u{1b}[31mError\u{1b}[0m:\t<!channel> & `x`\u{202e}\u{0007}";
        assert_eq!(clean(text), "Error: <!channel> & `x`");
        assert_eq!(prose(text, Dialect::Slack, 99), "Error: &lt;!channel&gt; &amp; `\u{200b}x`\u{200b}");
        assert_eq!(prose(text, Dialect::Discord, 99), "Error\\: \\<!channel\\> \\& \\`x\\`");
        assert_eq!(code("a```b<@1>", Dialect::Discord, 99), "a`\u{200b}`\u{200b}`\u{200b}b<@1>");
        assert_eq!(
            prose("@everyone **x** __y__ [z](http://a)", Dialect::Discord, 99),
            "\\@everyone \\*\\*x\\*\\* \\_\\_y\\_\\_ \\[z\\]\\(http\\://a\\)"
        );
    }

    #[test]
    fn what_is_cut_says_so_and_never_in_the_middle_of_an_escape() {
        assert_eq!(prose("a<b", Dialect::Slack, 6), "a&lt;b");
        assert_eq!(prose("a<bc", Dialect::Slack, 6), "a&lt;…");
        assert_eq!(prose("a<bc", Dialect::Slack, 5), "a…");
        assert_eq!(prose("ab*", Dialect::Discord, 3), "ab…");
        assert_eq!(
            (prose("abc", Dialect::Slack, 0), prose("", Dialect::Slack, 0)),
            (String::new(), String::new())
        );
    }

    fn hostile() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[`<>&@*_~|\\\\\\[\\]()!#:/ \u{1b}\n\u{202e}a한😀]{0,80}"]
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_or_is_too_long(text in hostile(), max in 0_usize..120) {
            for dialect in [Dialect::Slack, Dialect::Discord] {
                let (prose, code) = (prose(&text, dialect, max), code(&text, dialect, max));
                prop_assert!(dialect != Dialect::Slack || !prose.contains("``"), "{}", prose);
                prop_assert!(length(&prose) <= max && length(&code) <= max);
                prop_assert!(!prose.chars().chain(code.chars()).any(char::is_control));
                prop_assert!(!code.contains("``"), "{}", code);
                if dialect == Dialect::Slack {
                    for out in [&prose, &code] {
                        prop_assert!(!out.contains(['<', '>']), "{}", out);
                        let entities = ["&amp;", "&lt;", "&gt;"];
                        let rest = entities.iter().fold(out.clone(), |text, entity| text.replace(entity, ""));
                        prop_assert!(!rest.contains('&'), "{}", out);
                    }
                } else {
                    let mut chars = prose.chars();
                    while let Some(c) = chars.next() {
                        if c == '\\' {
                            prop_assert!(chars.next().is_some_and(|c| c.is_ascii_punctuation()), "{}", prose);
                        } else {
                            prop_assert!(!"`<>@*_~|[]()#:".contains(c), "{}", prose);
                        }
                    }
                }
            }
        }

        /// Nothing is lost of what fits: reading the escapes back gives the clean text.
        #[test]
        fn what_fits_arrives_whole(text in hostile()) {
            let clean = clean(&text);
            let slack = prose(&text, Dialect::Slack, usize::MAX);
            let joined = |text: &str| text.replace("`\u{200b}", "`");
            let plain = slack.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
            prop_assert_eq!(joined(&plain), joined(&clean));
            prop_assert_eq!(joined(&code(&text, Dialect::Discord, usize::MAX)), joined(&clean));
        }
    }
}
