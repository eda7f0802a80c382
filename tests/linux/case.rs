//! One guest: what it is made of, what happens to it, and what it must have said.

use std::fmt;

use anyhow::Result;

use crate::kernels::Kernel;
use crate::seen::Seen;

/// On every guest's command line. `quiet` matters most: each character of a log is several exits, and they are slow here.
/// Freed memory is zeroed, so that there is less to send.
const APPEND: &str = "console=ttyS0 quiet panic=-1 init_on_free=1";
/// The longest that one guest may take, unless its case says so. The slowest (four boots of a generic kernel) took 206 s on a machine of two processors
/// that had six times as much to do.
pub(crate) const LIMIT_S: u32 = 600;

/// For payloads of guests with a disk: `hear WORD` waits until the steps `tell WORD`, and runs what `meanwhile` is.
pub(crate) const HEAR: &str = r#"
meanwhile() { :; }
hear() { until head -c 16 /dev/vda | grep -q "^$1 "; do sleep 1; meanwhile; blockdev --flushbufs /dev/vda; done; }
"#;

type Check = Box<dyn Fn(&Seen) -> Result<String> + Send + Sync>;

/// A guest of `coreferry run` in the machine in between. It has 128 MiB, two processors, and no device but those that every
/// guest has; its init says `GUEST READY` and powers off.
///
/// Scripts are of busybox's shell. Crashes are sent to a receiver in the same machine.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kernel: Kernel,
    mem_mib: u32,
    vcpus: u8,
    options: String,
    append: String,
    pub(crate) payload: String,
    /// What the guest's initramfs has besides, by its path.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Booted in the place of the kernel's own image.
    pub(crate) image: Option<Vec<u8>>,
    pub(crate) steps: String,
    net: Option<&'static str>,
    pub(crate) has_disk: bool,
    pub(crate) brings_core: bool,
    pub(crate) limit_s: u32,
    check: Check,
}

impl fmt::Debug for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} on {}", self.name, self.kernel.name())
    }
}

impl Case {
    /// A guest of that name, which must be a plain word, other than the names of the cases beside it.
    pub(crate) fn new(name: &'static str, kernel: Kernel) -> Self {
        Self {
            name,
            kernel,
            mem_mib: 128,
            vcpus: 2,
            options: String::new(),
            append: APPEND.to_owned(),
            payload: String::new(),
            files: Vec::new(),
            image: None,
            steps: String::new(),
            net: None,
            has_disk: false,
            brings_core: false,
            limit_s: LIMIT_S,
            check: Box::new(|_| Ok(String::new())),
        }
    }

    pub(crate) fn mem_mib(self, mem_mib: u32) -> Self {
        Self { mem_mib, ..self }
    }

    pub(crate) fn vcpus(self, vcpus: u8) -> Self {
        Self { vcpus, ..self }
    }

    /// The longest that it may take; [`LIMIT_S`] by itself.
    pub(crate) fn limit_s(self, limit_s: u32) -> Self {
        Self { limit_s, ..self }
    }

    /// More options of `coreferry run`.
    pub(crate) fn options(mut self, options: &str) -> Self {
        self.options += " ";
        self.options += options;
        self
    }

    /// More words on the kernel's command line.
    pub(crate) fn append(mut self, words: &str) -> Self {
        self.append += " ";
        self.append += words;
        self
    }

    /// A network device of that model (`em`, `virtio`) on a TAP of its own. The machine has the address `10.9.$N.1`, the guest
    /// shall have `10.9.$N.2`; N is set in payload and steps.
    pub(crate) fn net(self, model: &'static str) -> Self {
        Self {
            net: Some(model),
            ..self
        }
    }

    /// A virtio disk: 16 MiB with an empty ext4. The file comes back as [`Seen::file`] `disk.img`.
    pub(crate) fn disk(self) -> Self {
        Self { has_disk: true, ..self }
    }

    /// What runs in the guest; when it ends, the guest powers off. `load NAME…` loads modules (names with underscores).
    pub(crate) fn payload(self, script: &str) -> Self {
        Self {
            payload: script.to_owned(),
            ..self
        }
    }

