//! What the server says, of which only the needed fields are looked at.

use anyhow::{Context as _, Result, bail, ensure};

use super::wire::ID;

/// A frame down, as far as the driver cares.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Down {
    CaughtUp,
    Stored {
        id: u64,
        seq: u64,
    },
    Delivered {
        id: u64,
        seq: u64,
    },
    /// `Welcome`, receipts, presence.
    Other,
}

/// Reads one `ConverseResponse`.
pub(super) fn read_down(bytes: &[u8]) -> Result<Down> {
    let mut fields = Fields(bytes);
    let mut down = Down::Other;
    while let Some((field, value)) = fields.next()? {
        down = match (field, value) {
            (3, Value::Bytes(stored)) => {
                let (seq, id) = seq_and_id(stored, 3, 1)?;
                Down::Stored { id, seq }
            }
            (6, Value::Bytes(delivered)) => {
                let (seq, id) = seq_and_id(envelope(delivered)?, 1, 2)?;
                Down::Delivered { id, seq }
            }
            (11, _) => Down::CaughtUp,
            (4 | 5 | 14, Value::Bytes(what)) => {
                bail!(
                    "the server refused (field {field}): {}",
                    String::from_utf8_lossy(what)
                )
            }
            _ => down,
        };
    }
    Ok(down)
}

fn envelope(delivered: &[u8]) -> Result<&[u8]> {
    match Fields(delivered).next()? {
        Some((1, Value::Bytes(envelope))) => Ok(envelope),
        _ => bail!("a delivery without its envelope"),
    }
}

fn seq_and_id(bytes: &[u8], seq_field: u64, id_field: u64) -> Result<(u64, u64)> {
    let mut fields = Fields(bytes);
    let (mut seq, mut id) = (None, None);
    while seq.is_none() || id.is_none() {
        match fields.next()?.context("an answer without seq or id")? {
            (field, Value::Number(number)) if field == seq_field => seq = Some(number),
            (field, Value::Bytes(bytes)) if field == id_field => id = Some(number(bytes)?),
            _ => {}
        }
    }
    Ok((seq.unwrap_or_default(), id.unwrap_or_default()))
}

/// The number that a message id is.
fn number(id: &[u8]) -> Result<u64> {
    ensure!(id.len() == ID, "a message id that was never given");
    id.iter().try_fold(0_u64, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => bail!("a message id that was never given"),
        };
        Ok(number << 4 | u64::from(digit))
    })
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, one after another.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?)?;
                let (bytes, rest) = self
                    .0
                    .split_at_checked(length)
                    .context("a field that is cut short")?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            kind => bail!("a field of wire type {kind}"),
        };
        Ok(Some((key >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().context("a number that is cut short")?;
            self.0 = rest;
            number |= u64::from(byte & 127) << shift;
            if byte & 128 == 0 {
                return Ok(number);
            }
        }
        bail!("a number that is too long")
    }
}

#[cfg(test)]
mod tests {
    use duologue_proto::chat::v1::{
        ConverseResponse, Envelope, MessageDelivered, Rejected, Stored, converse_response,
    };
    use prost::Message as _;

    use super::*;

    fn down(frame: converse_response::Frame) -> Result<Down> {
        let response = ConverseResponse {
            r#ref: 7,
            frame: Some(frame),
        };
        read_down(&response.encode_to_vec())
    }

    #[test]
    fn answers_are_read_and_refusals_are_errors() {
        let stored = Stored {
            message_id: "00000000000000ff".into(),
            peer: "bob".into(),
            seq: 5,
            ..Stored::default()
        };
        assert_eq!(
            down(converse_response::Frame::Stored(stored)).unwrap(),
            Down::Stored { id: 255, seq: 5 }
        );
        let envelope = Envelope {
            seq: 6,
            message_id: "0000000000000010".into(),
            ..Envelope::default()
        };
        let delivered = MessageDelivered {
            envelope: Some(envelope),
        };
        assert_eq!(
            down(converse_response::Frame::MessageDelivered(delivered)).unwrap(),
            Down::Delivered { id: 16, seq: 6 }
        );
        assert!(down(converse_response::Frame::Rejected(Rejected::default())).is_err());
    }
}
