//! From `user[:group]` in the file to the numbers that a process runs with.
//!
//! Owns: looking names up in `/etc/passwd` and `/etc/group`, and saying clearly what is missing. Never: changes the
//! identity of anything; the keeper does that from the [`Account`].
//!
//! As with Docker, a group that is given replaces all of the user's groups, and without one the user gets its own
//! group and every group that lists it. Unlike Docker, a bare number that `/etc/passwd` doesn't know needs its group
//! written out: on a host the silent answer "group root" would be a hole. Accounts that live only in a directory
//! service are not found by name; their numbers work.

use std::fs;

use rustix::process::{getegid, geteuid};

use super::{StartProblem, Subject};

const PASSWD_FILE: &str = "/etc/passwd";
const GROUP_FILE: &str = "/etc/group";

/// The home of an account that `/etc/passwd` doesn't know.
const NO_HOME: &str = "/";

/// Whom a replica runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Supplementary groups, sorted, `gid` left out.
    pub groups: Vec<u32>,
    /// The user's name where `/etc/passwd` knows one.
    pub name: Option<String>,
    /// The home directory; `/` where none is known.
    pub home: String,
}

/// What a `user` of the file means on this host; `None` where the replica runs as the agent itself.
///
/// # Errors
/// If the user or group doesn't exist, or if it is another than the agent's own and the agent isn't root.
pub fn resolve(subject: Subject<'_>, user: Option<&str>) -> Result<Option<Account>, StartProblem> {
    let Some(user) = user else { return Ok(None) };
    let read = |file: &str| {
        fs::read_to_string(file).map_err(|e| {
            subject.problem(
                format!("user `{user}`: {file} can't be read: {e}"),
                "make it readable, or leave `user` out",
            )
        })
    };
    let account = look_up(user, &read(PASSWD_FILE)?, &read(GROUP_FILE)?)
        .map_err(|missing| subject.problem(missing.problem, missing.hint))?;
    let me = (geteuid().as_raw(), getegid().as_raw());
    permit(user, account, me).map_err(|missing| subject.problem(missing.problem, missing.hint))
}

/// What is wrong with a `user`, and what to do.
#[derive(Debug, PartialEq, Eq)]
struct Missing {
    problem: String,
    hint: String,
}

impl Missing {
    fn new(problem: String, hint: impl Into<String>) -> Self {
        Self { problem, hint: hint.into() }
    }
}

/// Whether an agent with these numbers (user, group) may start a process as `account`; `None`: it is that account.
fn permit(user: &str, account: Account, me: (u32, u32)) -> Result<Option<Account>, Missing> {
    if me.0 == 0 {
        return Ok(Some(account));
    }
    if (account.uid, account.gid) == me {
        return Ok(None);
    }
    Err(Missing::new(
        format!(
            "it asks for user `{user}` ({}:{}), and Bulsa runs as {}:{}",
            account.uid, account.gid, me.0, me.1
        ),
        "only root can change users: run Bulsa as root, or leave `user` out",
    ))
}

/// Finds `user[:group]`, names or numbers, in the text of the two files.
fn look_up(text: &str, passwd: &str, group: &str) -> Result<Account, Missing> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() || wanted_group.is_some_and(str::is_empty) {
        return Err(Missing::new(
            format!("user `{text}` has an empty part"),
            "write `user`, `user:group`, or their numbers",
        ));
    }
    let entry = users(passwd).find(|entry| entry.name == user);
    let entry =
        entry.or_else(|| user.parse().ok().and_then(|uid: u32| users(passwd).find(|entry| entry.uid == uid)));
    let uid = match (&entry, user.parse()) {
        (Some(entry), _) => entry.uid,
        (None, Ok(uid)) => uid,
        (None, Err(_)) => {
            return Err(Missing::new(
                format!("there is no user `{user}` in {PASSWD_FILE}"),
                format!("create it (`useradd --system {user}`), or write its numbers as UID:GID"),
            ));
        }
    };
    let name = entry.as_ref().map(|entry| entry.name.to_owned());
    let home = entry.as_ref().map_or(NO_HOME, |entry| entry.home).to_owned();
    let (gid, groups) = match (wanted_group, &entry) {
        (Some(wanted), _) => (find_group(wanted, group)?, Vec::new()),
        (None, Some(entry)) => (entry.gid, supplementary(entry, group)),
        (None, None) => {
            return Err(Missing::new(
                format!("user {uid} isn't in {PASSWD_FILE}, so its group is unknown"),
                format!("write the group too: `{uid}:GROUP`"),
            ));
        }
    };
    Ok(Account { uid, gid, groups, name, home })
}

fn find_group(wanted: &str, group: &str) -> Result<u32, Missing> {
    let named = groups(group).find(|entry| entry.name == wanted).map(|entry| entry.gid);
    named.or_else(|| wanted.parse().ok()).ok_or_else(|| {
        Missing::new(
            format!("there is no group `{wanted}` in {GROUP_FILE}"),
            format!("create it (`groupadd --system {wanted}`), or write its number"),
        )
    })
}

