//! What a backend is asked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tautline_protocol::ErrorCode;

/// A question. What is `None` or empty is not there.
#[derive(Default, Serialize)]
pub(in crate::proxy) struct Question<'a> {
    pub(in crate::proxy) client: &'a str,
    pub(in crate::proxy) transport: &'a str,
    pub(in crate::proxy) protocol: &'a str,
    pub(in crate::proxy) encoding: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::proxy) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::proxy) channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::proxy) method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::proxy) data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::proxy) b64data: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(in crate::proxy) name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(in crate::proxy) version: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(in crate::proxy) channels: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::proxy) meta: Option<&'a RawValue>,
}

impl<'a> Question<'a> {
    /// Puts a payload in; an empty one is none.
    ///
    /// # Errors
    ///
    /// Error 107 for one that isn't JSON, where it would have to be.
    pub(in crate::proxy) fn with_data(
        mut self,
        data: Option<&'a Bytes>,
        is_binary: bool,
    ) -> Result<Self, ErrorCode> {
        let Some(data) = data.filter(|data| !data.is_empty()) else {
            return Ok(self);
        };
        if is_binary {
            self.b64data = Some(STANDARD.encode(data));
        } else {
            let data = serde_json::from_slice(data).map_err(|_| ErrorCode::BadRequest)?;
            self.data = Some(data);
        }
        Ok(self)
    }

    /// The body.
    pub(in crate::proxy) fn to_body(&self) -> Bytes {
        // Nothing of it can fail to be written.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn questions_are_written_as_backends_know_them() {
        let question = Question {
            client: "5f0c",
            transport: "websocket",
            protocol: "json",
            encoding: "json",
            user: Some("7"),
            channel: Some("chat:7"),
            ..Question::default()
        };
        let data = Bytes::from_static(br#" {"text":"hi\ud800", "n":1.0} "#);
        let question = question.with_data(Some(&data), false).unwrap();
        let meta = RawValue::from_string(r#"{"plan":"pro"}"#.to_owned()).unwrap();
        let question = Question {
            meta: Some(&meta),
            ..question
        };
        // The payload as it came: numbers too, and halves of surrogate pairs.
        let expected = concat!(
            r#"{"client":"5f0c","transport":"websocket","protocol":"json","encoding":"json","user":"7","#,
            r#""channel":"chat:7","data":{"text":"hi\ud800", "n":1.0},"meta":{"plan":"pro"}}"#
        );
        assert_eq!(question.to_body(), expected);
        let empty = Bytes::new();
        for data in [None, Some(&empty)] {
            let question = Question::default().with_data(data, false).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&question.to_body()).unwrap();
            let expected = json!({"client":"","transport":"","protocol":"","encoding":""});
            assert_eq!(body, expected);
        }
    }

    #[test]
    fn payloads_of_any_bytes_need_base64() {
        let bytes = Bytes::from_static(b"\xff\x00");
        let refused = Question::default().with_data(Some(&bytes), false).err();
        assert_eq!(refused, Some(ErrorCode::BadRequest));
        let question = Question::default().with_data(Some(&bytes), true).unwrap();
        assert_eq!(question.b64data.as_deref(), Some("/wA="));
    }
}
