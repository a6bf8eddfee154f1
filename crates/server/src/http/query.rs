//! The parameters behind the `?` of an address.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Parameters, in the order in which they came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads `a=b&c=d`, as forms and `URLSearchParams` write it.
    ///
    /// # Errors
    ///
    /// A sentence when a parameter isn't UTF-8.
    pub(crate) fn parse(query: Option<&'a str>) -> Result<Self, String> {
        let pairs = query.unwrap_or_default().split('&');
        let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or("a parameter's name is not UTF-8")?;
            let value = decode(value)
                .ok_or_else(|| format!("the parameter `{}` is not UTF-8", name.escape_debug()))?;
            Ok((name, value))
        });
        pairs.collect::<Result<_, String>>().map(Self)
    }

    /// The first value of a parameter.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a parameter.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.0.iter().filter(move |(other, _)| other == name);
        pairs.map(|(_, value)| &**value)
    }

    /// The names of all parameters.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['+', '%']) {
        return Some(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(Cow::Owned(decoded.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse(Some("a=1&b=%7B%22x%22%3A+1%7D&a=2&c&&d=100%")).unwrap();
        assert_eq!(query.first("a"), Some("1"));
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.first("b"), Some(r#"{"x": 1}"#));
        assert_eq!(query.first("c"), Some(""));
        assert_eq!(query.first("d"), Some("100%"));
        assert_eq!(query.first("e"), None);
        assert_eq!(Query::parse(None).unwrap(), Query::default());
        assert!(Query::parse(Some("a=%ff")).unwrap_err().contains("`a`"));
    }
}
