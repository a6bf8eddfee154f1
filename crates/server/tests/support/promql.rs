//! As much of Prometheus' query language as dashboards and alerts here are written in: what an expression asks for.

use std::collections::{BTreeMap, BTreeSet};

/// A series that there is.
pub(crate) struct Known {
    /// Of the metric, in the table of all.
    pub(crate) name: &'static str,
    /// It only grows, so that its rate is what says something.
    pub(crate) is_counted: bool,
    pub(crate) labels: BTreeSet<String>,
}

/// What an expression asks for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) selectors: Vec<Selector>,
    /// What is aggregated or matched by.
    pub(crate) grouped: BTreeSet<String>,
    /// Whether labels are lost on the way.
    pub(crate) is_aggregated: bool,
}

#[derive(Debug)]
pub(crate) struct Selector {
    pub(crate) name: String,
    pub(crate) matchers: Vec<Matcher>,
    /// Whether its rate, or its growth, is asked for.
    pub(crate) is_rated: bool,
}

#[derive(Debug)]
pub(crate) struct Matcher {
    pub(crate) label: String,
    /// One, or the alternatives of a pattern.
    pub(crate) values: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    /// Numbers, and what stands in brackets.
    Amount,
    Sign(char),
}

const AGGREGATIONS: [&str; 4] = ["sum", "max", "min", "count"];
const RATES: [&str; 2] = ["rate", "increase"];
const FUNCTIONS: [&str; 3] = ["absent", "histogram_quantile", "time"];

impl Asked {
    /// Reads an expression.
    ///
    /// # Errors
    ///
    /// What is wrong with it: names that are no series' there, and what this doesn't know of the language.
    pub(crate) fn of(expression: &str, series: &BTreeMap<String, Known>) -> Result<Self, String> {
        let tokens = tokens(expression)?;
        let mut asked = Self::default();
        // The functions whose parentheses are open.
        let mut open: Vec<String> = Vec::new();
        let mut rest = &tokens[..];
        let sign = |token: Option<&Token>, sign| token == Some(&Token::Sign(sign));
        while let Some((first, behind)) = rest.split_first() {
            rest = behind;
            match first {
                Token::Sign('(') => open.push(String::new()),
                Token::Sign(')') => drop(
                    open.pop()
                        .ok_or("a parenthesis is closed that was not opened")?,
                ),
                Token::Sign('{') => return Err("labels of no metric".to_owned()),
                Token::Name(name) if name == "by" || name == "on" => {
                    rest = asked.group(rest)?;
                }
                Token::Name(name) if ["and", "or", "unless"].contains(&name.as_str()) => {}
                Token::Name(name) if AGGREGATIONS.contains(&name.as_str()) => {
                    asked.is_aggregated = true;
                }
                Token::Name(name) if sign(rest.first(), '(') => {
                    if !RATES.contains(&name.as_str()) && !FUNCTIONS.contains(&name.as_str()) {
                        return Err(format!("no function is called {name}"));
                    }
                    open.push(name.clone());
                    rest = &rest[1..];
                }
                Token::Name(name) => {
                    if !series.contains_key(name) {
                        return Err(format!("no series is called {name}"));
                    }
                    let mut matchers = Vec::new();
                    if sign(rest.first(), '{') {
                        rest = matchers_of(&rest[1..], &mut matchers)?;
                    }
                    asked.selectors.push(Selector {
                        name: name.clone(),
                        matchers,
                        is_rated: open.iter().any(|name| RATES.contains(&name.as_str())),
                    });
                }
                _ => {}
            }
        }
        match open.is_empty() && !asked.selectors.is_empty() {
            true => Ok(asked),
            false => Err("a parenthesis is left open, or nothing is asked for".to_owned()),
        }
    }

    /// Takes `(a, b)`.
    fn group<'t>(&mut self, tokens: &'t [Token]) -> Result<&'t [Token], String> {
        let Some((Token::Sign('('), mut rest)) = tokens.split_first() else {
            return Err("labels are in parentheses".to_owned());
        };
        loop {
            match rest.split_first() {
                Some((Token::Name(label), behind)) => {
                    self.grouped.insert(label.clone());
                    rest = behind;
                }
                Some((Token::Sign(','), behind)) => rest = behind,
                Some((Token::Sign(')'), behind)) => return Ok(behind),
                _ => return Err("a list of labels has no end".to_owned()),
            }
        }
    }
}

/// Takes `a="b", c=~"d|e"}`.
fn matchers_of<'t>(mut tokens: &'t [Token], out: &mut Vec<Matcher>) -> Result<&'t [Token], String> {
    loop {
        let end = tokens
            .iter()
            .position(|token| matches!(token, Token::Sign(',' | '}')));
        let end = end.ok_or("labels have no end")?;
        let (matcher, rest) = tokens.split_at(end);
        let (Some(Token::Name(label)), Some(Token::Text(value))) =
            (matcher.first(), matcher.last())
        else {
            return Err(format!("{matcher:?} is no condition on a label"));
        };
        let operator: String = matcher[1..matcher.len() - 1]
            .iter()
            .filter_map(|token| match token {
                Token::Sign(sign) => Some(*sign),
                _ => None,
            })
            .collect();
        let values = match operator.as_str() {
            "=" | "!=" => vec![value.clone()],
            "=~" | "!~" => value.split('|').map(str::to_owned).collect(),
            other => return Err(format!("`{other}` compares no labels")),
        };
        out.push(Matcher {
            label: label.clone(),
            values,
        });
        let is_last = rest[0] == Token::Sign('}');
        tokens = &rest[1..];
        if is_last {
            return Ok(tokens);
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = |is_in: fn(char) -> bool| rest.find(|char| !is_in(char)).unwrap_or(rest.len());
        let len = if first.is_whitespace() {
            first.len_utf8()
        } else if first == '"' {
            let end = rest[1..].find('"').ok_or("a text has no end")?;
            tokens.push(Token::Text(rest[1..=end].to_owned()));
            end + 2
        } else if first == '[' {
            tokens.push(Token::Amount);
            rest.find(']').ok_or("a range has no end")? + 1
        } else if first.is_ascii_digit() {
            tokens.push(Token::Amount);
            word(|char| char.is_ascii_alphanumeric() || char == '.')
        } else if first.is_ascii_alphabetic() || first == '_' {
            let len = word(|char| char.is_ascii_alphanumeric() || char == '_');
            tokens.push(Token::Name(rest[..len].to_owned()));
            len
        } else {
            tokens.push(Token::Sign(first));
            first.len_utf8()
        };
        rest = &rest[len..];
    }
    Ok(tokens)
}
