//! A registry's credentials, as they go from the command line to the agent with a deploy.
//!
//! Owns: their form on the API's socket. Never: is written to a disk, or shown: `Debug` hides what is secret.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a registry is given to let us in.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// The user's name; empty with an identity token.
    pub username: String,
    /// The password or an access token.
    pub password: String,
    /// A token that stands for both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_not_shown() {
        let credentials = Credentials {
            username: "ann".to_owned(),
            password: "hush".to_owned(),
            identity_token: Some("token".to_owned()),
        };
        let shown = format!("{credentials:?} {credentials:#?}");
        assert!(shown.contains("ann") && !shown.contains("hush") && !shown.contains("token"), "{shown}");
    }
}
