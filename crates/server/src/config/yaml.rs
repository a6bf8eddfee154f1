//! YAML 1.2, with the place of everything in it: into the tables that TOML is read into, so that what is said
//! about options is the same for both.
//!
//! What a configuration has no use for is refused rather than guessed at: anchors and aliases, tags, several
//! documents, keys that are no texts. Values are those of the core schema: `yes` is a text.

use std::borrow::Cow;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::place;

/// What is no YAML, or none that a configuration can be made of.
#[derive(Debug)]
pub(super) struct YamlError {
    /// The byte where it is.
    pub(super) offset: usize,
    pub(super) message: String,
}

/// The table that the document is; an empty one if there is nothing in it.
pub(super) fn parse(text: &str) -> Result<DeTable<'_>, YamlError> {
    // The parser counts characters.
    let mut starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    starts.push(text.len());
    let byte = |index: usize| starts.get(index).copied().unwrap_or(text.len());
    let range = |span: Span| byte(span.start.index())..byte(span.end.index());
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| YamlError {
            offset: byte(error.marker().index()),
            message: error.info().to_owned(),
        })?;
        let span = range(span);
        let offset = span.start;
        builder
            .event(text, event, span)
            .map_err(|message| YamlError { offset, message })?;
    }
    match builder.root {
        None => Ok(DeTable::new()),
        Some((_, Some(DeValue::Table(table)))) => Ok(table),
        Some((_, None)) => Ok(DeTable::new()),
        Some((span, Some(_))) => Err(YamlError {
            offset: span.start,
            message: "expected the names of options, such as `http_server:`".to_owned(),
        }),
    }
}

/// What has been begun, the outermost first.
#[derive(Default)]
struct Builder<'i> {
    open: Vec<Open<'i>>,
    documents: usize,
    root: Option<(Range<usize>, Option<DeValue<'i>>)>,
}

enum Open<'i> {
    List(usize, DeArray<'i>),
    Table(usize, DeTable<'i>, Option<Spanned<Cow<'i, str>>>),
}

impl<'i> Builder<'i> {
    fn event(&mut self, text: &'i str, event: Event<'i>, span: Range<usize>) -> Result<(), String> {
        match event {
            Event::Alias(_) => return Err(NO_ANCHORS.to_owned()),
            Event::Scalar(_, _, 1.., _)
            | Event::SequenceStart(1.., _)
            | Event::MappingStart(1.., _) => return Err(NO_ANCHORS.to_owned()),
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err("tags (`!`) are not understood; leave this one out".to_owned());
            }
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("there is a second document; a configuration is one".to_owned());
                }
            }
            Event::Scalar(value, style, ..) => return self.scalar(text, value, style, span),
            Event::SequenceStart(..) => self.open(Open::List(span.start, DeArray::new()))?,
            Event::MappingStart(..) => self.open(Open::Table(span.start, DeTable::new(), None))?,
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(start, list)) => {
                    return self.put(start..span.end, Some(DeValue::Array(list)));
                }
                Some(Open::Table(start, table, _)) => {
                    return self.put(start..span.end, Some(DeValue::Table(table)));
                }
                None => {}
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn open(&mut self, open: Open<'i>) -> Result<(), String> {
        if let Some(Open::Table(_, _, None)) = self.open.last() {
            return Err("the name of an option must be a text".to_owned());
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} deep"));
        }
        self.open.push(open);
        Ok(())
    }

    fn scalar(
        &mut self,
        text: &'i str,
        value: Cow<'i, str>,
        style: ScalarStyle,
        span: Range<usize>,
    ) -> Result<(), String> {
        if let Some(Open::Table(_, table, key @ None)) = self.open.last_mut() {
            let name = Spanned::new(span, value);
            if table.contains_key(&name) {
                return Err(format!("`{}` is there twice", name.get_ref()));
            }
            *key = Some(name);
            return Ok(());
        }
        let value = match style {
            ScalarStyle::Plain => match &*value {
                "" | "~" | "null" | "Null" | "NULL" => None,
                "true" | "True" | "TRUE" => Some(DeValue::Boolean(true)),
                "false" | "False" | "FALSE" => Some(DeValue::Boolean(false)),
                _ => {
                    let number = text.get(span.clone()).and_then(place::number);
                    Some(number.unwrap_or(DeValue::String(value)))
                }
            },
            _ => Some(DeValue::String(value)),
        };
        self.put(span, value)
    }

    /// Puts a value where it belongs. An option without one is as if it weren't there.
    fn put(&mut self, span: Range<usize>, value: Option<DeValue<'i>>) -> Result<(), String> {
        match self.open.last_mut() {
            None => self.root = Some((span, value)),
            Some(Open::List(_, list)) => {
                let value = value.ok_or("there is nothing in this element of the list")?;
                list.push(Spanned::new(span, value));
            }
            Some(Open::Table(_, table, key)) => {
                if let (Some(key), Some(value)) = (key.take(), value) {
                    table.insert(key, Spanned::new(span, value));
                }
            }
        }
        Ok(())
    }
}

const NO_ANCHORS: &str =
    "anchors (`&`) and aliases (`*`) are not understood; write it out, or put it into quotes";
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_have_their_places() {
        let text = "# é\nclient:\n  ping_interval: 25s\n  list: [a, \"1\"]\n  none:\nn:\n  - name: x\n    size: -12\n    on: true\n";
        let root = parse(text).expect("it is YAML");
        let client = root.get("client").expect("client").get_ref();
        let interval = client.get("ping_interval").expect("ping_interval");
        assert_eq!(interval.get_ref().as_str(), Some("25s"));
        assert_eq!(&text[interval.span()], "25s");
        let list = client
            .get("list")
            .and_then(|list| list.get_ref().as_array());
        let list = list.expect("a list");
        assert_eq!(list[1].get_ref().as_str(), Some("1"));
        assert!(client.get("none").is_none());
        let first = root.get("n").and_then(|n| n.get_ref().get(0));
        let first = first.expect("the first").get_ref();
        assert!(
            first
                .get("size")
                .is_some_and(|size| size.get_ref().is_integer())
        );
        assert_eq!(
            first.get("on").and_then(|on| on.get_ref().as_bool()),
            Some(true)
        );
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for (text, at, message) in [
            ("a: 1\na: 2\n", 5, "`a` is there twice"),
            ("a: &x 1\n", 3, NO_ANCHORS),
            (
                "a: !!str 1\n",
                3,
                "tags (`!`) are not understood; leave this one out",
            ),
            (
                "- a\n",
                0,
                "expected the names of options, such as `http_server:`",
            ),
            ("[a]: 1\n", 0, "the name of an option must be a text"),
            (
                "a: 1\n---\nb: 2\n",
                5,
                "there is a second document; a configuration is one",
            ),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.offset, &*error.message), (at, message), "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse("a: [1\nb: 2").is_err());
        for empty in ["", "# nothing\n", "~\n", "---\n"] {
            assert!(parse(empty).is_ok_and(|table| table.is_empty()), "{empty}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[\\[\\]{}:,\"'\\\\ a0-9.\n|>&*!?#-]{0,60}|\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
