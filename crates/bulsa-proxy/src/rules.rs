//! What is done to a request on a route besides sending it to a service: compiled from the table.
//!
//! Owns: redirects, paths without their prefix, and the fields that a route sets or removes. Never: decides which route
//! it is.

use crate::headers::field;
use crate::table::{HeaderRule, Redirect, Rules};

/// The rules of one route.
#[derive(Debug)]
pub(crate) struct RouteRules {
    /// The route's prefix, without its last slash.
    prefix: String,
    strips_prefix: bool,
    redirect: Option<Redirect>,
    request: Vec<HeaderRule>,
    response: Vec<HeaderRule>,
}

impl RouteRules {
    /// Compiles checked rules; `None` if there are none.
    pub(crate) fn compile(rules: &Rules, prefix: &str) -> Option<Self> {
        (!rules.is_empty()).then(|| Self {
            prefix: prefix.to_owned(),
            strips_prefix: rules.strip_prefix,
            redirect: rules.redirect.clone(),
            request: rules.request_headers.clone(),
            response: rules.response_headers.clone(),
        })
    }

    /// The status and address to which a request is sent instead.
    pub(crate) fn redirect(&self, host: &str, target: &str) -> Option<(u16, String)> {
        let redirect = self.redirect.as_ref()?;
        let (path, query) = split(target);
        // What a client sent cannot end a field: a target has no control characters in it.
        let to = redirect
            .to
            .replace("{host}", without_port(host))
            .replace("{path}", rest(path, &self.prefix).unwrap_or(path))
            .replace("{query}", query);
        Some((redirect.status, to))
    }

    /// The target without the route's prefix, if that is to be.
    pub(crate) fn strip(&self, target: &str) -> Option<String> {
        if !self.strips_prefix {
            return None;
        }
        let (path, query) = split(target);
        let rest = rest(path, &self.prefix)?;
        let slash = if rest.is_empty() { "/" } else { "" };
        Some(format!("{slash}{rest}{query}"))
    }

    /// The prefix that the application does not see, for those that make addresses from it.
    pub(crate) fn stripped_prefix(&self) -> Option<&str> {
        Some(self.prefix.as_str()).filter(|prefix| self.strips_prefix && !prefix.is_empty())
    }

    /// Whether a field of a request is set or removed, whatever it was.
    pub(crate) fn sets_on_request(&self, name: &[u8]) -> bool {
        is_named(&self.request, name)
    }

    /// Whether a field of an answer is set or removed, whatever it was.
    pub(crate) fn sets_on_response(&self, name: &[u8]) -> bool {
        is_named(&self.response, name)
    }

    /// Writes the fields that are set on a request.
    pub(crate) fn write_request(&self, out: &mut Vec<u8>) {
        write_all(&self.request, out);
    }

    /// Writes the fields that are set on an answer.
    pub(crate) fn write_response(&self, out: &mut Vec<u8>) {
        write_all(&self.response, out);
    }
}

/// The path, and the query with its question mark.
fn split(target: &str) -> (&str, &str) {
    target.split_at(target.find('?').unwrap_or(target.len()))
}

/// What follows the prefix, as it was sent. `None` if the path only leads there by way of its dots.
fn rest<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

fn is_named(rules: &[HeaderRule], name: &[u8]) -> bool {
    rules.iter().any(|rule| rule.name.as_bytes().eq_ignore_ascii_case(name))
}

fn write_all(rules: &[HeaderRule], out: &mut Vec<u8>) {
    // Of several rules for one field the last one counts.
    let is_last = |index: usize, rule: &HeaderRule| {
        !rules[index + 1..].iter().any(|later| later.name.eq_ignore_ascii_case(&rule.name))
    };
    for (_, rule) in rules.iter().enumerate().filter(|(index, rule)| is_last(*index, rule)) {
        if let Some(value) = &rule.value {
            field(out, rule.name.as_bytes(), value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(to: &str, prefix: &str, host: &str, target: &str) -> String {
        let redirect = Redirect { status: 308, to: to.to_owned() };
        let rules = Rules { redirect: Some(redirect), ..Rules::default() };
        let rules = RouteRules::compile(&rules, prefix).unwrap();
        let (status, to) = rules.redirect(host, target).unwrap();
        assert_eq!(status, 308);
        to
    }

    #[test]
    fn a_redirect_carries_host_path_and_query_over() {
        let to = "https://{host}{path}{query}";
        assert_eq!(redirect(to, "", "shop.example:8080", "/a/b?c=d"), "https://shop.example/a/b?c=d");
        assert_eq!(redirect(to, "", "[::1]:80", "/"), "https://[::1]/");
        assert_eq!(redirect("https://new.example{path}", "/old", "h", "/old/x"), "https://new.example/x");
        assert_eq!(redirect("/elsewhere", "", "h", "/"), "/elsewhere");
    }

    fn strip(prefix: &str, target: &str) -> Option<String> {
        let rules = Rules { strip_prefix: true, ..Rules::default() };
        RouteRules::compile(&rules, prefix).unwrap().strip(target)
    }

    #[test]
    fn a_prefix_is_taken_off_whole() {
        assert_eq!(strip("/api", "/api/x?y").as_deref(), Some("/x?y"));
        assert_eq!(strip("/api", "/api").as_deref(), Some("/"));
        assert_eq!(strip("/api", "/api?y").as_deref(), Some("/?y"));
        assert_eq!(strip("/api", "/x/../api/y"), None, "as it came: the application resolves it");
        assert_eq!(strip("/api", "/apix"), None);
    }

    #[test]
    fn of_several_rules_for_a_field_the_last_counts() {
        let rule = |name: &str, value: Option<&str>| HeaderRule {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        };
        let response_headers =
            vec![rule("X-A", Some("1")), rule("Server", None), rule("X-B", Some("2")), rule("x-a", None)];
        let rules = RouteRules::compile(&Rules { response_headers, ..Rules::default() }, "").unwrap();
        let mut out = Vec::new();
        rules.write_response(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "X-B: 2\r\n");
        assert!(rules.sets_on_response(b"SERVER") && !rules.sets_on_request(b"server"));
    }

    #[test]
    fn a_route_without_rules_has_none() {
        assert!(RouteRules::compile(&Rules::default(), "").is_none());
    }
}
