//! How a receiver tells others what happens: webhooks as they are configured, and its log.

#[path = "tls/certificates.rs"]
mod certificates;
mod common;
#[path = "web/dumps.rs"]
mod dumps;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use certificates::{Authority, Life};
use common::{Serve, path_text, run, run_ok, temp_dir, wait_for};

#[test]
fn an_address_in_the_settings_is_told_and_what_it_refuses_for_good_is_listed() {
    let dir = temp_dir();
    let (store, key, settings) = (
        dir.path().join("store"),
        dir.path().join("key"),
        dir.path().join("serve.toml"),
    );
    let peer = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = peer.local_addr().expect("an address");
    std::fs::write(&key, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let text = format!(
        "[[webhooks]]\nurl = 'http://{address}/told'\nsecret-file = '{}'\nevents = ['core.complete']\n",
        key.display()
    );
    std::fs::write(&settings, text).expect("written");
    let serve = Serve::start_with(&store, &["--config", path_text(&settings)]);
    dumps::send(&serve, "web-17", "page fault");
    let (mut stream, _) = peer.accept().expect("a delivery");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).expect("a head") > 0 {}
    assert!(
        head.starts_with("POST /told ") && head.contains("\r\nwebhook-signature: v1,"),
        "{head}"
    );
    let len = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .expect("a length");
    let mut body = vec![0; len.parse().expect("a number")];
    reader.read_exact(&mut body).expect("a body");
    let event: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(
        (&event["type"], &event["data"]["guest"]),
        (&"core.complete".into(), &"web-17".into())
    );
    stream
        .write_all(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
        .expect("answered");
    let place = path_text(&store);
    let dead = wait_for("a dead letter", || {
        let text = run_ok(&["webhooks", "dead", "--dir", place, "--json"]);
        let all: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
        all.into_iter().next()
    });
    assert_eq!((&dead["tries"], &dead["event"]), (&1.into(), &event));
    assert!(run_ok(&["webhooks", "dead", "--dir", place]).contains("status 410"));
    // A secret that everybody can read is none.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let refused = run(&["serve", "--dir", place, "--config", path_text(&settings)]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("chmod 640"));
}

#[test]
fn an_address_over_tls_is_believed_by_its_authority_only() {
    let dir = temp_dir();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let authorities = [ours.keep(dir.path(), "ca.crt"), other.keep(dir.path(), "other.crt")];
    ours.issue("127.0.0.1", Life::Now).keep(dir.path(), "api");
    // Another receiver's API is somebody who speaks TLS and refuses.
    let tls = ["--api-cert", &path("api.crt"), "--api-key", &path("api.key")];
    let peer = Serve::start_with(&dir.path().join("peer"), &tls);
    std::fs::write(path("key"), "a secret of sixteen bytes").expect("written");
    std::fs::set_permissions(path("key"), std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let tables = authorities.iter().enumerate().map(|(place, ca)| {
        let (url, key) = (format!("{}/{place}", peer.api), path("key"));
        format!("[[webhooks]]\nurl = '{url}'\nsecret-file = '{key}'\nca = '{ca}'\nevents = ['core.complete']\n")
    });
    std::fs::write(path("serve.toml"), tables.collect::<String>()).expect("written");
    let serve = Serve::start_with(&dir.path().join("store"), &["--config", &path("serve.toml")]);
    dumps::send(&serve, "web-17", "page fault");
    for said in [
        "it answered with status 404",
        "its certificate is of no authority that is trusted here",
    ] {
        wait_for(said, || serve.daemon.stderr_text().contains(said).then_some(()));
    }
}

#[test]
fn a_log_in_json_is_one_object_a_line_with_fields_to_search_for() {
    let dir = temp_dir();
    let serve = Serve::start_with(dir.path(), &["--log-format", "json"]);
    dumps::send(&serve, "web\n17\u{1b}[2J", "page fault");
    let id = dumps::id(&serve);
    let text = wait_for("the end of the session in the log", || {
        let text = serve.daemon.stderr_text();
        text.contains("core kept").then_some(text)
    });
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines: Vec<serde_json::Value> = whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect();
    let kept = lines
        .iter()
        .find(|line| line["message"] == "core kept")
        .expect("a line for the core");
    assert_eq!((&kept["core"], &kept["level"]), (&id.into(), &"INFO".into()));
    assert_eq!(kept["guest"], "web\\n17\\u{1b}[2J", "escaped as everywhere");
    assert!(lines.iter().all(|line| line["timestamp"].is_string()));
}
