//! What a plan that waits for approval needs to continue in another pod: the files of its workspace, packed into bytes.
//!
//! Without what can be fetched again: the providers, which `terraform init` installs by the lock file, and what was uploaded or is in the log.
//! Its contents are not trusted. What is applied is checked by the digests that the approval names.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Folders of the workspace that are left out.
const LEFT_OUT: &[&str] = &["journal", "run/data/providers", "run/home", "run/source", "run/.infracost"];
/// The largest list of files.
const LONGEST_LIST: u64 = 16 * 1024 * 1024;

/// One file, or link.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Below the workspace.
    path: PathBuf,
    mode: u32,
    /// Bytes; 0 for a link.
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<PathBuf>,
}

/// Packs a workspace: the length of a list in JSON, the list, and the files one after the other. Errors: it cannot be read, or
/// holds something that is neither file, folder nor link.
pub(crate) fn pack(root: &Path) -> io::Result<Vec<u8>> {
    let mut entries = Vec::new();
    let mut contents = Vec::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        let mut names: Vec<_> = fs::read_dir(root.join(&dir))?.collect::<io::Result<Vec<_>>>()?;
        names.sort_by_key(fs::DirEntry::file_name);
        for entry in names {
            let path = dir.join(entry.file_name());
            if LEFT_OUT.iter().any(|left_out| Path::new(left_out) == path) {
                continue;
            }
            let metadata = entry.metadata()?;
            let mode = metadata.permissions().mode() & 0o777;
            if metadata.is_dir() {
                dirs.push(path);
            } else if metadata.is_symlink() {
                let link = fs::read_link(entry.path())?;
                entries.push(Entry { path, mode, size: 0, link: Some(link) });
            } else if metadata.is_file() {
                let bytes = fs::read(entry.path())?;
                entries.push(Entry { path, mode, size: bytes.len() as u64, link: None });
                contents.extend(bytes);
            } else {
                return Err(io::Error::other(format!("{} is no file", path.display())));
            }
        }
    }
    let list = serde_json::to_vec(&entries)?;
    let mut packed = (list.len() as u64).to_be_bytes().to_vec();
    packed.extend(list);
    packed.extend(contents);
    Ok(packed)
}

/// Unpacks into a directory that does not exist yet. Errors: it exists, or the bytes are not whole or lead out of it.
pub(crate) fn unpack(packed: &[u8], root: &Path) -> io::Result<()> {
    let mut packed = packed;
    let mut length = [0; 8];
    packed.read_exact(&mut length)?;
    let length = u64::from_be_bytes(length);
    if length > LONGEST_LIST || length > packed.len() as u64 {
        return Err(io::Error::other("it is not whole"));
    }
    let (list, mut contents) = packed.split_at(usize::try_from(length).unwrap_or(usize::MAX));
    let entries: Vec<Entry> = serde_json::from_slice(list)?;
    fs::create_dir(root)?;
    fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
    // Links last: no file is written through one.
    let (links, files): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.link.is_some());
    for entry in files {
        let size = usize::try_from(entry.size).unwrap_or(usize::MAX);
        if size > contents.len() {
            return Err(io::Error::other("it is not whole"));
        }
        let (bytes, rest) = contents.split_at(size);
        contents = rest;
        let path = made_below(root, &entry.path)?;
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(entry.mode & 0o777).open(path)?;
        file.write_all(bytes)?;
    }
    for entry in links {
        let link = entry.link.unwrap_or_default();
        // A link may lead to a neighbour, and no higher than the workspace.
        let parent = entry.path.parent().unwrap_or(Path::new(""));
        if !stays_below(&parent.join(&link)) {
            return Err(io::Error::other(format!("the link {} leads out of it", entry.path.display())));
        }
        std::os::unix::fs::symlink(link, made_below(root, &entry.path)?)?;
    }
    Ok(())
}

/// The place of a path below a root, with its folders made.
fn made_below(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_plain || path.as_os_str().is_empty() {
        return Err(io::Error::other(format!("{} leads out of it", path.display())));
    }
    let place = root.join(path);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(place)
}

/// Whether a relative path, read step by step, never leaves where it begins.
fn stays_below(path: &Path) -> bool {
    let mut depth = 0_i32;
    path.components().all(|part| {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
        depth >= 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_comes_out_as_it_went_in_without_what_can_be_had_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a");
        for (path, text) in [
            ("claim.json", "{}"),
            ("run/module/main.tf", "# main"),
            ("run/data/tfplan", "plan\0\u{ff}"),
            ("run/data/providers/aws", "large"),
            ("run/home/cache", "x"),
            ("log/0.log", ""),
        ] {
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        fs::set_permissions(root.join("run/data/tfplan"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("main.tf", root.join("run/module/alias.tf")).unwrap();
        let packed = pack(&root).unwrap();
        let out = dir.path().join("b");
        unpack(&packed, &out).unwrap();
        assert_eq!(fs::read_to_string(out.join("run/data/tfplan")).unwrap(), "plan\0\u{ff}");
        assert_eq!(fs::metadata(out.join("run/data/tfplan")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(out.join("run/module/alias.tf")).unwrap(), "# main");
        assert_eq!(fs::metadata(out.join("log/0.log")).unwrap().len(), 0);
        assert!(!out.join("run/data/providers").exists() && !out.join("run/home").exists());
        assert_eq!(pack(&out).unwrap(), packed, "the same goes in again");
        assert!(unpack(&packed, &out).is_err(), "nothing is written over");
    }

    #[test]
    fn what_leads_out_of_the_workspace_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let forged = |entries: serde_json::Value| {
            let list = serde_json::to_vec(&entries).unwrap();
            let mut packed = (list.len() as u64).to_be_bytes().to_vec();
            packed.extend(list);
            packed.extend(b"evil");
            packed
        };
        for (at, entries) in [
            serde_json::json!([{"path": "../x", "mode": 0o644, "size": 4}]),
            serde_json::json!([{"path": "/tmp/x", "mode": 0o644, "size": 4}]),
            serde_json::json!([{"path": "a/../../x", "mode": 0o644, "size": 4}]),
            serde_json::json!([{"path": "", "mode": 0o644, "size": 4}]),
            serde_json::json!([{"path": "a", "mode": 0o644, "size": 5}]),
            serde_json::json!([{"path": "a", "mode": 0o644, "size": 0, "link": "/etc"}]),
            serde_json::json!([{"path": "a/b", "mode": 0o644, "size": 0, "link": "../../etc"}]),
        ]
        .into_iter()
        .enumerate()
        {
            assert!(unpack(&forged(entries.clone()), &dir.path().join(at.to_string())).is_err(), "{entries}");
        }
        for cut in [0, 4, 8, 20] {
            let packed = forged(serde_json::json!([{"path": "a", "mode": 0o644, "size": 4}]));
            assert!(unpack(&packed[..cut], &dir.path().join(format!("cut{cut}"))).is_err(), "{cut}");
        }
        assert!(!dir.path().join("x").exists());
    }
}
