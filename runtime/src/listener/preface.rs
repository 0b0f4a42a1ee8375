//! Whether a peer has begun to speak: HTTP/2 by its preface, or something else.

/// What every connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Listens to the first bytes of a connection.
///
/// Bytes that are not the preface end it, too. They are HTTP/1.1, which has a
/// deadline of its own for the head of a request, or nothing that is served.
#[derive(Debug, Default)]
pub(crate) struct Preface {
    heard: usize,
    is_over: bool,
}

impl Preface {
    /// Hears the next bytes that were read.
    pub(crate) fn hear(&mut self, read: &[u8]) {
        let rest = &PREFACE[self.heard..];
        let both = rest.len().min(read.len());
        self.heard += both;
        self.is_over |= rest[..both] != read[..both] || self.heard == PREFACE.len();
    }

    /// Whether it is known by now what the peer speaks.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_over(parts: &[&[u8]]) -> bool {
        let mut preface = Preface::default();
        parts.iter().for_each(|part| preface.hear(part));
        preface.is_over()
    }

    #[test]
    fn it_is_over_with_its_last_byte_however_it_is_cut() {
        assert!(is_over(&[PREFACE]));
        assert!(is_over(&[&PREFACE[..7], &PREFACE[7..], b"more"]));
        assert!(!is_over(&[&PREFACE[..23]]));
        assert!(!is_over(&[]));
    }

    #[test]
    fn it_is_over_with_the_first_byte_that_is_not_of_it() {
        assert!(is_over(&[b"G"]));
        assert!(is_over(&[b"P", b"OST / HTTP/1.1"]));
        assert!(!is_over(&[b"P"]));
    }
}
