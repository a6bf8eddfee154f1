//! URLs of key sets with something to fill in from a token, such as `https://id.example.com/{{tenant}}/keys`.
//!
//! What is filled in comes from strangers, before anything of it is verified. So it may be little: it can't
//! name another host, leave its place in the path, or add parameters.

use std::fmt;

/// A URL in which each `{{name}}` stands for something that a token says.
///
/// ```
/// use tautline_auth::UrlTemplate;
///
/// assert!(UrlTemplate::parse("https://id.example.com/{{tenant}}/keys").is_ok());
/// assert!(UrlTemplate::parse("https://{{tenant}}.example.com/keys").is_ok());
/// assert!(UrlTemplate::parse("https://{{host}}/keys").is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct UrlTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name { name: String, in_host: bool },
}

/// A text that can't be used as a [`UrlTemplate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlTemplateError {
    /// The scheme is missing, or is something else than HTTP.
    #[error("is not a URL of a key set: it must begin with https:// or http://")]
    Scheme,
    /// A `{{` without its `}}`, or what is between them is no name.
    #[error("has `{{{{` with no name and `}}}}` behind it, such as {{{{tenant}}}}")]
    Name,
    /// A token could choose the host.
    #[error(
        "what is filled in may only be the front of a host whose domain is written out, such as \
         https://{{{{tenant}}}}.example.com/keys: a token could send the server anywhere"
    )]
    Host,
    /// Nothing gives a name its value.
    #[error(
        "`{{{{{0}}}}}` is no named group, such as (?<{0}>[a-z]+), of issuer_regex or audience_regex"
    )]
    Unknown(String),
    /// Both regular expressions give a name its value.
    #[error(
        "`{{{{{0}}}}}` is a named group of both issuer_regex and audience_regex: give one another name"
    )]
    Ambiguous(String),
}

impl UrlTemplate {
    /// Whether a text has something to fill in at all.
    pub fn is_template(text: &str) -> bool {
        text.contains("{{")
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// If a token could choose the host, or the text is none.
    pub fn parse(text: &str) -> Result<Self, UrlTemplateError> {
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .ok_or(UrlTemplateError::Scheme)?;
        let authority_len = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        check_authority(&rest[..authority_len])?;
        let host_end = text.len() - rest.len() + authority_len;
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(start) = text[at..].find("{{").map(|start| at + start) {
            let len = text[start..].find("}}").ok_or(UrlTemplateError::Name)?;
            let name = &text[start + 2..start + len];
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || !name.bytes().all(allowed) {
                return Err(UrlTemplateError::Name);
            }
            parts.push(Part::Text(text[at..start].to_owned()));
            parts.push(Part::Name {
                name: name.to_owned(),
                in_host: start < host_end,
            });
            at = start + len + 2;
        }
        parts.push(Part::Text(text[at..].to_owned()));
        Ok(Self { parts })
    }

    /// The names of what is filled in.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Name { name, .. } => Some(&**name),
            Part::Text(_) => None,
        })
    }

    /// The URL with the values; `None` if one is missing, or can't stand where it would.
    pub(crate) fn fill<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Option<String> {
        let mut url = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => url.push_str(text),
                Part::Name { name, in_host } => {
                    let value = value(name)?;
                    let is_fine = if *in_host { is_label } else { is_segment };
                    if !is_fine(value) {
                        return None;
                    }
                    url.push_str(value);
                }
            }
        }
        // The values may come to one together.
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let climbs = path.split('/').any(|part| matches!(part, "." | ".."));
        (!climbs).then_some(url)
    }
}

impl fmt::Display for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Name { name, .. } => write!(f, "{{{{{name}}}}}"),
        })
    }
}

impl fmt::Debug for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UrlTemplate({self})")
    }
}

