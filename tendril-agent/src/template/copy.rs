//! The copy of a template into a workspace: checked as a whole before any of its files is copied.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    job::{ErrorCode, Failure},
    os::files::private_dir,
    template::generated::{BACKEND_FILE, is_generated, overrides_backend},
};

/// How deep the folders of a template may lie.
const DEEPEST: usize = 64;
/// How many files and folders a template may have, and how many bytes: links inside it are followed, and a few of them can stand for
/// more than any disk holds.
const MOST_ENTRIES: usize = 20_000;
pub(super) const MOST_BYTES: u64 = 1024 * 1024 * 1024;
/// How a file begins that stands for one that Git LFS stores elsewhere, also of its first versions; and how long it is at most.
const LFS_POINTERS: [&[u8]; 3] = [
    b"version https://git-lfs.github.com/spec/",
    b"version https://hawser.github.com/spec/",
    b"version http://git-media.io/v/",
];
const LFS_LONGEST: u64 = 1024;

/// Copies a template into a module.
pub(super) fn copy(template_dir: &Path, module_dir: &Path) -> Result<(), Failure> {
    let copied = template_dir.canonicalize().map_err(CopyError::from).and_then(|inside| {
        // Checked as a whole before anything is copied: what is refused must not fill the disk first.
        Copy::of(&inside).folder(&inside, None, 0)?;
        Copy::of(&inside).folder(&inside, Some(module_dir), 0)
    });
    copied.map_err(CopyError::into_failure)
}

/// Refuses a template that could not be copied, before any of its files is read.
pub(crate) fn inspect(template_dir: &Path) -> Result<(), Failure> {
    let walk = |dir: PathBuf| Copy::of(&dir).folder(&dir, None, 0);
    template_dir.canonicalize().map_err(CopyError::from).and_then(walk).map_err(CopyError::into_failure)
}

/// Why a template cannot be copied.
#[derive(Debug)]
enum CopyError {
    /// A link leads out of the template.
    Escape(PathBuf),
    /// A socket, a pipe or a device.
    Special(PathBuf),
    /// Folders that lie too deep.
    Deep(PathBuf),
    /// More files, folders or bytes than a template may have.
    Large(PathBuf),
    /// What Git LFS leaves in the place of a file.
    LfsPointer(PathBuf),
    /// Terraform would let it replace what the agent generates.
    Overrides(PathBuf),
    /// A folder has the name of a file that the agent generates.
    Reserved(PathBuf),
    Io(io::Error),
}

impl CopyError {
    fn into_failure(self) -> Failure {
        match self {
            Self::Escape(path) => Failure::new(
                ErrorCode::ConfigInvalid,
                format!(
                    "the template's file {} is a link that leads out of the template, or to nothing: ask its owner to replace it",
                    path.display()
                ),
            ),
            Self::Special(path) => Failure::new(
                ErrorCode::ConfigInvalid,
                format!(
                    "the template's {} is neither a file nor a folder: ask its owner to remove it",
                    path.display()
                ),
            ),
            Self::Deep(path) => Failure::new(
                ErrorCode::ConfigInvalid,
                format!(
                    "the template's folders lie deeper than {DEEPEST} levels below {}…: ask its owner to remove them",
                    path.iter().take(4).collect::<PathBuf>().display()
                ),
            ),
            Self::Large(path) => Failure::new(
                ErrorCode::ConfigInvalid,
                format!(
                    "the template has more than {MOST_ENTRIES} files and folders, or more than {} MiB, with what its links lead to ({} is one too many): ask its owner to make it smaller",
                    MOST_BYTES / (1024 * 1024),
                    path.iter().take(8).collect::<PathBuf>().display()
                ),
            ),
            Self::LfsPointer(path) => Failure::new(
                ErrorCode::SourceInvalid,
                format!(
                    "the template's file {} is stored in Git LFS, and only its pointer is in the repository: files of Git LFS are not fetched. Store the file in Git itself, or fetch it from the template",
                    path.display()
                ),
            ),
            Self::Overrides(path) => Failure::new(
                ErrorCode::ConfigInvalid,
                format!(
                    "the template's file {} would replace the backend that the agent generates in {BACKEND_FILE}: ask its owner to give it a name that sorts before that one",
                    path.display()
                ),
            ),
            Self::Reserved(path) => Failure::new(
                ErrorCode::ConfigInvalid,
                format!(
                    "the template's folder {} has the name of a file that the agent generates: ask its owner to give it another one",
                    path.display()
                ),
            ),
            Self::Io(source) => Failure::internal("the workspace cannot be prepared", &source),
        }
    }
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Copies a template, or only looks whether it could be copied.
struct Copy<'a> {
    template: &'a Path,
    entries: usize,
    bytes: u64,
}

