//! Where things are, and what `cargo metadata` says about our own packages.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

/// The folder of the workspace manifest.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."))
}

/// Where fetched things are kept: `$COREFERRY_CACHE`, else `target/cache` of the workspace.
pub(crate) fn cache_dir() -> PathBuf {
    match std::env::var_os("COREFERRY_CACHE") {
        Some(dir) if !dir.is_empty() => std::path::absolute(&dir).unwrap_or_else(|_| dir.into()),
        _ => root().join("target/cache"),
    }
}

/// Whether this is a CI run (`CI=true`), where every test has to run.
pub(crate) fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// A cargo command that runs in the workspace folder.
pub(crate) fn cargo() -> std::process::Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command.current_dir(root());
    command
}

/// One of our own packages, as `cargo metadata` describes it.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// One line of a `[dependencies]` table.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) features: Vec<String>,
}

/// Which table a dependency stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Build,
    Dev,
}

/// Something cargo builds: a library, a binary, a test, a benchmark.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: String,
}

/// Our packages in the workspace of `manifest`, in the order of their names.
pub(crate) fn packages(manifest: &Path) -> Result<Vec<Package>> {
    let text = process::read(
        cargo()
            .args([
                "metadata",
                "--format-version",
                "1",
                "--no-deps",
                "--offline",
                "--manifest-path",
            ])
            .arg(manifest),
    )?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata printed something else than JSON")?;
    let mut packages: Vec<Package> = list(&metadata, "packages").iter().map(package).collect();
    packages.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(packages)
}

fn package(value: &Value) -> Package {
    let manifest = PathBuf::from(text(value, "manifest_path"));
    let dependencies = list(value, "dependencies").iter().map(|dependency| Dependency {
        name: text(dependency, "name"),
        kind: match dependency.get("kind").and_then(Value::as_str) {
            Some("dev") => Kind::Dev,
            Some("build") => Kind::Build,
            _ => Kind::Normal,
        },
        features: strings(dependency, "features"),
    });
    let targets = list(value, "targets").iter().map(|target| Target {
        name: text(target, "name"),
        kind: strings(target, "kind").into_iter().next().unwrap_or_default(),
    });
    Package {
        name: text(value, "name"),
        dir: manifest.parent().unwrap_or_else(|| Path::new(".")).to_owned(),
        dependencies: dependencies.collect(),
        targets: targets.collect(),
    }
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn strings(value: &Value, key: &str) -> Vec<String> {
    list(value, key)
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Manifests of ours outside the workspace, because they are built with flags of their own: the demo guest.
pub(crate) fn extra_manifests() -> Vec<PathBuf> {
    let demo = root().join("guest-shim/demo/Cargo.toml");
    [demo].into_iter().filter(|manifest| manifest.is_file()).collect()
}
