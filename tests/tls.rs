//! The API over TLS: whom it lets in, whom a client believes, and what each says of the other.

#[path = "tls/certificates.rs"]
mod certificates;
mod common;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Output;

use certificates::{Authority, Life};
use common::{Serve, coreferry, path_text, run, run_ok, temp_dir, wait_for};

/// A receiver whose API speaks TLS with these files, which stand in `dir`.
fn serve(dir: &Path, more: &[&str]) -> Serve {
    let (cert, key) = (dir.join("api.crt"), dir.join("api.key"));
    let tls = ["--api-cert", path_text(&cert), "--api-key", path_text(&key)];
    Serve::start_with(&dir.join("store"), &[&tls[..], more].concat())
}

/// `cores list` there.
fn list(serve: &Serve, more: &[&str]) -> Output {
    run(&[&["cores", "list", "--json", "--api", &serve.api], more].concat())
}

/// It failed with this code, and its sentence has this in it.
fn failed(output: &Output, code: i32, says: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(says), "`{text}` does not say `{says}`");
    assert_eq!(text.lines().count(), 1, "one sentence: {text}");
}

fn succeeded(output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[test]
fn a_client_believes_the_right_authority_only() {
    let dir = temp_dir();
    let (ours, other, same_name) = (Authority::new("ours"), Authority::new("other"), Authority::new("ours"));
    let ca = ours.keep(dir.path(), "ca.crt");
    let others = [
        other.keep(dir.path(), "other.crt"),
        same_name.keep(dir.path(), "same-name.crt"),
    ];
    ours.issue("127.0.0.1", Life::Now).keep(dir.path(), "api");
    let serve = serve(dir.path(), &[]);
    assert!(serve.api.starts_with("https://127.0.0.1:"), "{}", serve.api);
    succeeded(&list(&serve, &["--ca", &ca]));
    for other in &others {
        failed(
            &list(&serve, &["--ca", other]),
            6,
            "--ca names a PEM file with the right one",
        );
    }
    failed(&list(&serve, &["--ca", "/nonexistent"]), 1, "/nonexistent");
    let by_name = serve.api.replace("127.0.0.1", "localhost");
    let output = run(&["cores", "list", "--api", &by_name, "--ca", &ca]);
    failed(&output, 6, "for another name");
}

#[test]
fn an_expired_certificate_is_told_and_a_new_one_is_taken_without_a_restart() {
    let dir = temp_dir();
    let ours = Authority::new("ours");
    let ca = ours.keep(dir.path(), "ca.crt");
    ours.issue("127.0.0.1", Life::Over).keep(dir.path(), "api");
    let serve = serve(dir.path(), &[]);
    failed(&list(&serve, &["--ca", &ca]), 6, "expired");
    ours.issue("127.0.0.1", Life::Now).keep(dir.path(), "api");
    wait_for("the new certificate", || {
        list(&serve, &["--ca", &ca]).status.success().then_some(())
    });
    // Files that are no good leave it at the good ones.
    std::fs::write(dir.path().join("api.key"), "no key").expect("written");
    wait_for("a word about the key", || {
        succeeded(&list(&serve, &["--ca", &ca]));
        serve
            .daemon
            .stderr_text()
            .contains("stays the one it was")
            .then_some(())
    });
}

#[test]
fn with_an_authority_of_clients_nobody_comes_in_without_its_certificate() {
    let dir = temp_dir();
    let [ours, clients, strangers] = ["ours", "clients", "strangers"].map(Authority::new);
    let ca = ours.keep(dir.path(), "ca.crt");
    let client_ca = clients.keep(dir.path(), "clients.crt");
    ours.issue("127.0.0.1", Life::Now).keep(dir.path(), "api");
    let issue = |authority: &Authority, life, name: &str| {
        authority.issue("ops", life).keep(dir.path(), name);
        ["crt", "key"].map(|kind| dir.path().join(format!("{name}.{kind}")).display().to_string())
    };
    // Reachable by others, and no token: the certificate is what lets them in.
    let serve = serve(dir.path(), &["--api-client-ca", &client_ca, "--api", "0.0.0.0:0"]);
    let api = serve.api.replace("0.0.0.0", "127.0.0.1");
    let list_as = |identity: Option<&[String; 2]>| {
        let mut arguments = vec!["cores", "list", "--json", "--api", &api, "--ca", &ca];
        if let Some([cert, key]) = identity {
            arguments.extend(["--cert", cert, "--key", key]);
        }
        run(&arguments)
    };
    succeeded(&list_as(Some(&issue(&clients, Life::Now, "good"))));
    failed(&list_as(None), 6, "wants a client certificate");
    failed(
        &list_as(Some(&issue(&strangers, Life::Now, "stranger"))),
        6,
        "does not know the authority",
    );
    failed(
        &list_as(Some(&issue(&clients, Life::Over, "old"))),
        6,
        "client certificate (--cert) has expired",
    );
    // As soon as there are tokens, a certificate is not enough.
    let store = dir.path().join("store");
    let secret = run_ok(&["tokens", "add", "ops", "--dir", path_text(&store)]);
    let good = ["good.crt", "good.key"].map(|name| dir.path().join(name).display().to_string());
    failed(&list_as(Some(&good)), 5, "show a token");
    let [cert, key] = &good;
    let mut with_token = coreferry();
    with_token.args([
        "cores", "list", "--api", &api, "--ca", &ca, "--cert", cert, "--key", key,
    ]);
    succeeded(
        &with_token
            .env("COREFERRY_TOKEN", secret.trim())
            .output()
            .expect("it runs"),
    );
}

#[test]
fn plain_http_is_told_to_speak_tls_and_tls_to_a_plain_port_too() {
    let dir = temp_dir();
    let ours = Authority::new("ours");
    let ca = ours.keep(dir.path(), "ca.crt");
    ours.issue("127.0.0.1", Life::Now).keep(dir.path(), "api");
    let tls = serve(dir.path(), &[]);
    let address = tls.api.trim_start_matches("https://").to_owned();
    let output = run(&["cores", "list", "--api", &address]);
    failed(&output, 2, "this port speaks TLS only: write https://");
    let mut stream = std::net::TcpStream::connect(&address).expect("it answers");
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("application/problem+json"),
        "{answer}"
    );
    // Those that say nothing hold up nobody.
    let silent: Vec<_> = (0..20)
        .map(|_| std::net::TcpStream::connect(&address).expect("a connection"))
        .collect();
    succeeded(&list(&tls, &["--ca", &ca]));
    drop(silent);
    let plain = Serve::start(&dir.path().join("plain"));
    let output = run(&["cores", "list", "--api", &format!("https://{}", plain.api), "--ca", &ca]);
    failed(&output, 6, "it speaks no TLS");
}

