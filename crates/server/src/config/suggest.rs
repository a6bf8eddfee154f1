//! Turns serde's "unknown field" into something that helps.

/// The known name that is nearest to `unknown`, if any is near enough to be what was meant.
pub(super) fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let unknown = unknown.to_ascii_lowercase();
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&unknown, name), *name))
        // A third of the name may be wrong; in short names, two letters swapped or missing.
        .filter(|(distance, name)| *distance <= (unknown.len().max(name.len()) / 3).max(2))
        .filter(|(distance, name)| *distance < name.len())
        .min()
        .map(|(_, name)| name)
}

/// What serde found, and what it would have known, taken from the text of its error: ``unknown
/// field `x`, expected one of `a`, `b` ``. `None` for any other text.
pub(super) fn unknown_name(message: &str) -> Option<Unknown<'_>> {
    let (is_key, rest) = match message.strip_prefix("unknown field ") {
        Some(rest) => (true, rest),
        None => (false, message.strip_prefix("unknown variant ")?),
    };
    // Known names have no backticks; the unknown one may.
    let (name, expected) = match rest.rsplit_once("`, expected ") {
        Some((name, expected)) => (name, expected),
        None => (rest.strip_suffix("`, there are no fields")?, ""),
    };
    let known = expected.split('`').skip(1).step_by(2).collect();
    Some(Unknown {
        is_key,
        name: name.strip_prefix('`')?,
        known,
    })
}

/// A name that serde doesn't know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown<'a> {
    /// A key of a table, or else the value of an option with a list of values.
    pub(super) is_key: bool,
    pub(super) name: &'a str,
    pub(super) known: Vec<&'a str>,
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Two {
        #[serde(rename = "alpha")]
        _alpha: u8,
        #[serde(rename = "beta")]
        _beta: u8,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Three {
        _a: u8,
        _b: u8,
        _c: u8,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    #[derive(Debug, Deserialize)]
    enum Choice {
        Left,
        Right,
    }

    /// Guards against another wording in another version of serde.
    #[test]
    fn serde_texts_are_understood() {
        fn message<T: for<'a> Deserialize<'a> + std::fmt::Debug>(toml: &str) -> String {
            toml::from_str::<T>(toml).unwrap_err().message().to_owned()
        }
        let two = message::<Two>("\"al`, expected `pha\" = 1");
        let expected = Unknown {
            is_key: true,
            name: "al`, expected `pha",
            known: vec!["alpha", "beta"],
        };
        assert_eq!(unknown_name(&two), Some(expected));
        let three = message::<Three>("x = 1");
        let expected = Unknown {
            is_key: true,
            name: "x",
            known: vec!["_a", "_b", "_c"],
        };
        assert_eq!(unknown_name(&three), Some(expected));
        let nothing = message::<Nothing>("x = 1");
        let expected = Unknown {
            is_key: true,
            name: "x",
            known: vec![],
        };
        assert_eq!(unknown_name(&nothing), Some(expected));

        #[derive(Debug, Deserialize)]
        struct Holder {
            #[serde(rename = "choice")]
            _choice: Choice,
        }
        let choice = message::<Holder>("choice = \"Lefd\"");
        let expected = Unknown {
            is_key: false,
            name: "Lefd",
            known: vec!["Left", "Right"],
        };
        assert_eq!(unknown_name(&choice), Some(expected));
        let _ = (Choice::Left, Choice::Right);

        assert_eq!(
            unknown_name("invalid type: integer `1`, expected a string"),
            None
        );
    }

    #[test]
    fn near_names_are_suggested_and_far_ones_not() {
        let known = ["ping_interval", "pong_timeout", "port", "name"];
        for (unknown, expected) in [
            ("pong_timout", Some("pong_timeout")),
            ("ping_intervall", Some("ping_interval")),
            ("prot", Some("port")),
            ("PING_INTERVAL", Some("ping_interval")),
            ("ping_int", None),
            ("nmae", Some("name")),
            ("x", None),
            ("workers", None),
        ] {
            assert_eq!(nearest(unknown, &known), expected, "{unknown}");
        }
    }
}
