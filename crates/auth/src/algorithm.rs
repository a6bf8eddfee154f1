//! The signature algorithms that can be verified (RFC 7518, section 3.1, and RFC 8037).

use aws_lc_rs::{hmac, signature};

use crate::error::InvalidToken;

/// What the header's `alg` may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

/// What an algorithm needs.
pub(crate) enum Method {
    /// A shared secret.
    Hmac(hmac::Algorithm),
    /// A public key.
    Public(&'static dyn signature::VerificationAlgorithm),
}

impl Algorithm {
    /// All that need a public key.
    pub(crate) const PUBLIC: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// Reads the header's `alg`. `none` is not an algorithm.
    pub(crate) fn from_name(name: &str) -> Result<Self, InvalidToken> {
        match name {
            "HS256" => Ok(Self::Hs256),
            "HS384" => Ok(Self::Hs384),
            "HS512" => Ok(Self::Hs512),
            "RS256" => Ok(Self::Rs256),
            "RS384" => Ok(Self::Rs384),
            "RS512" => Ok(Self::Rs512),
            "PS256" => Ok(Self::Ps256),
            "PS384" => Ok(Self::Ps384),
            "PS512" => Ok(Self::Ps512),
            "ES256" => Ok(Self::Es256),
            "ES384" => Ok(Self::Es384),
            "ES512" => Ok(Self::Es512),
            // The second is what RFC 9864 calls it.
            "EdDSA" | "Ed25519" => Ok(Self::EdDsa),
            // In whatever case: some libraries let it pass that way.
            none if none.eq_ignore_ascii_case("none") => Err(InvalidToken::Unsigned),
            _ => Err(InvalidToken::UnsupportedAlgorithm),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(crate) fn is_rsa(self) -> bool {
        matches!(self.name().as_bytes(), [b'R' | b'P', ..])
    }

    pub(crate) fn method(self) -> Method {
        match self {
            Self::Hs256 => Method::Hmac(hmac::HMAC_SHA256),
            Self::Hs384 => Method::Hmac(hmac::HMAC_SHA384),
            Self::Hs512 => Method::Hmac(hmac::HMAC_SHA512),
            Self::Rs256 => Method::Public(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Method::Public(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Method::Public(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Method::Public(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Method::Public(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Method::Public(&signature::RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Method::Public(&signature::ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Method::Public(&signature::ECDSA_P384_SHA384_FIXED),
            Self::Es512 => Method::Public(&signature::ECDSA_P521_SHA512_FIXED),
            Self::EdDsa => Method::Public(&signature::ED25519),
        }
    }
}
