//! A state in parts that a Secret takes each: compressed, with a head that says what belongs to it.
//!
//! The first part is written last: where it is, the others are too.

use std::{fs, io, path::Path};

use miniz_oxide::{deflate::compress_to_vec_zlib, inflate::decompress_to_vec_zlib_with_limit};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Of one part: a Secret takes 1 MiB of values, and a request to etcd 1.5 MiB.
const LARGEST_PART: usize = 1_000_000;
/// The most parts that the pod of a push mounts.
pub(crate) const MOST_PARTS: usize = 16;
/// Of a state that is read again.
const LARGEST_STATE: usize = 1024 * 1024 * 1024;
/// Fast: text of which every second word is the same gets small with every level.
const LEVEL: u8 = 6;

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    parts: usize,
    /// Bytes after the head.
    size: usize,
    /// Of those bytes.
    sha256: String,
}

/// Name of a part: its file, and its key in its Secret.
pub(crate) fn part_name(index: usize) -> String {
    format!("part-{index}")
}

/// Cuts a state into parts.
pub(crate) fn cut(state: &[u8]) -> Vec<Vec<u8>> {
    let packed = compress_to_vec_zlib(state, LEVEL);
    let mut head = Head { parts: 0, size: packed.len(), sha256: digest(&packed) };
    // The length of the head depends on the number of parts, by a few bytes.
    head.parts = (packed.len() + 256).div_ceil(LARGEST_PART);
    let mut all = serde_json::to_vec(&head).unwrap_or_default();
    all.push(b'\n');
    all.extend(packed);
    let cut = all.len().div_ceil(head.parts);
    all.chunks(cut).map(<[u8]>::to_vec).collect()
}

/// Puts a state together from the parts in a directory; none, if the first one is not there.
///
/// Errors: it cannot be read, or is not whole.
pub(crate) fn join(dir: &Path) -> io::Result<Option<Vec<u8>>> {
    let first = match fs::read(dir.join(part_name(0))) {
        Ok(first) => first,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let not_whole = || io::Error::other("it is not whole");
    let end = first.iter().position(|byte| *byte == b'\n').ok_or_else(not_whole)?;
    let (head, rest) = first.split_at(end);
    let head: Head = serde_json::from_slice(head)?;
    let mut packed = rest.get(1..).unwrap_or_default().to_vec();
    for index in 1..head.parts.min(MOST_PARTS) {
        packed.extend(fs::read(dir.join(part_name(index)))?);
    }
    if packed.len() != head.size || digest(&packed) != head.sha256 {
        return Err(not_whole());
    }
    let state = decompress_to_vec_zlib_with_limit(&packed, LARGEST_STATE);
    state.map(Some).map_err(|error| io::Error::other(error.to_string()))
}

fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that no compression makes smaller.
    fn noise(size: u64) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0]
        };
        (0..size).map(|_| next()).collect()
    }

    fn laid_out(parts: &[Vec<u8>]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (index, part) in parts.iter().enumerate() {
            fs::write(dir.path().join(part_name(index)), part).unwrap();
        }
        dir
    }

    #[test]
    fn a_state_of_any_size_comes_out_as_it_went_in() {
        let part = LARGEST_PART as u64;
        for size in [0, 1, 1000, part - 300, part - 200, part, 2 * part + 1, 3_500_000] {
            let state = noise(size);
            let parts = cut(&state);
            assert!(parts.iter().all(|part| part.len() <= LARGEST_PART), "{size}");
            assert_eq!(join(laid_out(&parts).path()).unwrap(), Some(state), "{size}");
        }
        let text = "\"attributes\": {\"id\": \"i-0123456789\"},\n".repeat(200_000);
        assert_eq!(cut(text.as_bytes()).len(), 1, "8 MB of JSON are one Secret");
    }

    #[test]
    fn what_is_not_whole_is_no_state() {
        let parts = cut(&noise(2_500_000));
        assert_eq!(parts.len(), 3);
        let dir = laid_out(&parts);
        for index in [1, 2] {
            fs::remove_file(dir.path().join(part_name(index))).unwrap();
            assert!(join(dir.path()).is_err(), "{index}");
            fs::write(dir.path().join(part_name(index)), &parts[index]).unwrap();
        }
        fs::write(dir.path().join(part_name(2)), &parts[1]).unwrap();
        assert!(join(dir.path()).unwrap_err().to_string().contains("not whole"));
        fs::remove_file(dir.path().join(part_name(0))).unwrap();
        assert_eq!(join(dir.path()).unwrap(), None, "the first one is written last");
    }
}
