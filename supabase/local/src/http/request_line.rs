//! Percent-encodes what does not belong into a request's target, in the bytes of a connection.
//!
//! The real servers take any byte but a space in a path or query string; the HTTP library refuses `"`, `<` and `>` and ends a
//! target at `#`. So the bytes are changed before the library sees them. To know where request lines begin, bodies are counted.

/// The longest header line that is read, in bytes; no header of interest is longer.
const LINE: usize = 256;

/// Follows the bytes of one connection from its client.
#[derive(Debug, Default)]
pub(super) struct RequestLines {
    state: State,
    head: Head,
}

/// What the next byte is part of.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum State {
    /// The request line up to its first space.
    #[default]
    Method,
    /// The target, up to the next space.
    Target,
    /// The rest of the request line.
    Version,
    /// A header line; what is known of it.
    Header(Vec<u8>),
    /// A body, and how many bytes of it are to come.
    Body(u64),
    /// The line with a chunk's size.
    ChunkSize(Vec<u8>),
    /// A chunk with the line end after it.
    Chunk(u64),
    /// Lines after the last chunk; whether the current one is empty so far.
    Trailer(bool),
    /// No HTTP any more, or not understood.
    Opaque,
}

/// The body that the headers announce.
#[derive(Debug, Default)]
struct Head {
    length: u64,
    chunked: bool,
    upgrade: bool,
}

impl RequestLines {
    /// Whether all further bytes stay as they are.
    pub(super) fn is_opaque(&self) -> bool {
        self.state == State::Opaque
    }

    /// Appends what the bytes become.
    pub(super) fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while let Some(&byte) = input.first() {
            let taken = match &mut self.state {
                State::Opaque => input.len(),
                State::Body(left) | State::Chunk(left) => {
                    usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()))
                }
                State::Target => {
                    self.target(byte, out);
                    input = &input[1..];
                    continue;
                }
                _ => 1,
            };
            out.extend_from_slice(&input[..taken]);
            match &mut self.state {
                State::Body(left) | State::Chunk(left) => {
                    *left -= taken as u64;
                    if *left == 0 {
                        let chunk = matches!(self.state, State::Chunk(_));
                        self.state = if chunk { State::ChunkSize(Vec::new()) } else { State::Method };
                    }
                }
                _ => self.step(byte),
            }
            input = &input[taken..];
        }
    }

    fn target(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b' ' => {
                out.push(byte);
                self.state = State::Version;
            }
            b'\r' => out.push(byte),
            b'\n' => {
                out.push(byte);
                self.state = State::Header(Vec::new());
            }
            b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0..0x20 | 0x7f.. => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            }
            other => out.push(other),
        }
    }

    /// One byte of a line.
    fn step(&mut self, byte: u8) {
        match &mut self.state {
            State::Method if byte == b' ' => self.state = State::Target,
            State::Version if byte == b'\n' => self.state = State::Header(Vec::new()),
            State::Header(line) if byte == b'\n' => {
                let line = std::mem::take(line);
                if line.iter().all(|byte| *byte == b'\r') {
                    self.state = std::mem::take(&mut self.head).body();
                } else {
                    self.head.note(&line);
                    self.state = State::Header(Vec::new());
                }
            }
            State::ChunkSize(line) if byte == b'\n' => {
                let text = String::from_utf8_lossy(line);
                let size = text.split(';').next().unwrap_or_default().trim();
                self.state = match u64::from_str_radix(size, 16) {
                    Ok(0) => State::Trailer(true),
                    Ok(size) => State::Chunk(size.saturating_add(2)),
                    Err(_) => State::Opaque,
                };
            }
            State::Header(line) | State::ChunkSize(line) if line.len() < LINE => line.push(byte),
            State::Trailer(empty) => match byte {
                b'\n' if *empty => self.state = State::Method,
                b'\n' => *empty = true,
                b'\r' => {}
                _ => *empty = false,
            },
            _ => {}
        }
    }
}

impl Head {
    fn note(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let Some((name, value)) = line.split_once(':') else { return };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => self.length = value.parse().unwrap_or(0),
            "transfer-encoding" => self.chunked = value.to_ascii_lowercase().contains("chunked"),
            "upgrade" => self.upgrade = true,
            _ => {}
        }
    }

    /// What comes after the headers.
    fn body(self) -> State {
        match self {
            Self { upgrade: true, .. } => State::Opaque,
            Self { chunked: true, .. } => State::ChunkSize(Vec::new()),
            Self { length: 0, .. } => State::Method,
            Self { length, .. } => State::Body(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the text in pieces of a length.
    fn fed(text: &str, piece: usize) -> String {
        let (mut lines, mut out) = (RequestLines::default(), Vec::new());
        for piece in text.as_bytes().chunks(piece) {
            lines.feed(piece, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_targets_are_changed_however_the_bytes_are_cut() {
        let sent = "GET /t?select=a->>b&x=eq.\"é#1\" HTTP/1.1\r\nX: <a>\r\n\r\nPOST /<t> HTTP/1.1\r\ncontent-length: \
                    9\r\n\r\nGET /<b> \r\nGET /\"|\" HTTP/1.1\r\n\r\n";
        let wanted = "GET /t?select=a-%3E%3Eb&x=eq.%22%C3%A9%231%22 HTTP/1.1\r\nX: <a>\r\n\r\nPOST /%3Ct%3E \
                      HTTP/1.1\r\ncontent-length: 9\r\n\r\nGET /<b> \r\nGET /%22%7C%22 HTTP/1.1\r\n\r\n";
        for piece in 1..sent.len() {
            assert_eq!(fed(sent, piece), wanted, "in pieces of {piece}");
        }
    }

    #[test]
    fn chunked_bodies_are_counted_to_their_end() {
        let body = "5\r\nGET <\r\n3;x=<\r\nabc\r\n0\r\nTrailer: <\r\n\r\n";
        let sent =
            format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET /< HTTP/1.1\r\n\r\n");
        let wanted = sent.replace("GET /<", "GET /%3C");
        for piece in 1..sent.len() {
            assert_eq!(fed(&sent, piece), wanted, "in pieces of {piece}");
        }
    }

    #[test]
    fn after_an_upgrade_nothing_is_changed() {
        let sent = "GET /ws?a=< HTTP/1.1\r\nUpgrade: websocket\r\n\r\nGET /< HTTP/1.1\r\n";
        assert_eq!(fed(sent, 7), sent.replacen('<', "%3C", 1));
    }
}
