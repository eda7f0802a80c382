//! Builds the bare-metal demo guest for the feature `demo-image`.
//!
//! The guest wants other flags than the host program and no flags that the user set for the host, so it is built by a
//! cargo of its own with a target directory of its own.
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Flags for the guest and the crates below it. Frame pointers and no unwind tables let gdb walk the stacks of a core.
const CODEGEN: [&str; 6] = [
    "-Crelocation-model=static",
    "-Ccode-model=small",
    "-Cforce-frame-pointers=yes",
    "-Cforce-unwind-tables=no",
    "-Ctarget-cpu=x86-64",
    "-Cno-redzone=yes",
];

/// The libraries that the guest has in common with the host, beside this one.
const SHARED: [&str; 2] = ["netdump", "nic-emu"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=demo");
    println!("cargo::rerun-if-changed=src");
    for shared in SHARED {
        println!("cargo::rerun-if-changed=../{shared}/src");
        println!("cargo::rerun-if-changed=../{shared}/Cargo.toml");
    }
    if env::var_os("CARGO_FEATURE_DEMO_IMAGE").is_none() {
        return;
    }
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let demo_dir = Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("demo");
    let target_dir = out_dir.join("demo-target");
    let status = cargo(&demo_dir, &target_dir).status();
    if !status.as_ref().is_ok_and(|status| status.success()) {
        println!(
            "cargo::error=the demo guest in {} did not build: {status:?}",
            demo_dir.display()
        );
        exit(1);
    }
    let image = target_dir.join(TARGET).join("release/coreferry-demo-guest");
    println!("cargo::rustc-env=DEMO_GUEST_ELF={}", image.display());
}

fn cargo(demo_dir: &Path, target_dir: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // All that belongs to the build which this script is part of stays here: features, clippy's wrapper, a user's flags.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let inherited = ["CARGO_", "RUSTC", "RUSTFLAGS", "CLIPPY_", "DEP_"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
        if inherited && text != "CARGO_HOME" {
            command.env_remove(&name);
        }
    }
    // The image is part of what is handed out: it should not depend on where it was built.
    let shim_dir = demo_dir.parent().unwrap_or(demo_dir);
    let root = shim_dir.parent().unwrap_or(shim_dir);
    let folders = ["guest-shim"].into_iter().chain(SHARED);
    let remapped = folders.map(|folder| format!("--remap-path-prefix={}={folder}", root.join(folder).display()));
    let flags: Vec<String> = CODEGEN.iter().map(|flag| (*flag).to_owned()).chain(remapped).collect();
    command
        .current_dir(demo_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args([
            "rustc",
            "--quiet",
            "--release",
            "--locked",
            "--offline",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(target_dir)
        .arg("--");
    for link in [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--gc-sections",
        "-Wl,--build-id=sha1",
        "-Wl,-z,max-page-size=4096",
        "-Wl,--defsym=rust_eh_personality=0",
        "-Wl,--defsym=_Unwind_Resume=0",
    ] {
        command.arg(format!("-Clink-arg={link}"));
    }
    command.arg(format!("-Clink-arg=-Wl,-T,{}", demo_dir.join("link.ld").display()));
    command
}