/// Behind what is filled in, two labels of the host must be written out.
fn check_authority(authority: &str) -> Result<(), UrlTemplateError> {
    let Some((_, behind)) = authority.rsplit_once("}}") else {
        return Ok(());
    };
    let host = behind.split(':').next().unwrap_or_default();
    let domain = host.strip_prefix('.').unwrap_or_default();
    let is_domain = domain.contains('.') && domain.split('.').all(is_label);
    if authority.contains('@') || !is_domain {
        return Err(UrlTemplateError::Host);
    }
    Ok(())
}

/// What may stand in a host: one label, or a part of one.
fn is_label(value: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=MAX_LABEL).contains(&value.len()) && value.bytes().all(allowed)
}

/// What may stand elsewhere: what needs no escape in a URL (RFC 3986, section 2.3).
fn is_segment(value: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    (1..=MAX_SEGMENT).contains(&value.len()) && value.bytes().all(allowed)
}

/// RFC 1035, section 2.3.4.
const MAX_LABEL: usize = 63;
const MAX_SEGMENT: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_can_not_choose_the_host() {
        for text in [
            "https://{{host}}/keys",
            "https://{{host}}",
            "https://{{host}}:443/keys",
            "https://id.{{host}}/keys",
            "https://{{tenant}}.com/keys",
            "https://{{tenant}}.example.{{tld}}/keys",
            "https://{{tenant}}example.com/keys",
            "https://{{tenant}}..com/keys",
            "https://{{tenant}}.example.com@evil.example/keys",
            "https://id.example.com:{{port}}/keys",
            "https://{{user}}@id.example.com/keys",
        ] {
            assert_eq!(
                UrlTemplate::parse(text),
                Err(UrlTemplateError::Host),
                "{text}"
            );
        }
        for text in [
            "{{scheme}}://id.example.com/",
            "ftp://a/{{b}}",
            "a/{{b}}",
            "",
        ] {
            assert_eq!(
                UrlTemplate::parse(text),
                Err(UrlTemplateError::Scheme),
                "{text}"
            );
        }
        for text in [
            "https://a.b/{{",
            "https://a.b/{{}}",
            "https://a.b/{{a b}}",
            "https://a.b/{{a",
        ] {
            assert_eq!(
                UrlTemplate::parse(text),
                Err(UrlTemplateError::Name),
                "{text}"
            );
        }
    }

    #[test]
    fn values_stay_in_their_places() {
        let path = UrlTemplate::parse("https://id.example.com/realms/{{t}}/keys?v={{v}}").unwrap();
        let fill = |t, v| path.fill(|name| Some(if name == "t" { t } else { v }));
        let url = "https://id.example.com/realms/a-B_1.~/keys?v=..";
        assert_eq!(fill("a-B_1.~", "..").as_deref(), Some(url));
        let long = "x".repeat(MAX_SEGMENT + 1);
        for value in [
            "",
            ".",
            "..",
            "a/b",
            "../x",
            "a?b",
            "a#b",
            "a%2fb",
            "a\\b",
            "a b",
            "a\r\nb",
            "a@b",
            "a:b",
            "caf\u{e9}",
            &long,
        ] {
            assert_eq!(fill(value, "1"), None, "{value}");
        }
        assert_eq!(
            path.fill(|name| (name == "t").then_some("a")),
            None,
            "not all are there"
        );
        let together = UrlTemplate::parse("https://id.example.com/{{a}}{{b}}").unwrap();
        assert_eq!(together.fill(|_| Some(".")), None);

        let host = UrlTemplate::parse("https://{{t}}.id.example.com:8443/keys").unwrap();
        let fill = |value| host.fill(|_| Some(value));
        let url = "https://shop-7.id.example.com:8443/keys";
        assert_eq!(fill("shop-7").as_deref(), Some(url));
        for value in [
            "a.b",
            "evil.example/",
            "a:b",
            "a_b",
            "a@b",
            &*"x".repeat(64),
        ] {
            assert_eq!(fill(value), None, "{value}");
        }
        assert_eq!(host.to_string(), "https://{{t}}.id.example.com:8443/keys");
    }
}
