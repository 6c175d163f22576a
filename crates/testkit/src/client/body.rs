//! Takes a response's body out of the bytes as they come.

use bytes::{Buf, Bytes, BytesMut};

use super::Head;

/// How far the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes to come.
    Length(u64),
    /// A chunk's size line comes next.
    ChunkSize,
    /// So many bytes of the chunk to come.
    ChunkData(u64),
    /// The line end after a chunk's data comes next.
    ChunkEnd,
    /// Trailers, up to an empty line.
    Trailers,
    /// All until the close.
    UntilClose,
    /// Nothing.
    Done,
}

/// The bytes are no chunked body.
#[derive(Debug)]
pub(super) struct Malformed;

impl Framing {
    pub(super) fn of(head: &Head) -> Self {
        let chunked = head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        match head.header("content-length") {
            _ if matches!(head.status, 204 | 304) => Self::Done,
            _ if chunked => Self::ChunkSize,
            Some(length) => Self::Length(length.parse().unwrap_or_else(|_| panic!("content-length: {length}"))),
            None => Self::UntilClose,
        }
    }

    /// The next piece of the body in `buffer`; `None` when more must be read, or at the end.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        loop {
            match *self {
                Self::Done | Self::Length(0) => {
                    *self = Self::Done;
                    return Ok(None);
                }
                Self::UntilClose => return Ok(piece(buffer, u64::MAX)),
                Self::Length(left) => {
                    let taken = piece(buffer, left);
                    *self = Self::Length(left - length(taken.as_ref()));
                    return Ok(taken);
                }
                Self::ChunkSize => {
                    let Some(line) = line(buffer) else { return Ok(None) };
                    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
                    let size = std::str::from_utf8(size).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
                    *self = match size.ok_or(Malformed)? {
                        0 => Self::Trailers,
                        size => Self::ChunkData(size),
                    };
                }
                Self::ChunkData(0) => *self = Self::ChunkEnd,
                Self::ChunkData(left) => {
                    let taken = piece(buffer, left);
                    *self = Self::ChunkData(left - length(taken.as_ref()));
                    return Ok(taken);
                }
                Self::ChunkEnd => match line(buffer) {
                    None => return Ok(None),
                    Some(line) if line.is_empty() => *self = Self::ChunkSize,
                    Some(_) => return Err(Malformed),
                },
                Self::Trailers => match line(buffer) {
                    None => return Ok(None),
                    Some(line) if line.is_empty() => *self = Self::Done,
                    Some(_) => {}
                },
            }
        }
    }
}

fn piece(buffer: &mut BytesMut, at_most: u64) -> Option<Bytes> {
    let size = buffer.len().min(usize::try_from(at_most).unwrap_or(usize::MAX));
    (size > 0).then(|| buffer.split_to(size).freeze())
}

fn length(taken: Option<&Bytes>) -> u64 {
    taken.map_or(0, |bytes| bytes.len() as u64)
}

/// A whole line, without its end, taken out.
fn line(buffer: &mut BytesMut) -> Option<Bytes> {
    let at = buffer.windows(2).position(|two| two == b"\r\n")?;
    let line = buffer.split_to(at).freeze();
    buffer.advance(2);
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(framing: Framing, input: &[u8], body: &[u8], left_in: Framing) {
        // Byte by byte: the worst of all splits.
        let (mut now, mut buffer, mut found) = (framing, BytesMut::new(), Vec::new());
        for byte in input {
            buffer.extend_from_slice(&[*byte]);
            while let Some(piece) = now.take(&mut buffer).unwrap() {
                found.extend_from_slice(&piece);
            }
        }
        assert_eq!((found.as_slice(), now), (body, left_in));
    }

    #[test]
    fn a_body_is_the_same_however_it_is_split() {
        check(Framing::ChunkSize, b"3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nt: v\r\n\r\n", b"abcd", Framing::Done);
        check(Framing::ChunkSize, b"3\r\nab", b"ab", Framing::ChunkData(1));
        check(Framing::Length(4), b"abcdef", b"abcd", Framing::Done);
        check(Framing::UntilClose, b"abc", b"abc", Framing::UntilClose);
        assert!(Framing::ChunkSize.take(&mut BytesMut::from("zz\r\n")).is_err());
    }
}
