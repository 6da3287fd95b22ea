//! How each key merges, and what makes the items of a list the same one: data, in the order of the Compose
//! Specification's merge rules (section "Merge"), as Docker Compose 2.40 carries them out.

/// How two values of a key become one, where it isn't: mappings key by key, lists one behind the other, else the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The later one, whatever it is.
    Replace,
    /// `NAME=value` lists and mappings alike; the later value of a name wins.
    Named,
    /// One text or a list of them, one behind the other.
    Listed,
    /// `host=address`, a host may have several; what is there already isn't added again.
    Hosts,
    /// A list of services, or a mapping with conditions.
    Dependencies,
    /// A list of names, or a mapping with options.
    Names,
    /// A context alone, or a mapping.
    Build,
    /// Options of another driver mean nothing to this one.
    Logging,
    /// Address pools, by subnet.
    Pools,
}

/// What makes two items of a list the same one; the later one then takes the earlier one's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Same {
    /// The text before the `=`.
    Name,
    /// The whole text.
    Text,
    /// Where it is mounted.
    Target,
    /// Address, both ports and protocol.
    Port,
    /// The file's path.
    Path,
    /// The target, else the source's name below a directory.
    Mount(&'static str),
}

/// A way from the top; `*` is any key.
type Pattern = &'static [&'static str];

const RULES: &[(Pattern, Rule)] = &[
    (&["networks", "*", "ipam", "config"], Rule::Pools),
    (&["networks", "*", "labels"], Rule::Named),
    (&["volumes", "*", "labels"], Rule::Named),
    (&["services", "*", "annotations"], Rule::Named),
    (&["services", "*", "build"], Rule::Build),
    (&["services", "*", "build", "additional_contexts"], Rule::Named),
    (&["services", "*", "build", "args"], Rule::Named),
    (&["services", "*", "build", "extra_hosts"], Rule::Hosts),
    (&["services", "*", "build", "labels"], Rule::Named),
    (&["services", "*", "command"], Rule::Replace),
    (&["services", "*", "depends_on"], Rule::Dependencies),
    (&["services", "*", "deploy", "labels"], Rule::Named),
    (&["services", "*", "dns"], Rule::Listed),
    (&["services", "*", "dns_opt"], Rule::Listed),
    (&["services", "*", "dns_search"], Rule::Listed),
    (&["services", "*", "entrypoint"], Rule::Replace),
    (&["services", "*", "env_file"], Rule::Listed),
    (&["services", "*", "environment"], Rule::Named),
    (&["services", "*", "extra_hosts"], Rule::Hosts),
    (&["services", "*", "healthcheck", "test"], Rule::Replace),
    (&["services", "*", "label_file"], Rule::Listed),
    (&["services", "*", "labels"], Rule::Named),
    (&["services", "*", "logging"], Rule::Logging),
    (&["services", "*", "models"], Rule::Names),
    (&["services", "*", "networks"], Rule::Names),
    (&["services", "*", "sysctls"], Rule::Named),
    (&["services", "*", "tmpfs"], Rule::Listed),
    (&["services", "*", "ulimits", "*"], Rule::Replace),
];

const UNIQUE: &[(Pattern, Same)] = &[
    (&["networks", "*", "ipam", "options"], Same::Name),
    (&["networks", "*", "labels"], Same::Name),
    (&["services", "*", "annotations"], Same::Name),
    (&["services", "*", "build", "additional_contexts"], Same::Name),
    (&["services", "*", "build", "args"], Same::Name),
    (&["services", "*", "build", "labels"], Same::Name),
    (&["services", "*", "build", "platform"], Same::Name),
    (&["services", "*", "build", "tags"], Same::Name),
    (&["services", "*", "cap_add"], Same::Name),
    (&["services", "*", "cap_drop"], Same::Name),
    (&["services", "*", "configs"], Same::Mount("")),
    (&["services", "*", "deploy", "labels"], Same::Name),
    (&["services", "*", "devices"], Same::Target),
    (&["services", "*", "dns"], Same::Name),
    (&["services", "*", "dns_opt"], Same::Name),
    (&["services", "*", "dns_search"], Same::Name),
    (&["services", "*", "env_file"], Same::Path),
    (&["services", "*", "environment"], Same::Name),
    (&["services", "*", "expose"], Same::Text),
    (&["services", "*", "labels"], Same::Name),
    (&["services", "*", "links"], Same::Name),
    (&["services", "*", "networks", "*", "aliases"], Same::Name),
    (&["services", "*", "networks", "*", "link_local_ips"], Same::Name),
    (&["services", "*", "ports"], Same::Port),
    (&["services", "*", "profiles"], Same::Name),
    (&["services", "*", "secrets"], Same::Mount("/run/secrets")),
    (&["services", "*", "sysctls"], Same::Name),
    (&["services", "*", "tmpfs"], Same::Name),
    (&["services", "*", "volumes"], Same::Target),
];

/// The longest pattern, in keys: nothing below it needs to be looked at.
pub(super) const DEEPEST: usize = 5;

/// How the key at `path` merges.
pub(super) fn rule<S: AsRef<str>>(path: &[S]) -> Option<Rule> {
    find(RULES, path)
}

/// What makes items of the list at `path` the same one.
pub(super) fn same<S: AsRef<str>>(path: &[S]) -> Option<Same> {
    find(UNIQUE, path)
}

fn find<T: Copy, S: AsRef<str>>(table: &[(Pattern, T)], path: &[S]) -> Option<T> {
    let fits = |pattern: Pattern| {
        pattern.len() == path.len()
            && pattern.iter().zip(path).all(|(part, key)| *part == "*" || *part == key.as_ref())
    };
    table.iter().find(|(pattern, _)| fits(pattern)).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pattern_is_deeper_than_what_is_looked_at() {
        let depth = |pattern: &Pattern| pattern.len();
        let deepest = RULES.iter().map(|(p, _)| depth(p)).chain(UNIQUE.iter().map(|(p, _)| depth(p))).max();
        assert_eq!(deepest, Some(DEEPEST));
    }
}
