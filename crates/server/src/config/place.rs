//! Where in a file something stands.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// One key of a file, or one element of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As the options are named in texts: `client.ping_interval`,
    /// ``channel.namespaces[0] (`chat`).presence``.
    pub(super) path: String,
    /// Bytes of the key (of the value, for an element of a list).
    key: Range<usize>,
    /// Bytes of the value.
    value: Range<usize>,
}

/// All keys of a file.
pub(super) fn entries(root: &DeTable<'_>) -> Vec<Entry> {
    let mut entries = Vec::new();
    collect_table("", root, &mut entries);
    entries
}

fn collect_table(prefix: &str, table: &DeTable<'_>, entries: &mut Vec<Entry>) {
    for (key, value) in table {
        let name = key.get_ref();
        let path = if prefix.is_empty() {
            name.to_string()
        } else {
            format!("{prefix}.{name}")
        };
        entries.push(Entry {
            path: path.clone(),
            key: key.span(),
            value: value.span(),
        });
        collect_value(&path, value.get_ref(), entries);
    }
}

fn collect_value(path: &str, value: &DeValue<'_>, entries: &mut Vec<Entry>) {
    match value {
        DeValue::Table(table) => collect_table(path, table, entries),
        DeValue::Array(array) => {
            for (index, element) in array.iter().enumerate() {
                let value = element.get_ref();
                let name = value.get("name").and_then(|name| name.get_ref().as_str());
                let name = name.filter(|name| !name.is_empty());
                let name = name.map(|name| format!(" (`{name}`)")).unwrap_or_default();
                let path = format!("{path}[{index}]{name}");
                let span = element.span();
                entries.push(Entry {
                    path: path.clone(),
                    key: span.clone(),
                    value: span,
                });
                collect_value(&path, value, entries);
            }
        }
        _ => {}
    }
}

/// The innermost entry that the byte at `offset` belongs to.
pub(super) fn entry_at(entries: &[Entry], offset: usize) -> Option<&Entry> {
    entries
        .iter()
        .filter(|entry| entry.key.contains(&offset) || entry.value.contains(&offset))
        .max_by_key(|entry| entry.path.len())
}

/// Where the option with this path stands; if it isn't there, the table that it would be in.
pub(super) fn offset_of(entries: &[Entry], path: &str) -> Option<usize> {
    entries
        .iter()
        .filter(|entry| {
            path.strip_prefix(entry.path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', ' ']))
        })
        .max_by_key(|entry| entry.path.len())
        .map(|entry| entry.key.start)
}

/// Where the option stands that a sentence is about: of those that are written, the first that it names.
pub(super) fn named_in(entries: &[Entry], sentence: &str) -> Option<usize> {
    let is_name = |char: char| char.is_ascii_alphanumeric() || "._[]".contains(char);
    let names = sentence.split(|char| !is_name(char));
    let mut names = names.map(|name| name.trim_end_matches('.'));
    names.find_map(|name| {
        // A table's name alone is no option, and may be a word.
        let mut options = entries.iter().filter(|entry| entry.path.contains('.'));
        let option = options.find(|entry| entry.path == name)?;
        Some(option.key.start)
    })
}

/// The number that a text is, as YAML, JSON and the environment have them: decimal, with nothing around it.
pub(super) fn number(text: &str) -> Option<DeValue<'_>> {
    let allowed = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let first = *text.as_bytes().first()?;
    if !(first.is_ascii_digit() || first == b'-' || first == b'+') || !text.bytes().all(allowed) {
        return None;
    }
    let value = DeValue::parse(text).ok()?.into_inner();
    matches!(value, DeValue::Integer(_) | DeValue::Float(_)).then_some(value)
}

/// Line and column of a byte, both from 1, the column in characters.
pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line_start = before
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    // Counts the first bytes of characters: 0b10xxxxxx are those that follow.
    let column = before[line_start..]
        .iter()
        .filter(|&&byte| byte & 0xC0 != 0x80)
        .count()
        + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "top = 1\n[client]\nping_interval = \"25s\"\n\n[[channel.namespaces]]\n\
                        name = \"a.b\"\nhistory_size = 3\n\n[[channel.namespaces]]\n  presence = 1\n";

    fn at(path: &str) -> Option<(usize, usize)> {
        let root = DeTable::parse(TEXT).unwrap();
        let offset = offset_of(&entries(root.get_ref()), path)?;
        Some(line_and_column(TEXT, offset))
    }

    #[test]
    fn options_are_found() {
        assert_eq!(at("top"), Some((1, 1)));
        assert_eq!(at("client.ping_interval"), Some((3, 1)));
        assert_eq!(
            at("channel.namespaces[0] (`a.b`).history_size"),
            Some((7, 1))
        );
        assert_eq!(at("channel.namespaces[1].presence"), Some((10, 3)));
        // Not there: the nearest thing around.
        assert_eq!(at("client.pong_timeout"), Some((2, 2)));
        assert_eq!(at("channel.namespaces[1].name"), Some((9, 1)));
        assert_eq!(at("http_api.key"), None);
        assert_eq!(at("clients.x"), None);
    }

    #[test]
    fn offsets_find_their_entry() {
        let root = DeTable::parse(TEXT).unwrap();
        let entries = entries(root.get_ref());
        let path = |needle: &str| {
            let offset = TEXT.find(needle).unwrap();
            entry_at(&entries, offset).map(|entry| entry.path.as_str())
        };
        assert_eq!(path("ping_interval"), Some("client.ping_interval"));
        assert_eq!(path("25s"), Some("client.ping_interval"));
        assert_eq!(path("presence"), Some("channel.namespaces[1].presence"));
        assert_eq!(
            path("history_size"),
            Some("channel.namespaces[0] (`a.b`).history_size")
        );
    }

    #[test]
    fn columns_are_counted_in_characters() {
        assert_eq!(line_and_column("é = 1\nà = 2", 3), (1, 3));
        assert_eq!(line_and_column("é = 1\nà = 2", "é = 1\nà".len()), (2, 2));
        assert_eq!(line_and_column("", 0), (1, 1));
        assert_eq!(line_and_column("a\n", 99), (2, 1));
    }
}
