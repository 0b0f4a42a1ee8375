//! Hides what differs from run to run, and nothing else, before an output is
//! compared with the one in the README.

use std::borrow::Cow;

use anyhow::{Context, Result};
use regex::Regex;

/// What is hidden: a pattern and what stands in its place. In this order.
const MASKS: [(&str, &str); 7] = [
    // Bearer tokens: three parts, the first of which begins with `{"`.
    (
        r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+",
        "<token>",
    ),
    // Opaque values of the contract, as JSON.
    (
        r#""(historyId|nextPageToken|nodeId|sessionId|syncToken)": *"[^"]+""#,
        r#""$1": "<opaque>""#,
    ),
    (
        r#""connectNumber": *"[0-9]+""#,
        r#""connectNumber": "<number>""#,
    ),
    // UUIDs and other ids in hexadecimal digits.
    (
        r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
        "<uuid>",
    ),
    (r"\b[0-9a-f]{16,64}\b", "<hex>"),
    // Times of RFC 3339, to whatever fraction of a second.
    (
        r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
        "<time>",
    ),
    // grpcurl puts one or two spaces after a name, by how it was built.
    (r#"^(\s*"[A-Za-z0-9]+":) +"#, "$1 "),
];

/// The masks, ready for use.
pub(super) struct Masks(Vec<(Regex, &'static str)>);

impl Masks {
    /// Compiles the patterns.
    pub(super) fn new() -> Result<Self> {
        let compiled = MASKS.iter().map(|(pattern, place)| {
            let regex = Regex::new(pattern).with_context(|| format!("bad mask {pattern}"))?;
            Ok((regex, *place))
        });
        compiled.collect::<Result<_>>().map(Self)
    }

    /// The lines with everything hidden that differs from run to run, without
    /// space at the end of lines and without empty lines at the end.
    pub(super) fn apply(&self, lines: &[String]) -> Vec<String> {
        let mut masked: Vec<String> = lines.iter().map(|line| self.line(line)).collect();
        while masked.last().is_some_and(String::is_empty) {
            masked.pop();
        }
        masked
    }

    fn line(&self, line: &str) -> String {
        let mut masked = Cow::Borrowed(line.trim_end());
        for (regex, place) in &self.0 {
            if let Cow::Owned(replaced) = regex.replace_all(&masked, *place) {
                masked = Cow::Owned(replaced);
            }
        }
        masked.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(line: &str) -> String {
        Masks::new().unwrap().line(line)
    }

    #[test]
    fn hides_what_differs_from_run_to_run() {
        assert_eq!(masked("TOKEN=eyJhbGciOi.eyJzdWIi.x-_9"), "TOKEN=<token>");
        assert_eq!(masked("at 2026-01-31T23:59:59.123Z:"), "at <time>:");
        assert_eq!(masked("at 2026-01-31T23:59:59+02:00"), "at <time>");
        assert_eq!(
            masked(r#"  "messageId": "01936f2e-8c5b-7d3e-9f10-0123456789ab","#),
            r#"  "messageId": "<uuid>","#
        );
        assert_eq!(
            masked(r#""sessionId":  "s-17""#),
            r#""sessionId": "<opaque>""#
        );
        assert_eq!(masked("0123456789abcdef0123456789abcdef"), "<hex>");
        assert_eq!(masked(r#"  "seq":  "1""#), r#"  "seq": "1""#);
    }

    #[test]
    fn hides_nothing_else() {
        let kept = [
            r#"  "messageId": "first-1","#,
            r#"    "text": "hello,  bob""#,
            r#"  "seq": "12","#,
            "listens on 127.0.0.1:50051",
            r#"  "sessionId": """#,
            "ERROR:",
            "  Code: Unauthenticated",
        ];
        for line in kept {
            assert_eq!(masked(line), line);
        }
    }

    #[test]
    fn space_at_the_end_does_not_count() {
        let lines = [
            "a  ".to_owned(),
            String::new(),
            "b".to_owned(),
            " ".to_owned(),
        ];
        assert_eq!(Masks::new().unwrap().apply(&lines), ["a", "", "b"]);
    }
}
