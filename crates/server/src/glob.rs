//! Patterns of channel names: `chat:*`, `room-?`, `{news,chat}:[a-z]*`.
//!
//! | in a pattern | stands for |
//! |---|---|
//! | `*` | any number of characters, `:` among them |
//! | `?` | one character |
//! | `[abc]`, `[a-z]`, `[!a-z]` | one of these, or one that is none of them |
//! | `{a,b}` | `a` or `b`, patterns both |
//! | `\x` | `x` itself |
//!
//! What comes from outside is bounded: braces are multiplied out when a pattern is read, up to a
//! limit, and matching then takes at most the product of the lengths of pattern and name.

use std::str::{Chars, FromStr};

use thiserror::Error;

/// A pattern that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    alternatives: Vec<Vec<Token>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Many,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// What is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GlobError {
    /// Too many bytes.
    #[error("the pattern has {length} bytes, at most {MAX_LEN} are accepted")]
    TooLong {
        /// How many.
        length: usize,
    },
    /// Braces come to too much.
    #[error("the pattern's braces come to more than {MAX_ALTERNATIVES} patterns")]
    TooManyAlternatives,
    /// Braces in braces in braces.
    #[error("the pattern's braces are nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A `[` without its `]`, or with nothing in between.
    #[error(
        "the pattern has a `[` that isn't closed, or has nothing in it; write `\\[` for the character"
    )]
    Class,
    /// A range that ends before it begins.
    #[error("the pattern has the range `{from}-{to}`, which is empty")]
    Range {
        /// Its beginning.
        from: char,
        /// Its end.
        to: char,
    },
    /// A `{` without its `}`, or the other way round.
    #[error("the pattern has a `{{` or `}}` without the other; write `\\{{` for the character")]
    Brace,
    /// A backslash at the end.
    #[error("the pattern ends with a backslash, which is for the character behind it")]
    Escape,
}

impl Glob {
    /// Whether the pattern stands for all of `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.alternatives.iter().any(|tokens| matches(tokens, name))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        let length = text.len();
        if length > MAX_LEN {
            return Err(GlobError::TooLong { length });
        }
        let mut chars = text.chars();
        let (alternatives, end) = sequence(&mut chars, 0)?;
        match end {
            None => Ok(Self {
                text: text.to_owned(),
                alternatives,
            }),
            Some(_) => Err(GlobError::Brace),
        }
    }
}

/// Reads up to the end, or in braces up to a comma or the closing one, which is returned.
fn sequence(
    chars: &mut Chars<'_>,
    depth: usize,
) -> Result<(Vec<Vec<Token>>, Option<char>), GlobError> {
    let mut all = vec![Vec::new()];
    while let Some(char) = chars.next() {
        let token = match char {
            ',' | '}' if depth > 0 => return Ok((all, Some(char))),
            '}' => return Err(GlobError::Brace),
            '{' => {
                all = product(&all, &braces(chars, depth + 1)?)?;
                continue;
            }
            '*' => Token::Many,
            '?' => Token::One,
            '[' => class(chars)?,
            '\\' => Token::Char(chars.next().ok_or(GlobError::Escape)?),
            other => Token::Char(other),
        };
        for tokens in &mut all {
            // Two stars are one.
            if token != Token::Many || tokens.last() != Some(&Token::Many) {
                tokens.push(token.clone());
            }
        }
    }
    Ok((all, None))
}

/// What is in braces, behind the opening one.
fn braces(chars: &mut Chars<'_>, depth: usize) -> Result<Vec<Vec<Token>>, GlobError> {
    if depth > MAX_DEPTH {
        return Err(GlobError::TooDeep);
    }
    let mut choices = Vec::new();
    loop {
        let (more, end) = sequence(chars, depth)?;
        choices.extend(more);
        if choices.len() > MAX_ALTERNATIVES {
            return Err(GlobError::TooManyAlternatives);
        }
        match end {
            Some('}') => return Ok(choices),
            Some(_) => {}
            None => return Err(GlobError::Brace),
        }
    }
}

/// Each beginning with each end.
fn product(beginnings: &[Vec<Token>], ends: &[Vec<Token>]) -> Result<Vec<Vec<Token>>, GlobError> {
    if beginnings.len() * ends.len() > MAX_ALTERNATIVES {
        return Err(GlobError::TooManyAlternatives);
    }
    let all = beginnings.iter();
    Ok(all
        .flat_map(|beginning| ends.iter().map(|end| [&beginning[..], end].concat()))
        .collect())
}

/// What is in brackets, behind the opening one.
fn class(chars: &mut Chars<'_>) -> Result<Token, GlobError> {
    let mut peeked = chars.clone();
    let negated = matches!(peeked.next(), Some('!' | '^'));
    if negated {
        *chars = peeked;
    }
    let mut ranges = Vec::new();
    let literal = |chars: &mut Chars<'_>, char| match char {
        '\\' => chars.next().ok_or(GlobError::Class),
        other => Ok(other),
    };
    loop {
        let from = match chars.next().ok_or(GlobError::Class)? {
            ']' if ranges.is_empty() => return Err(GlobError::Class),
            ']' => return Ok(Token::Class { negated, ranges }),
            char => literal(chars, char)?,
        };
        let mut ahead = chars.clone();
        let to = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(to)) if to != ']' => {
                let to = literal(&mut ahead, to)?;
                *chars = ahead;
                to
            }
            _ => from,
        };
        if to < from {
            return Err(GlobError::Range { from, to });
        }
        ranges.push((from, to));
    }
}

