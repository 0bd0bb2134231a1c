//! The account PostgreSQL runs as. It refuses root, so root is replaced by `postgres` or else `nobody`.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Whom the server's processes and files belong to; `None` means this process's own account.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account(Option<(u32, u32)>);

impl Account {
    /// The right account for this process.
    pub(crate) fn choose() -> Self {
        if !rustix::process::getuid().is_root() {
            return Self(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        // 65534 is `nobody` on every Linux, even where it has no line in the file.
        Self(lookup(&passwd, "postgres").or_else(|| lookup(&passwd, "nobody")).or(Some((65534, 65534))))
    }

    /// Makes the command run as this account.
    pub(crate) fn apply(self, command: &mut Command) {
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a file or directory to this account.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        match self.0 {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

/// User and group of a name in the text of `/etc/passwd`.
fn lookup(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut ids = line.split(':').skip(2);
    Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_as_a_whole() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
        assert_eq!(lookup(passwd, "postgres"), Some((101, 104)));
        assert_eq!(lookup(passwd, "nobody"), Some((65534, 65534)));
        assert_eq!(lookup(passwd, "post"), None);
    }
}
