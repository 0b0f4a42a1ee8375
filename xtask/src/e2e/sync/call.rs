//! One call as strace writes it: `name(argument, …) = result`, with strings in hex,
//! so that no byte of theirs can be taken for what is around them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A call that has ended.
pub(super) struct Call<'a> {
    pub(super) name: &'a str,
    arguments: Vec<&'a str>,
    result: &'a str,
}

impl<'a> Call<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self> {
        let (name, rest) = text.split_once('(').context("no call")?;
        // Before the result there may be room, so that results are in one column.
        let (arguments, result) = rest.rsplit_once(" = ").context("no result")?;
        let arguments = arguments.trim_end().strip_suffix(')');
        let arguments = arguments.context("no end of the arguments")?;
        Ok(Self {
            name,
            arguments: split(arguments),
            result: result.trim_start(),
        })
    }

    /// What it returned, if it succeeded.
    pub(super) fn result(&self) -> Option<u64> {
        digits(self.result).parse().ok()
    }

    pub(super) fn argument(&self, index: usize) -> Result<&'a str> {
        let argument = self.arguments.get(index).copied();
        argument.with_context(|| format!("{} has no argument {index}", self.name))
    }

    /// The descriptor that it is about, and what that stands for.
    pub(super) fn descriptor(&self) -> Result<(i32, String)> {
        decorated(self.argument(0)?).context("no descriptor")
    }

    /// The descriptor that it made, and of what; none if it made none.
    pub(super) fn opened(&self) -> Result<Option<(i32, PathBuf)>> {
        if self.result().is_none() {
            return Ok(None);
        }
        let (fd, path) = decorated(self.result).context("no descriptor")?;
        Ok(Some((fd, path.into())))
    }

    /// All strings of an argument, one after another.
    pub(super) fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let argument = self.argument(index)?;
        ensure!(!argument.contains("\"..."), "it cuts what is written");
        let mut bytes = Vec::new();
        for text in argument.split('"').skip(1).step_by(2) {
            unhex(text, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// A path that is an argument by itself: an absolute one.
    pub(super) fn path(&self, index: usize) -> Result<PathBuf> {
        let path = String::from_utf8(self.bytes(index)?)?;
        Ok(path.into())
    }

    /// A path in the folder that stands before it.
    pub(super) fn path_at(&self, index: usize) -> Result<PathBuf> {
        let (_, folder) = self.argument(index)?.split_once('<').context("no folder")?;
        Ok(Path::new(folder.trim_end_matches('>')).join(self.path(index + 1)?))
    }
}

/// Splits at the commas that are not within brackets.
fn split(arguments: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0_usize, 0, Vec::new());
    for (at, byte) in arguments.bytes().enumerate() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                found.push(arguments[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(arguments[start..].trim());
    found
}

/// A descriptor and what strace says of it.
fn decorated(text: &str) -> Option<(i32, String)> {
    let (number, _) = text.split_once('<')?;
    Some((number.parse().ok()?, said(text)?))
}

/// What strace says of a descriptor: a path, in hex like all strings, or a connection.
fn said(text: &str) -> Option<String> {
    let (_, said) = text.split_once('<')?;
    let (said, _) = said.rsplit_once('>')?;
    if !said.starts_with("\\x") {
        return Some(said.to_owned());
    }
    let mut bytes = Vec::new();
    unhex(said, &mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

fn digits(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_digit());
    &text[..end.unwrap_or(text.len())]
}

fn unhex(text: &str, bytes: &mut Vec<u8>) -> Result<()> {
    let text = text.as_bytes();
    ensure!(text.len().is_multiple_of(4), "a string that is not in hex");
    bytes.reserve(text.len() / 4);
    for byte in text.chunks_exact(4) {
        let [b'\\', b'x', high, low] = byte else {
            anyhow::bail!("a string that is not in hex");
        };
        bytes.push(nibble(*high)? << 4 | nibble(*low)?);
    }
    Ok(())
}

fn nibble(letter: u8) -> Result<u8> {
    Ok(match letter {
        b'0'..=b'9' => letter - b'0',
        b'a'..=b'f' => letter - b'a' + 10,
        _ => anyhow::bail!("a string that is not in hex"),
    })
}