    /// Another image of the same kernel, to be booted instead.
    pub(crate) fn image(self, bytes: Vec<u8>) -> Self {
        Self {
            image: Some(bytes),
            ..self
        }
    }

    /// A file of the guest's: its path without the first slash.
    pub(crate) fn file(mut self, path: &str, bytes: Vec<u8>) -> Self {
        self.files.push((path.to_owned(), bytes));
        self
    }

    /// What runs beside the guest in the machine in between. `said TEXT [TIMES]` waits for the guest's (or the VMM's) word and
    /// fails when the guest has ended without it; `vms ACTION` is `coreferry vms ACTION` on this guest; `coreferry` is the
    /// binary under test; `$pid` is the process that waits for it, `vmm` prints its own id, `$OUT` is the file with everything it
    /// said, `tell WORD` writes a word to the beginning of the guest's disk, for which a payload waits by [`HEAR`]. Output is
    /// [`Seen::steps`].
    pub(crate) fn steps(self, script: &str) -> Self {
        Self {
            steps: script.to_owned(),
            ..self
        }
    }

    /// Brings the guest's newest core to the host, as [`Seen::file`] `core/vmcore`.
    pub(crate) fn brings_core(self) -> Self {
        Self {
            brings_core: true,
            ..self
        }
    }

    /// What must hold afterwards; the text is told.
    pub(crate) fn expect(self, check: impl Fn(&Seen) -> Result<String> + Send + Sync + 'static) -> Self {
        Self {
            check: Box::new(check),
            ..self
        }
    }

    pub(crate) fn check(&self, seen: &Seen) -> Result<String> {
        (self.check)(seen)
    }

    /// The variables that payload and steps share.
    pub(crate) fn variables(&self, number: usize) -> String {
        format!("N={number}\n")
    }

    /// The script that runs the guest and its steps; what both say goes into files below `/tmp/r/NAME`.
    pub(crate) fn script(&self, number: usize) -> String {
        let Self {
            name,
            options,
            append,
            mem_mib,
            vcpus,
            limit_s,
            ..
        } = self;
        let kernel = self.kernel.name();
        let mut script = format!("NAME={name}; R=/tmp/r/{name}; OUT=$R/out\n{}", self.variables(number));
        script += "mkdir -p $R; touch $OUT; . /p/lib\n";
        script += "(cd /p/cases/$NAME/root; find . | cpio -o -H newc 2> /dev/null) > /tmp/$NAME.own\n";
        script += &format!("cat /p/guests/{kernel}/initrd.cpio /tmp/$NAME.own > /tmp/$NAME.initrd\n");
        let image = match self.image {
            Some(_) => "/p/cases/$NAME/kernel".to_owned(),
            None => format!("/p/guests/{kernel}/vmlinuz"),
        };
        let mut devices = String::new();
        if let Some(model) = self.net {
            script += "tunctl -t tap$N > /dev/null; ip addr add 10.9.$N.1/24 dev tap$N; ip link set tap$N up\n";
            devices += &format!(" --net tap=tap$N,model={model}");
        }
        if self.has_disk {
            script += "zcat /p/disk.gz > $R/disk.img\n";
            devices += " --disk $R/disk.img";
        }
        script += &format!(
            "begin=$(now)\n\
             timeout -s KILL {limit_s} /p/coreferry run --name $NAME --kernel {image} --initrd /tmp/$NAME.initrd \
             --mem-mib {mem_mib} --vcpus {vcpus} --dump-mtu 9000 --api /tmp/$NAME.sock{devices}{options} --append '{append}' > $OUT 2>&1 &\n\
             pid=$!\n\
             {{ (. /p/cases/$NAME/steps) > $R/steps 2>&1; touch /tmp/$NAME.stepped; }} &\n\
             wait $pid; echo $? > $R/exit; echo $begin $(now) > $R/times; rm -f /tmp/$NAME.own /tmp/$NAME.initrd\n\
             for i in $(seq 300); do [ -e /tmp/$NAME.stepped ] && break; sleep 0.1; done\n\
             [ -e /tmp/$NAME.stepped ] || echo 'the steps did not end with their guest' >> $R/steps\n\
             echo \"$NAME ended with $(cat $R/exit), from $begin to $(now) s\"\n"
        );
        script
    }
}
