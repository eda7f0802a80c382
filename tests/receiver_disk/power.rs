//! A loss of power: the store is an ext4 file system in a file, which is ended without a chance to write anything more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{path_text, run, skip, wait_for};
use crate::dense_core;
use crate::fault::{Place, Receiver, compiled};
use crate::stock::{Order, StockSender, kernel_dump_header};
use crate::tiny_sender::TinySender;

/// The disk of a receiver, in a mount namespace with it.
struct Disk {
    place: Place,
    cut: PathBuf,
}

impl Disk {
    /// None where this machine does not allow it.
    fn new() -> Option<Self> {
        let place = Place::new();
        let image = place.beside("image");
        fs::File::create(&image)
            .expect("a file")
            .set_len(64 << 20)
            .expect("its length");
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status();
        if !made.is_ok_and(|status| status.success()) {
            skip("mkfs.ext4 cannot be run");
            return None;
        }
        let cut = compiled(Path::new(&place.beside("")), "cut.c", &[])?;
        let disk = Self { place, cut };
        let probe = disk.mounted("true", &Command::new("true")).output();
        let probe = probe.expect("unshare can be run");
        if !probe.status.success() {
            skip(&format!("no loop device: {}", String::from_utf8_lossy(&probe.stderr)));
            return None;
        }
        Some(disk)
    }

    /// `command` where the disk is mounted, after the shell commands `first`.
    fn mounted(&self, first: &str, command: &Command) -> Command {
        let script = format!(
            "mount -o loop,noatime {} {}\n{first}\nexec \"$@\"",
            path_text(&self.place.beside("image")),
            path_text(&self.place.store())
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-ec", &script, "sh"]);
        unshare.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => unshare.env(name, value),
                None => unshare.env_remove(name),
            };
        }
        unshare
    }

    fn receiver(&self, first: &str) -> Receiver {
        Receiver::started(self.mounted(first, &Receiver::command(&self.place.store())))
    }

    /// The store as the receiver sees it.
    fn inside(&self, receiver: &Receiver) -> PathBuf {
        let root = format!("/proc/{}/root", receiver.daemon.pid());
        Path::new(&root).join(self.place.store().strip_prefix("/").expect("an absolute path"))
    }

    /// The power goes, and the receiver with it.
    fn power_cut(&self, receiver: Receiver) {
        let status = Command::new(&self.cut).arg(self.inside(&receiver)).status();
        assert!(status.expect("it runs").success());
        receiver.daemon.kill();
    }
}

#[test]
fn an_acknowledged_finished_survives_a_loss_of_power() {
    let Some(disk) = Disk::new() else { return };
    let receiver = disk.receiver("");
    let core = dense_core(5);
    let header = kernel_dump_header(core.len() as u64, "stockhost", "gone");
    let sender = StockSender::new(Order::FreeBsd13, 1500, receiver.netdump);
    sender.dump(&core, &header).expect("the dump ends well");
    disk.power_cut(receiver);

    let receiver = disk.receiver("");
    let cores = receiver.cores();
    assert_eq!(cores.len(), 1, "{cores:?}");
    assert_eq!(
        (&cores[0]["state"], &cores[0]["panic"]),
        (&"complete".into(), &"gone".into())
    );
    let id = cores[0]["id"].as_str().expect("text");
    let verified = run(&["cores", "verify", id, "--api", &receiver.api]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    let fetched = disk.place.beside("fetched");
    let fetch = run(&["cores", "fetch", id, "--api", &receiver.api, "-o", path_text(&fetched)]);
    assert!(fetch.status.success(), "{}", String::from_utf8_lossy(&fetch.stderr));
    assert!(fs::read(fetched).expect("the core") == core, "the core differs");
}

#[test]
fn a_loss_of_power_amid_a_dump_leaves_what_reached_the_disk_and_calls_it_incomplete() {
    let Some(disk) = Disk::new() else { return };
    let receiver = disk.receiver("");
    let page = |number: u64| vec![u8::try_from(number % 250).expect("small") + 1; 4096];
    let mut sender = TinySender::connect(receiver.netdump);
    let spool = disk.inside(&receiver).join("spool");
    let mut sent = 0;
    // Write-back runs while the dump does. A mark in the journal says that what came before it is on the disk, and is
    // there itself with the next one.
    let safe = wait_for("two marks in the journal", || {
        sender.data(sent * 4096, &page(sent));
        sent += 1;
        let session = fs::read_dir(&spool).expect("the spool").next()?.ok()?;
        let journal = fs::read(session.path().join("session.journal")).ok()?;
        let marks = journal.windows(4).filter(|word| *word == b"SYN1").count();
        (marks >= 2).then_some(sent)
    });
    assert!(safe > 2);
    disk.power_cut(receiver);

    // Another boot has another name; a session of this one might go on.
    let reboot = "LC_ALL=C sed -i '1s/\"boot_id\":\"./\"boot_id\":\"x/' DIR/spool/*/session.journal";
    let receiver = disk.receiver(&reboot.replace("DIR", path_text(&disk.place.store())));
    let cores = receiver.cores();
    assert_eq!(cores.len(), 1, "{cores:?}\n{}", receiver.daemon.stderr_text());
    assert_eq!(cores[0]["state"], "incomplete");
    let stored = cores[0]["stored_bytes"].as_u64().expect("a number");
    assert!(
        stored >= 4096 && stored <= sent * 4096 && stored.is_multiple_of(4096),
        "{stored} of {sent} pages"
    );
    let id = cores[0]["id"].as_str().expect("text");
    let fetched = disk.place.beside("fetched");
    let fetch = run(&["cores", "fetch", id, "--api", &receiver.api, "-o", path_text(&fetched)]);
    assert!(fetch.status.success(), "{}", String::from_utf8_lossy(&fetch.stderr));
    let bytes = fs::read(fetched).expect("the core");
    let expected: Vec<u8> = (0..stored / 4096).flat_map(page).collect();
    assert!(
        bytes[..expected.len()] == expected,
        "what is called stored differs from what was sent"
    );
}
