//! What looks at the receiver's page and API from outside: a browser, rules for accessible pages, a tester of documents of
//! APIs, and Prometheus's own reader of rules.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    apt,
    apt::Apt,
    part::{Part, remove},
    programs::write_script,
};
use crate::process;

/// Chromium without windows, and a font so that pages have letters; what they depend on comes along.
const BROWSER: &[&str] = &["chromium-headless-shell", "fonts-dejavu-core"];
/// The program that drives it. Its package wants the browser with windows, too: it is taken alone.
const DRIVER: &str = "chromium-driver";
/// Drawing by graphics cards, which headless pages do without: a third of all that is unpacked.
const UNNEEDED: &[&str] = &["dri", "libLLVM-15.so", "libLLVM-15.so.1", "libz3.so", "libz3.so.4"];
/// The machine's C library is used, so that the browser can start itself again by its own name.
const C_LIBRARY: &str = "libc6_";

/// Rules for accessible pages: package, digest of its archive (SHA-512), and the same from PyPI for machines without npm.
const RULES: &str = "axe-core@4.14.1";
const RULES_DIGEST: &str = "1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b73\
                            4f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5";
const RULES_WHEEL: &str = "axe-playwright-python==0.1.8 \
                           --hash=sha256:fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8";

/// The package with `promtool`.
const PROMETHEUS: &str = "prometheus";

/// The tester of documents of APIs, and what it depends on, in versions that were tried together.
const API_TESTER: &[&str] = &[
    "schemathesis==4.32.5",
    "anyio==4.16.0",
    "certifi==2026.10.18",
    "charset-normalizer==3.5.2",
    "click==8.5.1",
    "graphql-core==3.3.2",
    "harfile==0.6.0",
    "hypothesis==6.170.15",
    "hypothesis-graphql==0.13.5",
    "idna==3.20",
    "iniconfig==2.3.1",
    "jsonschema-rs==0.60.3",
    "markdown-it-py==4.3.0",
    "markupsafe==3.0.4",
    "mdurl==0.1.2",
    "packaging==26.3",
    "pluggy==1.7.0",
    "pygments==2.21.0",
    "pyrate-limiter==4.5.1",
    "pytest==9.2.0",
    "pyyaml==6.0.3",
    "requests==2.34.2",
    "rich==15.0.0",
    "sortedcontainers==2.4.0",
    "typing-extensions==4.16.0",
    "urllib3==2.8.0",
    "werkzeug==3.1.9",
];

/// The parts, all of which every run of the tests needs.
#[derive(Debug)]
pub(crate) struct Web {
    testbed: PathBuf,
    browser: Part,
    rules: Part,
    promtool: Part,
    api_tester: Part,
}

impl Web {
    /// The parts below the testbed's folder.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            testbed: dir.to_owned(),
            browser: Part::new(dir, "browser", format!("2 {} {DRIVER}", BROWSER.join(" "))),
            rules: Part::new(dir, "axe.min.js", format!("1 {RULES} {RULES_WHEEL}")),
            promtool: Part::new(dir, "promtool", format!("1 {PROMETHEUS}")),
            api_tester: Part::new(dir, "schemathesis", format!("1 {}", API_TESTER.join(" "))),
        }
    }

    /// Whether everything is there.
    pub(crate) fn is_current(&self) -> bool {
        [&self.browser, &self.rules, &self.promtool, &self.api_tester]
            .iter()
            .all(|part| part.is_current())
    }

    /// Makes what is not there; an error for each part that cannot be made.
    pub(crate) fn make(&self, apt: &Apt) -> Vec<anyhow::Error> {
        let made = [
            self.browser.make(|place| unpack_browser(apt, place)),
            self.rules.make(|place| fetch_rules(&self.testbed, place)),
            self.promtool.make(|place| fetch_promtool(apt, place)),
            self.api_tester.make(|place| install_api_tester(&self.testbed, place)),
        ];
        made.into_iter().filter_map(Result::err).collect()
    }
}

