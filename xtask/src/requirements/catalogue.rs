//! The lists of requirements: one file a document, one requirement a line.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::error::Error;

/// Something that an RFC asks for.
pub(crate) struct Requirement {
    /// The section, and a count within it.
    pub(crate) number: String,
    pub(crate) level: Level,
    /// The RFC's own word.
    pub(crate) keyword: String,
    /// Whom it binds.
    pub(crate) role: String,
    pub(crate) text: String,
    pub(crate) excuse: Option<Excuse>,
}

/// How much it matters (RFC 2119).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Must,
    Should,
    May,
}

impl Level {
    pub(crate) const ALL: [Self; 3] = [Self::Must, Self::Should, Self::May];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::May => "MAY",
        }
    }

    fn from_keyword(keyword: &str) -> Option<Self> {
        Some(match keyword {
            "MUST" | "MUST NOT" | "REQUIRED" | "SHALL" | "SHALL NOT" => Self::Must,
            "SHOULD" | "SHOULD NOT" | "RECOMMENDED" | "NOT RECOMMENDED" => Self::Should,
            "MAY" | "OPTIONAL" => Self::May,
            _ => return None,
        })
    }
}

/// Why something is not asked for, in words.
pub(crate) enum Excuse {
    /// It binds somebody else, or isn't done.
    NotHere(String),
    /// No test could tell.
    NoTest(String),
}

/// Reads all lists of a folder; each comes with its name, which is that of the file.
///
/// # Errors
///
/// When one can't be read or isn't as it should be.
pub(crate) fn read(folder: &Path) -> Result<Vec<(String, Vec<Requirement>)>, Error> {
    let failed = || Error::context(format!("can't read {}", folder.display()));
    let mut files: Vec<_> = fs::read_dir(folder)
        .map_err(failed())?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let text = fs::read_to_string(&path).map_err(failed())?;
            let list = parse(&text)
                .map_err(|problem| Error::new(format!("{}: {problem}", path.display())))?;
            Ok((name.into_owned(), list))
        })
        .collect()
}

fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let mut list: Vec<Requirement> = Vec::new();
    let mut numbers = BTreeSet::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: &str| format!("line {}: {what}", at + 1);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with(' ') {
            let Some(last) = list.last_mut() else {
                return Err(wrong("an excuse without a requirement"));
            };
            last.excuse = Some(match line.trim().split_once(": ") {
                Some(("not here", why)) => Excuse::NotHere(why.to_owned()),
                Some(("no test", why)) => Excuse::NoTest(why.to_owned()),
                _ => return Err(wrong("expected 'not here: ' or 'no test: ' and a reason")),
            });
            continue;
        }
        let requirement = requirement(line)
            .ok_or_else(|| wrong("expected 'SECTION-COUNT | KEYWORD | ROLE | text'"))?;
        if !numbers.insert(requirement.number.clone()) {
            return Err(wrong("this number is there already"));
        }
        list.push(requirement);
    }
    Ok(list)
}

/// One line.
pub(crate) fn requirement(line: &str) -> Option<Requirement> {
    let mut parts = line.split('|').map(str::trim);
    let (number, keyword, role, text) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (section, count) = number.split_once('-')?;
    let is_section = section
        .split('.')
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_section || count.parse::<u32>().is_err() || text.is_empty() || parts.next().is_some() {
        return None;
    }
    Some(Requirement {
        number: number.to_owned(),
        level: Level::from_keyword(keyword)?,
        keyword: keyword.to_owned(),
        role: role.to_owned(),
        text: text.to_owned(),
        excuse: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read() {
        let list = parse(
            "# A document\n\n\
             5.1-1 | MUST | client | masks\n\
             5.1-2 | SHOULD NOT | both | shouts\n    not here: it has no voice\n",
        )
        .expect("a list");
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].number, "5.1-1");
        assert_eq!((list[0].level, list[1].level), (Level::Must, Level::Should));
        assert!(matches!(&list[1].excuse, Some(Excuse::NotHere(why)) if why == "it has no voice"));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, line) in [
            ("5.1-1 | WILL | client | masks", "line 1"),
            ("\n5.1 | MUST | client | masks", "line 2"),
            ("5..1-1 | MUST | client | masks", "line 1"),
            ("5.1-1 | MUST | client", "line 1"),
            ("    not here: why", "line 1"),
            ("5.1-1 | MUST | client | masks\n    because: why", "line 2"),
            ("5.1-1 | MUST | a | b\n5.1-1 | MUST | a | b", "line 2"),
        ] {
            let problem = parse(text).err().expect(text);
            assert!(problem.contains(line), "{problem}");
        }
    }
}