/// Goes back to the last star only: an earlier one could not do better.
fn matches(tokens: &[Token], name: &str) -> bool {
    let (mut at, mut rest) = (0, name.chars());
    let mut star: Option<(usize, Chars<'_>)> = None;
    loop {
        let mut ahead = rest.clone();
        match (tokens.get(at), ahead.next()) {
            (Some(Token::Many), _) => {
                at += 1;
                star = Some((at, rest.clone()));
                continue;
            }
            (None, None) => return true,
            (Some(token), Some(char)) if stands_for(token, char) => {
                at += 1;
                rest = ahead;
                continue;
            }
            _ => {}
        }
        // The star takes one more.
        let Some((behind, taken)) = &mut star else {
            return false;
        };
        if taken.next().is_none() {
            return false;
        }
        at = *behind;
        rest = taken.clone();
    }
}

fn stands_for(token: &Token, char: char) -> bool {
    match token {
        Token::Char(expected) => *expected == char,
        Token::One | Token::Many => true,
        Token::Class { negated, ranges } => {
            let listed = ranges
                .iter()
                .any(|(from, to)| (*from..=*to).contains(&char));
            listed != *negated
        }
    }
}

/// Longest pattern, in bytes.
const MAX_LEN: usize = 1024;
/// How many patterns without braces one with braces may come to.
const MAX_ALTERNATIVES: usize = 64;
const MAX_DEPTH: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> Glob {
        text.parse().expect(text)
    }

    #[test]
    fn patterns_stand_for_names() {
        for (pattern, yes, no) in [
            (
                "chat:*",
                &["chat:", "chat:7", "chat:a:b"][..],
                &["chat", "xchat:7"][..],
            ),
            ("*", &["", "a:b", "é"], &[]),
            ("**", &["", "ab"], &[]),
            ("", &[""], &["a"]),
            ("a?c", &["abc", "a:c", "aéc"], &["ac", "abbc"]),
            ("*a*b", &["ab", "xaxb", "aab", "abb"], &["ba", "a", "abx"]),
            ("[a-cx]", &["a", "c", "x"], &["d", "ab", ""]),
            ("[!a-c]", &["d", "-"], &["a", ""]),
            ("[^a]", &["b"], &["a"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[\\]]", &["]"], &["\\"]),
            ("{a,bc}:*", &["a:", "bc:1"], &["b:", "c:1"]),
            ("{a,{b,c}d}", &["a", "bd", "cd"], &["b", "ad"]),
            ("{,x}a", &["a", "xa"], &["x"]),
            ("{a*,?}", &["ab", "b"], &["bb"]),
            ("a,b", &["a,b"], &["a"]),
            ("\\*\\{", &["*{"], &["a{"]),
        ] {
            let pattern_read = glob(pattern);
            for name in yes {
                assert!(pattern_read.matches(name), "{pattern} {name}");
            }
            for name in no {
                assert!(!pattern_read.matches(name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_told_so() {
        for (pattern, error) in [
            ("[", GlobError::Class),
            ("[]", GlobError::Class),
            ("[a", GlobError::Class),
            ("[a\\", GlobError::Class),
            ("[z-a]", GlobError::Range { from: 'z', to: 'a' }),
            ("{a", GlobError::Brace),
            ("a}", GlobError::Brace),
            ("{a,{b}", GlobError::Brace),
            ("a\\", GlobError::Escape),
            (&"{a,b}".repeat(7), GlobError::TooManyAlternatives),
            (
                &format!("{{{}}}", ",".repeat(64)),
                GlobError::TooManyAlternatives,
            ),
            (&"{".repeat(9), GlobError::TooDeep),
            (&"a".repeat(1025), GlobError::TooLong { length: 1025 }),
        ] {
            assert_eq!(pattern.parse::<Glob>(), Err(error), "{pattern}");
        }
        assert!("{a,b}".repeat(6).parse::<Glob>().is_ok());
    }

    /// The same by trying everything.
    fn naive(tokens: &[Token], name: &[char]) -> bool {
        match tokens {
            [] => name.is_empty(),
            [Token::Many, rest @ ..] => (0..=name.len()).any(|taken| naive(rest, &name[taken..])),
            [token, rest @ ..] => name
                .split_first()
                .is_some_and(|(first, others)| stands_for(token, *first) && naive(rest, others)),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_trying_everything_gives(
            pattern in "[ab*?]{0,10}", name in "[ab]{0,12}"
        ) {
            let read = glob(&pattern);
            let chars: Vec<_> = name.chars().collect();
            prop_assert_eq!(read.matches(&name), naive(&read.alternatives[0], &chars));
        }

        #[test]
        fn nothing_that_can_be_written_panics(pattern in "[a\\[\\]{},!^*?\\\\é-]{0,24}", name in ".{0,12}") {
            if let Ok(read) = pattern.parse::<Glob>() {
                read.matches(&name);
            }
        }
    }
}
