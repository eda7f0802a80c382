//! The receiver is not there when the guest crashes.

use crate::common::{Serve, path_text, run_ok};
use crate::machine::{Host, NOBODY, only_file_in};

#[test]
fn a_core_waits_in_the_spool_for_its_receiver_and_send_brings_it_there() {
    let Some(host) = Host::new() else { return };
    let spool = host.path("spool");
    let mut machine = host.run("lonely", "", &["--netdump", NOBODY, "--spool", path_text(&spool)]);

    assert_eq!(machine.ends(), 10, "{}", machine.said());

    let file = only_file_in(&spool);
    assert!(file.extension().is_some_and(|ending| ending == "vmcore"), "{file:?}");
    let said = machine.said();
    for part in [NOBODY, path_text(&file), "coreferry send", "the guest is destroyed"] {
        assert!(said.contains(part), "`{part}` is not said:\n{said}");
    }
    let serve = host.serve();
    run_ok(&["send", path_text(&file), "--to", &serve.netdump.to_string()]);
    let core = &serve.settled_cores(1)[0];
    assert_eq!((&core["state"], &core["guest"]), (&"complete".into(), &"lonely".into()));
    let panic = core["panic"].as_str().unwrap_or_default();
    assert!(panic.contains("the ferry's cargo is lost"), "{core}");
    assert_eq!(core["kernel"], "coreferry-demo 0.1.0");
    run_ok(&["cores", "verify", "latest", "--dir", path_text(&serve.dir)]);
    let stored = serve.vmcore_path(core["id"].as_str().expect("an id"));
    let same = std::fs::read(&file).expect("the spooled file") == std::fs::read(stored).expect("the stored file");
    assert!(same, "the stored core is not the spooled file");
}

#[test]
fn the_second_receiver_gets_what_the_first_does_not_answer_for() {
    let Some(host) = Host::new() else { return };
    let serve: Serve = host.serve();
    let second = serve.netdump.to_string();
    let mut machine = host.run("either", "", &["--netdump", NOBODY, "--netdump", &second]);

    assert_eq!(machine.ends(), 10, "{}", machine.said());

    let said = machine.said();
    assert!(
        said.contains(&format!("the core is with {second}")) && said.contains(NOBODY),
        "{said}"
    );
    assert_eq!(serve.settled_cores(1)[0]["state"], "complete");
}
