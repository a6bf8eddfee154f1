//! JSON, with the place of everything in it: into the tables that TOML is read into, so that what is said
//! about options is the same for both.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::place;

/// What is no JSON, or none that a configuration can be made of.
#[derive(Debug)]
pub(super) struct JsonError {
    /// The byte where it is.
    pub(super) offset: usize,
    pub(super) message: String,
}

/// The value that `text` is; `None` for `null`. Places in it count from `start`.
pub(super) fn parse(text: &str, start: usize) -> Result<Option<Spanned<DeValue<'_>>>, JsonError> {
    // It is that which knows the grammar, and bounds the depth.
    serde_json::from_str::<serde_json::Value>(text).map_err(|error| {
        let before = text.split_inclusive('\n').take(error.line().max(1) - 1);
        let line_start: usize = before.map(str::len).sum();
        // The parser counts the bytes up to the one that is wrong, and that one.
        let offset = line_start + error.column().saturating_sub(1);
        let text = error.to_string();
        let message = match text.rsplit_once(" at line ") {
            Some((message, _)) => message.to_owned(),
            None => text,
        };
        JsonError {
            offset: start + offset,
            message,
        }
    })?;
    let mut reader = Reader { text, at: 0, start };
    reader.value()
}

/// Walks through a text that is known to be JSON.
struct Reader<'i> {
    text: &'i str,
    at: usize,
    start: usize,
}

impl<'i> Reader<'i> {
    fn value(&mut self) -> Result<Option<Spanned<DeValue<'i>>>, JsonError> {
        self.skip_space();
        let from = self.at;
        let value = match self.peek() {
            b'{' => Some(DeValue::Table(self.table()?)),
            b'[' => {
                self.at += 1;
                let mut list = toml::de::DeArray::new();
                while !self.ends_with(b']') {
                    let from = self.at;
                    let Some(value) = self.value()? else {
                        return Err(self.error(from, "`null` can't stand in a list"));
                    };
                    list.push(value);
                }
                Some(DeValue::Array(list))
            }
            b'"' => Some(DeValue::String(self.string()?)),
            _ => {
                let rest = &self.text[from..];
                let is_end = |c: char| c.is_ascii_whitespace() || matches!(c, ',' | ']' | '}');
                self.at = from + rest.find(is_end).unwrap_or(rest.len());
                match &self.text[from..self.at] {
                    "null" => None,
                    "true" => Some(DeValue::Boolean(true)),
                    "false" => Some(DeValue::Boolean(false)),
                    text => match place::number(text) {
                        Some(number) => Some(number),
                        None => return Err(self.error(from, "this number can't be read")),
                    },
                }
            }
        };
        let span = self.start + from..self.start + self.at;
        Ok(value.map(|value| Spanned::new(span, value)))
    }

    fn table(&mut self) -> Result<DeTable<'i>, JsonError> {
        self.at += 1;
        let mut table = DeTable::new();
        while !self.ends_with(b'}') {
            let from = self.at;
            let name = self.string()?;
            let key = Spanned::new(self.start + from..self.start + self.at, name);
            self.skip_space();
            // The colon.
            self.at += 1;
            let value = self.value()?;
            if table.contains_key(&key) {
                let message = format!("`{}` is there twice", key.get_ref());
                return Err(self.error(from, &message));
            }
            if let Some(value) = value {
                table.insert(key, value);
            }
        }
        Ok(table)
    }

    /// Whether the list or table ends here; otherwise its next member begins.
    fn ends_with(&mut self, end: u8) -> bool {
        self.skip_space();
        if self.peek() == b',' {
            self.at += 1;
            self.skip_space();
        }
        let ends = self.peek() == end;
        if ends {
            self.at += 1;
        }
        // Past the end there is nothing more to read, whatever was expected.
        ends || self.at >= self.text.len()
    }

    fn string(&mut self) -> Result<Cow<'i, str>, JsonError> {
        let from = self.at;
        let mut bytes = self.text.as_bytes()[from..].iter().enumerate().skip(1);
        let mut len = self.text.len() - from;
        while let Some((index, byte)) = bytes.next() {
            match byte {
                b'\\' => {
                    bytes.next();
                }
                b'"' => {
                    len = index + 1;
                    break;
                }
                _ => {}
            }
        }
        self.at = from + len;
        let text = &self.text[from..self.at];
        serde_json::from_str::<String>(text)
            .map(Cow::Owned)
            .map_err(|error| self.error(from, &error.to_string()))
    }

    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn skip_space(&mut self) {
        while self.peek().is_ascii_whitespace() {
            self.at += 1;
        }
    }

    fn error(&self, at: usize, message: &str) -> JsonError {
        JsonError {
            offset: self.start + at,
            message: message.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_have_their_places() {
        let text = "{ \"a\": {\"b\" : [1, true,\n \"x\\u00e9\\ud83d\\ude00\\\"\"] }, \"n\": null, \"f\": -1.5 }";
        let root = parse(text, 100).ok().flatten().expect("it is JSON");
        assert_eq!(root.span(), 100..100 + text.len());
        let root = root.get_ref();
        let list = root.get("a").and_then(|a| a.get_ref().get("b"));
        let list = list.and_then(|b| b.get_ref().as_array()).expect("a list");
        assert_eq!(list.len(), 3);
        assert_eq!(
            list[0]
                .get_ref()
                .as_integer()
                .map(toml::de::DeInteger::as_str),
            Some("1")
        );
        assert_eq!(list[1].get_ref().as_bool(), Some(true));
        assert_eq!(list[2].get_ref().as_str(), Some("xé😀\""));
        let span = list[2].span();
        assert!(text[span.start - 100..span.end - 100].starts_with("\"x\\u00e9"));
        assert!(root.get("n").is_none());
        assert!(root.get("f").is_some_and(|f| f.get_ref().is_float()));
    }

    #[test]
    fn mistakes_have_their_places() {
        for (text, offset, message) in [
            ("{\n \"a\": tru }", 11, "expected ident"),
            ("{\"a\": 1, \"a\": 2}", 9, "`a` is there twice"),
            ("[1, null]", 4, "`null` can't stand in a list"),
        ] {
            let error = parse(text, 0).expect_err(text);
            assert_eq!(error.message, message, "{text}");
            assert!(
                error.offset.abs_diff(offset) <= 1,
                "{text}: {}",
                error.offset
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[\\[\\]{}:,\"\\\\ a0-9.eE+-]{0,40}|\\PC{0,40}") {
            let _ = parse(&text, 0);
        }
    }
}
