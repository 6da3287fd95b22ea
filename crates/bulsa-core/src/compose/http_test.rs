//! A `healthcheck` that calls curl or wget, seen as the HTTP request that it makes.
//!
//! Owns: telling such a test from others. A request from the host costs a fraction of a program start, so it can run
//! every few milliseconds while a release starts. Only commands whose meaning is kept are recognised: a GET of an
//! `http` URL on the replica itself, with flags that change no verdict. Everything else stays a program to run.

use std::time::Duration;

use crate::spec::Accept;

use super::words;

/// What such a test asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpTest {
    pub(crate) port: u16,
    /// With its query.
    pub(crate) path: String,
    /// What the `Host` field says, from the URL or a header flag.
    pub(crate) host: String,
    pub(crate) accept: Accept,
    /// The program's own time limit.
    pub(crate) timeout: Option<Duration>,
}

/// Recognises `["CMD", "curl", …]` and `["CMD-SHELL", "curl … || exit 1"]`.
pub(crate) fn recognise(test: &[String]) -> Option<HttpTest> {
    let (form, rest) = test.split_first()?;
    let words = match form.as_str() {
        "CMD" => rest.to_vec(),
        "CMD-SHELL" => shell_words(rest.first()?)?,
        _ => return None,
    };
    let (program, arguments) = words.split_first()?;
    match program.rsplit('/').next() {
        Some("curl") => curl(arguments),
        Some("wget") => wget(arguments),
        _ => None,
    }
}

/// The words of a simple command: no variables, pipes or second commands but a final `|| exit 1`.
fn shell_words(text: &str) -> Option<Vec<String>> {
    const REDIRECTIONS: &[&str] = &[
        " 2>&1",
        " 2>/dev/null",
        " 2> /dev/null",
        " 1>/dev/null",
        " 1> /dev/null",
        " &>/dev/null",
        " &> /dev/null",
        ">/dev/null",
        "> /dev/null",
    ];
    let mut text = text.trim();
    if let Some((command, or_else)) = text.rsplit_once("||") {
        if !matches!(or_else.trim(), "exit 1" | "exit" | "false" | "exit 1;" | "(exit 1)") {
            return None;
        }
        text = command.trim_end();
    }
    while let Some(rest) = REDIRECTIONS.iter().find_map(|suffix| text.strip_suffix(suffix)) {
        text = rest.trim_end();
    }
    if text.contains(['$', '`', '\\', '(', ')', '\n', '~', '*']) || text.contains(" #") {
        return None;
    }
    words::split(text).ok()
}

struct Request {
    url: Option<String>,
    host: Option<String>,
    accept: Accept,
    timeout: Option<Duration>,
}

impl Request {
    fn new(accept: Accept) -> Self {
        Self { url: None, host: None, accept, timeout: None }
    }

    fn url(&mut self, word: &str) -> Option<()> {
        // Two URLs are two requests.
        self.url.is_none().then(|| self.url = Some(word.to_owned()))
    }

    fn header(&mut self, header: &str) -> Option<()> {
        let (name, value) = header.split_once(':')?;
        name.trim().eq_ignore_ascii_case("host").then(|| self.host = Some(value.trim().to_owned()))
    }

    fn time(&mut self, seconds: &str) -> Option<()> {
        let seconds: f64 = seconds.parse().ok()?;
        self.timeout = Some(Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())?);
        Some(())
    }

    fn finish(self) -> Option<HttpTest> {
        let url = self.url?;
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            None => &url,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok().filter(|port| *port > 0)?),
            _ => (authority, 80),
        };
        if !matches!(name.to_ascii_lowercase().as_str(), "localhost" | "127.0.0.1" | "[::1]") {
            return None;
        }
        let path = path.split('#').next().unwrap_or("");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let host = self.host.unwrap_or_else(|| authority.strip_suffix(":80").unwrap_or(authority).to_owned());
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        (plain(&path) && plain(&host) && !host.is_empty()).then_some(HttpTest {
            port,
            path,
            host,
            accept: self.accept,
            timeout: self.timeout,
        })
    }
}

/// Where a page may be written without anything depending on it.
fn discards(file: &str) -> Option<()> {
    matches!(file, "/dev/null" | "-").then_some(())
}

fn curl(arguments: &[String]) -> Option<HttpTest> {
    // Without -f curl is content with any answer.
    let mut request = Request::new(Accept::AnyAnswer);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix("--") {
            match long {
                "fail" | "fail-with-body" => request.accept = Accept::Success,
                "silent" | "show-error" | "no-progress-meter" | "include" | "verbose" | "globoff"
                | "ipv4" => {}
                "output" => discards(words.next()?)?,
                "max-time" => request.time(words.next()?)?,
                "connect-timeout" | "noproxy" => _ = words.next()?,
                "header" => request.header(words.next()?)?,
                "request" => (words.next()? == "GET").then_some(())?,
                "url" => request.url(words.next()?)?,
                _ => return None,
            }
        } else if let Some(flags) = word.strip_prefix('-').filter(|flags| !flags.is_empty()) {
            let mut rest = flags;
            while let Some(flag) = rest.chars().next() {
                rest = rest.get(flag.len_utf8()..)?;
                match flag {
                    'f' => request.accept = Accept::Success,
                    's' | 'S' | 'i' | 'v' | 'g' | '4' => continue,
                    _ => {}
                }
                if flag == 'f' {
                    continue;
                }
                let value = if rest.is_empty() { words.next()?.as_str() } else { rest };
                match flag {
                    'o' => discards(value)?,
                    'm' => request.time(value)?,
                    'H' => request.header(value)?,
                    'X' => (value == "GET").then_some(())?,
                    _ => return None,
                }
                break;
            }
        } else {
            request.url(word)?;
        }
    }
    request.finish()
}