#[test]
fn an_api_that_others_reach_needs_a_certificate_and_somebody_who_may_come_in() {
    let dir = temp_dir();
    let ours = Authority::new("ours");
    let ca = ours.keep(dir.path(), "ca.crt");
    ours.issue("127.0.0.1", Life::Now).keep(dir.path(), "api");
    let store = dir.path().join("store");
    std::fs::create_dir(&store).expect("a folder");
    let (cert, key) = (dir.path().join("api.crt"), dir.path().join("api.key"));
    let begin = |more: &[&str]| {
        let common = [
            "serve",
            "--dir",
            path_text(&store),
            "--listen",
            "127.0.0.1:0",
            "--api",
            "0.0.0.0:0",
        ];
        run(&[&common[..], more].concat())
    };
    failed(&begin(&[]), 2, "not a loopback address");
    let tls = ["--api-cert", path_text(&cert), "--api-key", path_text(&key)];
    failed(&begin(&tls), 2, "would let nobody in");
    failed(
        &begin(&["--api-cert", path_text(&cert), "--api-key", path_text(&cert)]),
        2,
        "would let nobody in",
    );
    let secret = run_ok(&["tokens", "add", "ops", "--dir", path_text(&store)]);
    failed(
        &begin(&["--api-cert", path_text(&cert), "--api-key", path_text(&cert)]),
        1,
        "a private key",
    );
    let serve = Serve::start_with(&store, &[&tls[..], &["--api", "0.0.0.0:0"]].concat());
    let api = serve.api.replace("0.0.0.0", "127.0.0.1");
    let list = |token: &str| {
        let mut command = coreferry();
        command
            .args(["cores", "list", "--api", &api, "--ca", &ca])
            .env("COREFERRY_TOKEN", token);
        command.output().expect("it runs")
    };
    succeeded(&list(secret.trim()));
    failed(&list("cft_x"), 5, "not known");
    run_ok(&["tokens", "remove", "ops", "--dir", path_text(&store)]);
    failed(&list("cft_x"), 5, "not known");
}
