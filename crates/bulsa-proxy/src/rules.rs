//! What is done to a request on a route besides sending it to a service: compiled from the table.
//!
//! Owns: redirects, paths without their prefix, and the fields that a route sets or removes. Never: decides which route
//! it is.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};

use crate::table::{HeaderRule, Redirect, Rules};

/// The rules of one route.
#[derive(Debug)]
pub(crate) struct RouteRules {
    /// The route's prefix, without its last slash.
    prefix: String,
    strips_prefix: bool,
    redirect: Option<Redirect>,
    request: Vec<Set>,
    response: Vec<Set>,
}

/// One field that is set or removed.
#[derive(Debug)]
struct Set(HeaderName, Option<HeaderValue>);

impl RouteRules {
    /// Compiles checked rules; `None` if there are none.
    pub(crate) fn compile(rules: &Rules, prefix: &str) -> Option<Self> {
        (!rules.is_empty()).then(|| Self {
            prefix: prefix.to_owned(),
            strips_prefix: rules.strip_prefix,
            redirect: rules.redirect.clone(),
            request: compile_all(&rules.request_headers),
            response: compile_all(&rules.response_headers),
        })
    }

    /// The status and address to which a request is sent instead.
    pub(crate) fn redirect(&self, host: &str, uri: &Uri) -> Option<(u16, HeaderValue)> {
        let redirect = self.redirect.as_ref()?;
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let to = redirect
            .to
            .replace("{host}", without_port(host))
            .replace("{path}", rest(uri.path(), &self.prefix).unwrap_or(uri.path()))
            .replace("{query}", &query);
        // What a client sent cannot end a field: a URI has no control characters in it.
        Some((redirect.status, HeaderValue::from_str(&to).ok()?))
    }

    /// The address without the route's prefix, if that is to be.
    pub(crate) fn strip(&self, uri: &Uri) -> Option<Uri> {
        if !self.strips_prefix {
            return None;
        }
        let rest = rest(uri.path(), &self.prefix)?;
        let rest = if rest.is_empty() { "/" } else { rest };
        let stripped = match uri.query() {
            Some(query) => PathAndQuery::try_from(format!("{rest}?{query}")),
            None => PathAndQuery::try_from(rest),
        };
        stripped.ok().map(Uri::from)
    }

    /// The prefix that the application does not see, for those that make addresses from it.
    pub(crate) fn stripped_prefix(&self) -> Option<&str> {
        Some(self.prefix.as_str()).filter(|prefix| self.strips_prefix && !prefix.is_empty())
    }

    /// Sets the fields of a request.
    pub(crate) fn on_request(&self, headers: &mut HeaderMap) {
        set_all(&self.request, headers);
    }

    /// Sets the fields of an answer.
    pub(crate) fn on_response(&self, headers: &mut HeaderMap) {
        set_all(&self.response, headers);
    }
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

fn compile_all(rules: &[HeaderRule]) -> Vec<Set> {
    let compile = |rule: &HeaderRule| {
        let value = rule.value.as_deref().map(HeaderValue::from_str).transpose().ok()?;
        Some(Set(rule.name.parse().ok()?, value))
    };
    // A checked table has nothing else.
    rules.iter().filter_map(compile).collect()
}

fn set_all(rules: &[Set], headers: &mut HeaderMap) {
    for Set(name, value) in rules {
        match value {
            Some(value) => drop(headers.insert(name.clone(), value.clone())),
            None => drop(headers.remove(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(to: &str, prefix: &str, host: &str, uri: &str) -> String {
        let redirect = Redirect { status: 308, to: to.to_owned() };
        let rules = Rules { redirect: Some(redirect), ..Rules::default() };
        let rules = RouteRules::compile(&rules, prefix).unwrap();
        let (status, to) = rules.redirect(host, &uri.parse().unwrap()).unwrap();
        assert_eq!(status, 308);
        to.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_redirect_carries_host_path_and_query_over() {
        let to = "https://{host}{path}{query}";
        assert_eq!(redirect(to, "", "shop.example:8080", "/a/b?c=d"), "https://shop.example/a/b?c=d");
        assert_eq!(redirect(to, "", "[::1]:80", "/"), "https://[::1]/");
        assert_eq!(redirect("https://new.example{path}", "/old", "h", "/old/x"), "https://new.example/x");
        assert_eq!(redirect("/elsewhere", "", "h", "/"), "/elsewhere");
    }

    fn strip(prefix: &str, uri: &str) -> Option<String> {
        let rules = Rules { strip_prefix: true, ..Rules::default() };
        let rules = RouteRules::compile(&rules, prefix).unwrap();
        rules.strip(&uri.parse().unwrap()).map(|uri| uri.to_string())
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
    fn fields_are_set_in_the_place_of_others_or_removed() {
        let rule = |name: &str, value: Option<&str>| HeaderRule {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        };
        let response_headers = vec![rule("X-Frame-Options", Some("DENY")), rule("Server", None)];
        let rules = RouteRules::compile(&Rules { response_headers, ..Rules::default() }, "").unwrap();
        let mut headers = HeaderMap::new();
        headers.append("x-frame-options", HeaderValue::from_static("ALLOW"));
        headers.append("server", HeaderValue::from_static("x"));
        headers.append("date", HeaderValue::from_static("now"));
        rules.on_response(&mut headers);
        assert_eq!((headers.len(), &headers["x-frame-options"]), (2, &HeaderValue::from_static("DENY")));
    }

    #[test]
    fn a_route_without_rules_has_none() {
        assert!(RouteRules::compile(&Rules::default(), "").is_none());
    }
}