fn supplementary(user: &User<'_>, group: &str) -> Vec<u32> {
    let member = |entry: &Group<'_>| entry.members.split(',').any(|name| name == user.name);
    let mut of_user: Vec<u32> = groups(group).filter(member).map(|entry| entry.gid).collect();
    of_user.sort_unstable();
    of_user.dedup();
    of_user.retain(|gid| *gid != user.gid);
    of_user
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// `name:password:uid:gid:comment:home:shell`, one a line; lines of another shape are passed over.
fn users(text: &str) -> impl Iterator<Item = User<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or(NO_HOME);
        Some(User { name, uid, gid, home })
    })
}

/// `name:password:gid:member,member`, one a line; lines of another shape are passed over.
fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# a remark\nbroken\n\
                          web:x:33:34:the web:/var/www:/usr/sbin/nologin\nnohome:x:40:40::::\n77:x:78:79::/odd:\n";
    const GROUP: &str =
        "root:x:0:\nweb:x:34:\nssl:x:110:web,mail\nlogs:x:105:mail,web\nalso:x:34:web\n99:x:98:\n";

    fn account(uid: u32, gid: u32, groups: &[u32], name: Option<&str>, home: &str) -> Account {
        Account { uid, gid, groups: groups.to_vec(), name: name.map(str::to_owned), home: home.to_owned() }
    }

    #[test]
    fn a_user_has_its_own_group_and_every_group_that_lists_it() {
        let web = account(33, 34, &[105, 110], Some("web"), "/var/www");
        assert_eq!(look_up("web", PASSWD, GROUP), Ok(web.clone()));
        assert_eq!(look_up("33", PASSWD, GROUP), Ok(web));
    }

    #[test]
    fn a_given_group_replaces_all_others() {
        let expected = account(33, 110, &[], Some("web"), "/var/www");
        assert_eq!(look_up("web:ssl", PASSWD, GROUP), Ok(expected.clone()));
        assert_eq!(look_up("33:110", PASSWD, GROUP), Ok(expected));
    }

    #[test]
    fn unknown_numbers_work_with_a_group_and_only_then() {
        assert_eq!(look_up("1234:5678", PASSWD, GROUP), Ok(account(1234, 5678, &[], None, "/")));
        let missing = look_up("1234", PASSWD, GROUP).unwrap_err();
        assert!(missing.problem.contains("its group is unknown"), "{missing:?}");
    }

    #[test]
    fn names_win_over_numbers() {
        assert_eq!(look_up("77", PASSWD, GROUP).unwrap().uid, 78);
        assert_eq!(look_up("web:99", PASSWD, GROUP).unwrap().gid, 98);
    }

    #[test]
    fn an_entry_without_a_home_has_the_root_directory() {
        assert_eq!(look_up("nohome", PASSWD, GROUP).unwrap().home, "/");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(
            look_up("nobdy", PASSWD, GROUP).unwrap_err().problem.contains("no user `nobdy` in /etc/passwd")
        );
        assert!(
            look_up("web:wheel", PASSWD, GROUP)
                .unwrap_err()
                .problem
                .contains("no group `wheel` in /etc/group")
        );
        for bad in ["", ":", "web:", ":web"] {
            assert!(look_up(bad, PASSWD, GROUP).unwrap_err().problem.contains("empty part"), "{bad}");
        }
        for bad in ["-1:1", "99999999999:1", "1:-1"] {
            assert!(look_up(bad, PASSWD, GROUP).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_root_becomes_somebody_else() {
        let web = account(33, 34, &[], None, "/");
        assert_eq!(permit("web", web.clone(), (0, 0)), Ok(Some(web.clone())));
        assert_eq!(permit("web", web.clone(), (33, 34)), Ok(None));
        let missing = permit("web", web, (1000, 1000)).unwrap_err();
        assert!(missing.problem.contains("Bulsa runs as 1000:1000"), "{missing:?}");
        assert!(missing.hint.contains("as root"), "{missing:?}");
    }

    #[test]
    fn root_exists_on_this_host_and_a_made_up_user_does_not() {
        let subject = Subject { service: "web", position: "compose.yaml:3:5" };
        assert_eq!(resolve(subject, None), Ok(None));
        let error = resolve(subject, Some("no-such-user-here")).unwrap_err().to_string();
        assert!(error.starts_with("compose.yaml:3:5: service `web`: there is no user"), "{error}");
        if geteuid().is_root() {
            assert_eq!(resolve(subject, Some("root")).unwrap().unwrap().uid, 0);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error_and_never_a_panic(user in ".*", passwd in ".*", group in ".*") {
            drop(look_up(&user, &passwd, &group));
        }
    }
}
