//! Reading small configuration files.

use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

/// All of a file, which must not have more than `max` bytes.
pub(crate) fn read_at_most(file: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut opened = std::fs::File::open(file)?.take(max.saturating_add(1));
    opened.read_to_end(&mut bytes)?;
    if opened.limit() == 0 {
        let error = format!("the file is longer than {max} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, error));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"1234").unwrap();
        assert_eq!(read_at_most(&file, 4).unwrap(), b"1234");
        let error = read_at_most(&file, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    }
}
