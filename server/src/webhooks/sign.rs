//! The signature of a delivery, as Standard Webhooks 1.0 has it (standardwebhooks.com): HMAC-SHA256 (RFC 2104) over id, time
//! and body, so that a delivery can neither be made up nor be played again later.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// What a secret in base64 begins with.
const PREFIX: &str = "whsec_";
/// Shortest secret: 128 bits are not guessed.
const BYTES_MIN: usize = 16;

/// What deliveries are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Reads `whsec_` and base64, or any text of 16 bytes or more.
    ///
    /// # Errors
    /// A sentence without the secret in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bytes = match text.strip_prefix(PREFIX) {
            Some(code) => STANDARD
                .decode(code)
                .map_err(|why| format!("behind {PREFIX} stands no base64: {why}"))?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.len() < BYTES_MIN {
            return Err(format!(
                "the secret is shorter than {BYTES_MIN} bytes; `openssl rand -base64 32` makes a good one"
            ));
        }
        Ok(Self(bytes))
    }

    /// The headers that sign a delivery.
    pub(super) fn headers(&self, id: &str, unix_s: i64, body: &[u8]) -> [(&'static str, String); 3] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut signing = hmac::Context::with_key(&key);
        signing.update(format!("{id}.{unix_s}.").as_bytes());
        signing.update(body);
        let signature = STANDARD.encode(signing.sign());
        [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", unix_s.to_string()),
            ("webhook-signature", format!("v1,{signature}")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_is_signed_as_there() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let [id, time, signature] = secret.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(
            (id.1.as_str(), time.1.as_str()),
            ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330")
        );
        assert_eq!(signature.1, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_that_are_none_are_refused_and_not_repeated() {
        for text in ["", "short", "whsec_", "whsec_!!!!", "whsec_c2hvcnQ="] {
            let why = Secret::parse(text).unwrap_err();
            assert!(
                text.len() < 2 || !why.contains("!!!!") && !why.contains("c2hvcnQ"),
                "{why}"
            );
        }
        let secret = Secret::parse("a text of sixteen bytes\n").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
