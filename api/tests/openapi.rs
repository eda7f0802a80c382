//! The checked-in OpenAPI document is the one that the code makes.
#![cfg(feature = "server")]

/// The document in the repository, and how to make it anew.
const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

#[test]
fn the_checked_in_document_is_current() {
    let mut made = api::openapi().to_pretty_json().unwrap();
    made.push('\n');
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(CHECKED_IN, &made).unwrap();
    }
    let kept = std::fs::read_to_string(CHECKED_IN).unwrap();
    assert!(
        kept == made,
        "api/openapi.json is not what the code says; make it anew with \
         `UPDATE_OPENAPI=1 cargo test -p api --all-features --test openapi`"
    );
}

#[test]
fn the_document_is_openapi_3_1_and_names_every_path_of_the_contract() {
    let document = serde_json::to_value(api::openapi()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/api/v1/vms/{name}/dumps",
        "/api/v1/dumps/{id}",
        "/api/v1/cores",
        "/api/v1/cores/{id}",
        "/api/v1/groups",
        "/api/v1/cores/{id}/extents",
        "/api/v1/cores/{id}/files/{name}",
        "/livez",
        "/readyz",
        "/metrics",
    ] {
        assert!(document["paths"].get(path).is_some(), "{path}");
    }
}