fn wget(arguments: &[String]) -> Option<HttpTest> {
    let mut request = Request::new(Accept::Success);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            let mut value = || value.map(str::to_owned).or_else(|| words.next().cloned());
            match name {
                "quiet" | "no-verbose" | "spider" | "server-response" | "no-check-certificate" => {}
                "output-document" => discards(&value()?)?,
                "timeout" => request.time(&value()?)?,
                "tries" => drop(value()?),
                "header" => request.header(&value()?)?,
                _ => return None,
            }
        } else if word == "-nv" {
            // Less talk.
        } else if let Some(flags) = word.strip_prefix('-').filter(|flags| !flags.is_empty()) {
            let mut rest = flags;
            while let Some(flag) = rest.chars().next() {
                rest = rest.get(flag.len_utf8()..)?;
                if matches!(flag, 'q' | 'S') {
                    continue;
                }
                let value = if rest.is_empty() { words.next()?.as_str() } else { rest };
                match flag {
                    'O' => discards(value)?,
                    'T' => request.time(value)?,
                    't' => {}
                    _ => return None,
                }
                break;
            }
        } else {
            request.url(word)?;
        }
    }
    request.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shell: &str) -> String {
        let both = [
            recognise(&["CMD-SHELL".to_owned(), shell.to_owned()]),
            words::split(shell).ok().and_then(|words| {
                recognise(&std::iter::once("CMD".to_owned()).chain(words).collect::<Vec<_>>())
            }),
        ];
        match &both[0] {
            None => "exec".to_owned(),
            Some(test) => {
                // Where the text needs no shell, the two forms agree.
                if let Some(other) = &both[1] {
                    assert_eq!(test, other);
                }
                let accept = if test.accept == Accept::Success { "ok" } else { "any" };
                let time = test.timeout.map_or(String::new(), |time| format!(" {time:?}"));
                format!("{} {} {} {accept}{time}", test.port, test.path, test.host)
            }
        }
    }

    #[test]
    fn curl_and_wget_of_the_replica_itself_become_requests() {
        for (shell, expected) in [
            ("curl -f http://localhost:3000/health-check", "3000 /health-check localhost:3000 ok"),
            ("curl -f http://localhost:3000/health-check || exit 1", "3000 /health-check localhost:3000 ok"),
            ("curl --fail --silent http://127.0.0.1/", "80 / 127.0.0.1 ok"),
            ("curl -fsS -o /dev/null http://[::1]:8080", "8080 / [::1]:8080 ok"),
            (
                "curl -sSfo/dev/null 'http://localhost:80/a?b=c#d' >/dev/null 2>&1 || exit 1",
                "80 /a?b=c localhost ok",
            ),
            ("curl localhost:5000?x", "5000 /?x localhost:5000 any"),
            ("/usr/bin/curl -f -H 'Host: shop.example' http://localhost:3000/x", "3000 /x shop.example ok"),
            ("curl -f -m 2.5 --connect-timeout 1 -X GET http://localhost:1/", "1 / localhost:1 ok 2.5s"),
            ("wget -q --spider http://localhost:3000/health", "3000 /health localhost:3000 ok"),
            ("wget -qO- http://localhost:3000/ || exit 1", "3000 / localhost:3000 ok"),
            (
                "wget --no-verbose --tries=1 --output-document=/dev/null http://localhost/",
                "80 / localhost ok",
            ),
            ("wget -nv -t1 -T 3 -O - http://127.0.0.1:9/x > /dev/null", "9 /x 127.0.0.1:9 ok 3s"),
            ("wget --header 'Host: a.b' -q -O /dev/null http://localhost/x", "80 /x a.b ok"),
        ] {
            assert_eq!(check(shell), expected, "{shell}");
        }
    }

    #[test]
    fn what_means_more_than_a_get_stays_a_program() {
        for shell in [
            "curl -f https://localhost/",
            "curl -f http://db:3000/",
            "curl -f http://localhost:3000/ | grep ok",
            "curl -f http://localhost:3000/ && test -f x",
            "curl -f http://localhost:3000/ || exit 0",
            "curl -f http://localhost:$PORT/",
            "curl -fL http://localhost/",
            "curl -I http://localhost/",
            "curl -X POST http://localhost/",
            "curl -d x http://localhost/",
            "curl -f -H 'Authorization: x' http://localhost/",
            "curl -f -o page.html http://localhost/",
            "curl -f http://localhost/ http://localhost/b",
            "curl -f http://user@localhost/",
            "curl -f http://localhost:0/",
            "curl -f http://localhost:99999/",
            "curl -f",
            "wget -q http://localhost/x -O out --post-data=x",
            "wget -q -O",
            "pg_isready",
            "",
        ] {
            assert_eq!(check(shell), "exec", "{shell}");
        }
        assert_eq!(recognise(&["NONE".to_owned()]), None);
        assert_eq!(recognise(&[]), None);
    }
}
