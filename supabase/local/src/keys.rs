//! The keys of a project, and the gateway's way of reading them.

use crate::jwt::JwtSecret;

/// Is exchanged for the `anon` key, as a hosted project's publishable key does.
const PUBLISHABLE: &str = "sb_publishable_local_development";

/// Is exchanged for the `service_role` key, as a hosted project's secret key does.
const SECRET: &str = "sb_secret_local_development";

/// The keys of one stack. Well known for the default secret: they open nothing but a local stack.
#[derive(Debug, Clone)]
pub struct ProjectKeys {
    jwt: JwtSecret,
    anon: String,
    service_role: String,
}

impl ProjectKeys {
    /// The keys that belong to a secret.
    pub fn new(jwt: JwtSecret) -> Self {
        let (anon, service_role) = (jwt.project_key("anon"), jwt.project_key("service_role"));
        Self { jwt, anon, service_role }
    }

    /// The JWT of role `anon`.
    pub fn anon(&self) -> &str {
        &self.anon
    }

    /// The JWT of role `service_role`, which no policy binds.
    pub fn service_role(&self) -> &str {
        &self.service_role
    }

    /// The opaque key that the gateway swaps for [`ProjectKeys::anon`].
    pub fn publishable(&self) -> &'static str {
        PUBLISHABLE
    }

    /// The opaque key that the gateway swaps for [`ProjectKeys::service_role`].
    pub fn secret(&self) -> &'static str {
        SECRET
    }

    /// The secret that signs all tokens.
    pub fn jwt(&self) -> &JwtSecret {
        &self.jwt
    }

    /// The JWT for an opaque key; any other text as it is.
    pub(crate) fn swap<'a>(&'a self, key: &'a str) -> &'a str {
        match key {
            PUBLISHABLE => &self.anon,
            SECRET => &self.service_role,
            other => other,
        }
    }

    /// Whether the gateway lets a request with this (swapped) key through: a genuine JWT of a project role.
    pub(crate) fn opens(&self, key: &str) -> bool {
        key == self.anon
            || key == self.service_role
            || self.jwt.decode(key).is_ok_and(|claims| {
                matches!(claims.role(), Some("anon" | "service_role"))
                    && claims.expires_at().is_none_or(|exp| exp > self.jwt.now())
            })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn opaque_keys_stand_for_the_two_roles() {
        let keys = ProjectKeys::new(JwtSecret::default());
        assert_eq!(keys.swap(keys.publishable()), keys.anon());
        assert_eq!(keys.swap(keys.secret()), keys.service_role());
        assert_eq!(keys.swap("other"), "other");
    }

    #[test]
    fn a_users_token_is_no_project_key() {
        let keys = ProjectKeys::new(JwtSecret::default());
        assert!(keys.opens(keys.anon()));
        assert!(!keys.opens(&keys.jwt().user_token("u", Duration::from_secs(60))));
        assert!(!keys.opens("nonsense"));
    }
}
