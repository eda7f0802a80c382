//! Errors as RFC 9457 problem details, media type `application/problem+json`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A problem (RFC 9457, section 3.1), with two members of our own: `code` and `existing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// URI reference that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened this time, in a sentence.
    pub detail: String,
    /// Path of the request, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Short machine-readable name of the kind.
    pub code: String,
    /// For a conflict: the path of the resource that is in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<String>,
}

impl Problem {
    /// A problem of the kind `code`.
    #[must_use]
    pub fn new(status: u16, code: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:coreferry:problem:{code}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            instance: None,
            code: code.to_owned(),
            existing: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_carries_the_members_of_rfc_9457() {
        let problem = Problem::new(404, "not-found", "Not found", "no core abc");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "urn:coreferry:problem:not-found");
        assert_eq!(json["status"], 404);
        assert_eq!(json["detail"], "no core abc");
        assert!(json.get("existing").is_none());
    }
}
