//! Who a client is by a header field of its request, where a proxy in front has found that out.

use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;

/// The field that says so, if one does.
#[derive(Clone, Debug, Default)]
pub(crate) struct UserHeader(pub(crate) Option<HeaderName>);

impl UserHeader {
    /// The user that a request's header names.
    pub(crate) fn user(&self, headers: &HeaderMap) -> Option<Arc<str>> {
        let headers = headers.iter();
        self.user_among(headers.map(|(name, value)| (name.as_str(), value.as_bytes())))
    }

    /// The same for the fields that another reader has found.
    pub(crate) fn user_among<'h>(
        &self,
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    ) -> Option<Arc<str>> {
        let wanted = self.0.as_ref()?.as_str();
        let mut values = headers
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value);
        let value = values.next()?;
        // With two of them one may be the client's own, and nobody can tell which.
        if values.next().is_some() {
            return None;
        }
        let user = std::str::from_utf8(value).ok()?.trim();
        (!user.is_empty()).then(|| user.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_names_one_user() {
        let header = UserHeader(Some(HeaderName::from_static("x-user-id")));
        let user = |fields: &[(&str, &[u8])]| {
            let user = header.user_among(fields.iter().copied());
            user.map(|user| user.to_string())
        };
        assert_eq!(user(&[("X-User-Id", b" 42 ")]).as_deref(), Some("42"));
        let name = "J\u{fc}rgen";
        assert_eq!(
            user(&[("host", b"h"), ("x-user-id", name.as_bytes())]).as_deref(),
            Some(name)
        );
        let nobodies: [&[(&str, &[u8])]; 5] = [
            &[],
            &[("x-user", b"42")],
            &[("x-user-id", b"")],
            &[("x-user-id", b"\xff")],
            &[("x-user-id", b"42"), ("X-USER-ID", b"42")],
        ];
        for nobody in nobodies {
            assert_eq!(user(nobody), None, "{nobody:?}");
        }
        let any: &[(&str, &[u8])] = &[("x-user-id", b"42")];
        assert_eq!(UserHeader::default().user_among(any.iter().copied()), None);
    }
}
