//! The comments that name requirements: `//= rfc6455 5.1-1`, in Python `#= rfc6455 5.1-1`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// One number in one comment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The document: `rfc6455`.
    pub(crate) document: String,
    pub(crate) number: String,
    pub(crate) place: Place,
    /// File and line.
    pub(crate) at: String,
}

/// What carries the comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Code,
    Test,
}

/// All markers in the sources below `root`/`folder`. A folder that isn't there has none.
///
/// # Errors
///
/// When a file can't be read.
pub(crate) fn collect(root: &Path, folder: &str) -> Result<Vec<Marker>, Error> {
    let mut markers = Vec::new();
    for path in sources(&root.join(folder)) {
        let text = fs::read_to_string(&path)
            .map_err(Error::context(format!("can't read {}", path.display())))?;
        let name = path.strip_prefix(root).unwrap_or(&path);
        let is_test = name.components().any(|part| part.as_os_str() == "tests");
        markers.extend(find(&text, is_test, &name.display().to_string()));
    }
    Ok(markers)
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "node_modules" {
            found.append(&mut sources(&path));
        }
        let is_source = |extension: &std::ffi::OsStr| {
            ["rs", "mjs", "js", "py", "html"]
                .iter()
                .any(|e| extension == *e)
        };
        if path.extension().is_some_and(is_source) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn find(text: &str, is_test: bool, name: &str) -> Vec<Marker> {
    let mut place = if is_test { Place::Test } else { Place::Code };
    let mut markers = Vec::new();
    for (at, line) in text.lines().enumerate() {
        // Unit tests are at the end of their file.
        if line == "#[cfg(test)]" {
            place = Place::Test;
        }
        let line = line.trim_start();
        let Some(words) = line.strip_prefix("//= ").or(line.strip_prefix("#= ")) else {
            continue;
        };
        let mut words = words.split([' ', ',']).filter(|word| !word.is_empty());
        let document = words.next().unwrap_or_default();
        markers.extend(words.map(|number| Marker {
            document: document.to_owned(),
            number: number.to_owned(),
            place,
            at: format!("{name}:{}", at + 1),
        }));
    }
    markers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(number: &str, place: Place, at: &str) -> Marker {
        Marker {
            document: "rfc6455".to_owned(),
            number: number.to_owned(),
            place,
            at: at.to_owned(),
        }
    }

    #[test]
    fn code_and_its_tests_are_told_apart() {
        let text = "    //= rfc6455 5.1-1, 5.1-2\n\
                    let x = \"//= rfc6455 9-9\";\n\
                    #[cfg(test)]\n\
                    //= rfc6455 5.1-1\n";
        let expected = [
            marker("5.1-1", Place::Code, "a.rs:1"),
            marker("5.1-2", Place::Code, "a.rs:1"),
            marker("5.1-1", Place::Test, "a.rs:4"),
        ];
        assert_eq!(find(text, false, "a.rs"), expected);
        let all_tests = find("#= rfc6455 5.1-1\n", true, "a.py");
        assert_eq!(all_tests, [marker("5.1-1", Place::Test, "a.py:1")]);
    }
}
