//! The settings of functions in `config.toml`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::error::{ErrorKind, Result, StackError};

/// The tables `[functions.<name>]`. What is not named there has the defaults of a hosted project.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Rules {
    #[serde(default)]
    functions: HashMap<String, Rule>,
}

#[derive(Debug, Default, Deserialize)]
struct Rule {
    enabled: Option<bool>,
    verify_jwt: Option<bool>,
}

impl Rules {
    /// Reads a file; without one, the defaults apply.
    ///
    /// # Errors
    /// [`ErrorKind::File`].
    pub(super) fn read(path: &Path) -> Result<Self> {
        let failed = |problem: String| {
            StackError::new(ErrorKind::File, format!("cannot read {}: {problem}", path.display()))
        };
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| failed(error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Whether the function is served.
    pub(super) fn is_enabled(&self, name: &str) -> bool {
        self.functions.get(name).and_then(|rule| rule.enabled).unwrap_or(true)
    }

    /// Whether the gateway lets only requests with a JWT of the project through.
    pub(super) fn verifies_jwt(&self, name: &str) -> bool {
        self.functions.get(name).and_then(|rule| rule.verify_jwt).unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_served_and_guarded_unless_it_is_said_otherwise() {
        let text = "[db]\nport = 1\n[functions.open]\nverify_jwt = false\n[functions.off]\nenabled = false\n";
        let rules: Rules = toml::from_str(text).unwrap();
        assert_eq!((rules.is_enabled("open"), rules.verifies_jwt("open")), (true, false));
        assert_eq!((rules.is_enabled("off"), rules.verifies_jwt("off")), (false, true));
        assert_eq!((rules.is_enabled("other"), rules.verifies_jwt("other")), (true, true));
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        assert!(Rules::read(&path).unwrap().is_enabled("any"));
        std::fs::write(&path, "[functions").unwrap();
        assert!(Rules::read(&path).unwrap_err().to_string().contains("config.toml"));
    }
}