impl<'a> Copy<'a> {
    const fn of(template: &'a Path) -> Self {
        Self { template, entries: 0, bytes: 0 }
    }

    /// Copies what a folder holds. Links inside the template are followed. Left out: what an earlier run of Terraform or infracost
    /// in the template's own folder left there, and the bookkeeping folders of a mounted `ConfigMap`.
    fn folder(&mut self, from: &Path, to: Option<&Path>, depth: usize) -> Result<(), CopyError> {
        if depth > DEEPEST {
            return Err(CopyError::Deep(self.below(from)));
        }
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let name = entry.file_name();
            let text = name.to_string_lossy();
            if matches!(&*text, ".terraform" | ".infracost" | ".git")
                || text.starts_with("..")
                || is_state(&text)
            {
                continue;
            }
            let source = entry.path().canonicalize().map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => CopyError::Escape(self.below(&entry.path())),
                _ => error.into(),
            })?;
            if !source.starts_with(self.template) {
                return Err(CopyError::Escape(self.below(&entry.path())));
            }
            let meta = fs::metadata(&source)?;
            self.entries += 1;
            self.bytes += if meta.is_file() { meta.len() } else { 0 };
            if self.entries > MOST_ENTRIES || self.bytes > MOST_BYTES {
                return Err(CopyError::Large(self.below(&entry.path())));
            }
            let target = to.map(|to| to.join(&name));
            if meta.is_dir() {
                if depth == 0 && is_generated(&text) {
                    return Err(CopyError::Reserved(self.below(&entry.path())));
                }
                // A link to a folder above itself would be copied for ever.
                if from.starts_with(&source) {
                    return Err(CopyError::Escape(self.below(&entry.path())));
                }
                if let Some(target) = &target {
                    private_dir(target)?;
                }
                self.folder(&source, target.as_deref(), depth + 1)?;
            } else if meta.is_file() {
                if depth == 0 && overrides_backend(&text) {
                    return Err(CopyError::Overrides(self.below(&entry.path())));
                }
                if is_lfs_pointer(&source)? {
                    return Err(CopyError::LfsPointer(self.below(&entry.path())));
                }
                if let Some(target) = &target {
                    fs::copy(&source, target)?;
                }
            } else {
                return Err(CopyError::Special(self.below(&entry.path())));
            }
        }
        Ok(())
    }

    /// As the template's owner names it.
    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.template).unwrap_or(path).to_path_buf()
    }
}

/// Whether Terraform gives this name to a state, its lock, its backups or the states of workspaces. A file of the template may have the
/// word in its name: Terraform would take its resources for removed.
fn is_state(name: &str) -> bool {
    name.rsplit_once(".tfstate").is_some_and(|(_, rest)| {
        matches!(rest, "" | ".d" | ".lock.info") || rest.starts_with('.') && rest.ends_with(".backup")
    })
}

fn is_lfs_pointer(file: &Path) -> io::Result<bool> {
    if fs::metadata(file)?.len() > LFS_LONGEST {
        return Ok(false);
    }
    let text = fs::read(file)?;
    // An editor may have added a byte order mark or lines.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text).trim_ascii_start();
    Ok(LFS_POINTERS.iter().any(|pointer| text.starts_with(pointer)))
}