/// Unpacks the browser and writes how its two programs are started.
fn unpack_browser(apt: &Apt, place: &Path) -> Result<()> {
    let packages = place.join("pkgs");
    apt.unpack_with_dependencies_but(BROWSER, C_LIBRARY, &packages)?;
    let driver = apt.download(&apt.package(DRIVER)?, place)?;
    apt::unpack(&driver, &packages)?;
    remove(&driver)?;
    for name in UNNEEDED {
        remove(&packages.join("usr/lib/x86_64-linux-gnu").join(name))?;
    }
    fs::create_dir_all(place.join("bin"))?;
    for (name, program) in [
        ("chromedriver", "usr/bin/chromedriver"),
        ("chromium", "usr/lib/chromium/chromium-headless-shell"),
    ] {
        let libraries = "$P/usr/lib/x86_64-linux-gnu:$P/usr/lib/x86_64-linux-gnu/pulseaudio:$P/lib/x86_64-linux-gnu";
        let script = format!(
            "#!/bin/sh\n\
             T=$(cd \"$(dirname \"$0\")/..\" && pwd); P=$T/pkgs\n\
             exec env LD_LIBRARY_PATH=\"{libraries}\" FONTCONFIG_FILE=\"$T/fonts.conf\" \"$P/{program}\" \"$@\"\n"
        );
        write_script(&place.join("bin").join(name), &script)?;
    }
    let fonts = "<?xml version=\"1.0\"?>\n<!DOCTYPE fontconfig SYSTEM \"fonts.dtd\">\n<fontconfig>\
                 <dir prefix=\"relative\">pkgs/usr/share/fonts</dir><cachedir prefix=\"xdg\">fontconfig</cachedir>\
                 <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>\
                 </fontconfig>\n";
    fs::write(place.join("fonts.conf"), fonts).context("cannot write fonts.conf")
}

/// Fetches the rules by npm where there is one, else out of a package for Python.
fn fetch_rules(testbed: &Path, place: &Path) -> Result<()> {
    let folder = place.with_added_extension("folder");
    remove(&folder)?;
    fs::create_dir_all(&folder)?;
    let unpacked = if process::on_path("npm") {
        process::read(
            Command::new("npm")
                .args(["pack", "--silent", RULES])
                .current_dir(&folder),
        )?;
        let archive = folder.join(format!("{}.tgz", RULES.replace('@', "-")));
        let sum = process::read(Command::new("sha512sum").arg(&archive))?;
        ensure!(
            sum.starts_with(RULES_DIGEST),
            "the package {RULES} is not the one that was tried: {sum}"
        );
        process::read(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&folder))?;
        folder.join("package/axe.min.js")
    } else {
        let wanted = folder.join("requirements.txt");
        fs::write(&wanted, RULES_WHEEL)?;
        let more = ["--no-deps", "--require-hashes", "-r"];
        process::read(pip(testbed, &folder).args(more).arg(&wanted))?;
        folder.join("axe_playwright_python/axe.min.js")
    };
    fs::rename(&unpacked, place).with_context(|| format!("no {}", unpacked.display()))?;
    remove(&folder)
}

/// Fetches the one program.
fn fetch_promtool(apt: &Apt, place: &Path) -> Result<()> {
    let folder = place.with_added_extension("folder");
    remove(&folder)?;
    apt::unpack(&apt.download(&apt.package(PROMETHEUS)?, &folder)?, &folder)?;
    fs::rename(folder.join("usr/bin/promtool"), place).context("the package has no promtool")?;
    remove(&folder)
}

/// Installs the tester of APIs for the unpacked Python; `bin/run` starts it.
fn install_api_tester(testbed: &Path, place: &Path) -> Result<()> {
    process::read(pip(testbed, place).args(["--no-deps"]).args(API_TESTER))?;
    let start = "import sys; sys.path.insert(0, sys.argv.pop(1)); \
                 from schemathesis.cli import schemathesis; schemathesis(prog_name=\"schemathesis\")";
    let script = format!(
        "#!/bin/sh\n\
         T=$(cd \"$(dirname \"$0\")/../..\" && pwd)\n\
         exec \"$T/bin/python3\" -c '{start}' \"$T/schemathesis\" \"$@\"\n"
    );
    write_script(&place.join("bin/run"), &script)
}

/// The unpacked Python's pip, which installs into `place` only.
fn pip(testbed: &Path, place: &Path) -> Command {
    let mut pip = Command::new(testbed.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-cache-dir", "--target"])
        .arg(place);
    pip
}
