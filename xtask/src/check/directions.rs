//! Who may depend on whom.

use std::collections::BTreeMap;

use crate::workspace::{Dependency, Kind, Package};

/// One folder's place in the house.
struct Room {
    name: &'static str,
    may_use: &'static [&'static str],
}

/// The table of docs/ARCHITECTURE.md: every folder with the folders it may depend on.
const ROOMS: &[Room] = &[
    Room {
        name: "coreferry",
        may_use: &[
            "api",
            "guest-shim",
            "netdump",
            "nic-emu",
            "server",
            "vmcore",
            "vmm-agent",
        ],
    },
    Room {
        name: "vmm-agent",
        may_use: &["api", "guest-shim", "netdump", "nic-emu", "vmcore"],
    },
    Room {
        name: "server",
        may_use: &["api", "netdump", "vmcore"],
    },
    Room {
        name: "guest-shim",
        may_use: &["netdump", "nic-emu"],
    },
    // A program for bare metal, built by guest-shim for itself.
    Room {
        name: "coreferry-demo-guest",
        may_use: &["guest-shim", "netdump", "nic-emu"],
    },
    Room {
        name: "nic-emu",
        may_use: &[],
    },
    Room {
        name: "netdump",
        may_use: &[],
    },
    Room {
        name: "vmcore",
        may_use: &[],
    },
    Room {
        name: "api",
        may_use: &[],
    },
    Room {
        name: "xtask",
        may_use: &[],
    },
];

/// Folders that may use only a part of `api`: neither talks to an API, neither shows pages.
const API_FEATURES: (&[&str], &[&str]) = (&["vmm-agent", "server"], &["types", "server"]);

/// Packages that end in a program, where errors are only shown: nobody else may use `anyhow` outside tests.
const PROGRAMS: &[&str] = &["coreferry", "xtask"];

/// What breaks the direction of the table, among all dependencies, those of tests included.
pub(crate) fn downward(packages: &[Package]) -> Vec<String> {
    let mut broken = Vec::new();
    for package in packages {
        let Some(room) = ROOMS.iter().find(|room| room.name == package.name) else {
            broken.push(format!(
                "{} has no place in the table of xtask/src/check/directions.rs",
                package.name
            ));
            continue;
        };
        for dependency in &package.dependencies {
            broken.extend(fault(room, dependency));
        }
    }
    broken
}

fn fault(room: &Room, dependency: &Dependency) -> Option<String> {
    let Room { name, may_use } = room;
    let used = dependency.name.as_str();
    let shipped = dependency.kind != Kind::Dev;
    if used == *name && !shipped {
        // How a crate's own tests turn on one of its features.
        return None;
    }
    if ROOMS.iter().any(|room| room.name == used) && !may_use.contains(&used) {
        return Some(format!("{name} depends on {used}; it may use: {}", may_use.join(", ")));
    }
    let (narrow, features) = API_FEATURES;
    if used == "api" && narrow.contains(name) {
        let more = dependency
            .features
            .iter()
            .find(|feature| !features.contains(&feature.as_str()));
        return more.map(|feature| {
            format!(
                "{name} turns on api's feature {feature}; it may use: {}",
                features.join(", ")
            )
        });
    }
    if used == "netdump" && shipped && dependency.features.iter().any(|feature| feature == "sim") {
        return Some(format!("{name} turns on netdump's feature sim outside tests"));
    }
    if used == "anyhow" && shipped && !PROGRAMS.contains(name) {
        return Some(format!("{name} is a library and depends on anyhow"));
    }
    (used == "kvm-ioctls" && *name != "vmm-agent").then(|| format!("{name} depends on kvm-ioctls"))
}

/// Cycles between our packages, each written as the walk that comes back to its start.
pub(crate) fn cycles(packages: &[Package]) -> Vec<String> {
    let graph: BTreeMap<&str, Vec<&str>> = packages
        .iter()
        .map(|package| {
            let used = package.dependencies.iter().map(|dependency| dependency.name.as_str());
            let others = used.filter(|name| *name != package.name && packages.iter().any(|other| other.name == *name));
            (package.name.as_str(), others.collect())
        })
        .collect();
    graph
        .keys()
        .filter_map(|start| way_back(&graph, start, &mut vec![start]))
        .collect()
}

/// A walk from the end of `walk` back to `start` that passes only packages named after `start`, so that each cycle is
/// told once.
fn way_back<'g>(graph: &BTreeMap<&'g str, Vec<&'g str>>, start: &str, walk: &mut Vec<&'g str>) -> Option<String> {
    let here = walk.last()?;
    for next in graph.get(here)? {
        if *next == start {
            return Some(format!("{} -> {start}", walk.join(" -> ")));
        }
        if *next > start && !walk.contains(next) {
            walk.push(next);
            if let Some(found) = way_back(graph, start, walk) {
                return Some(found);
            }
            walk.pop();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, uses: &[(&str, Kind, &[&str])]) -> Package {
        let dependencies = uses.iter().map(|(name, kind, features)| Dependency {
            name: (*name).to_owned(),
            kind: *kind,
            features: features.iter().map(|feature| (*feature).to_owned()).collect(),
        });
        Package {
            name: name.to_owned(),
            dir: name.into(),
            dependencies: dependencies.collect(),
            targets: Vec::new(),
        }
    }

    #[test]
    fn a_dependency_of_the_table_is_fine() {
        let packages = [package(
            "server",
            &[("netdump", Kind::Normal, &[]), ("api", Kind::Normal, &["server"])],
        )];
        assert_eq!(downward(&packages), Vec::<String>::new());
    }

    #[test]
    fn upward_sideways_and_unknown_are_told() {
        let packages = [
            package("netdump", &[("server", Kind::Dev, &[])]),
            package("server", &[("vmm-agent", Kind::Normal, &[])]),
            package("attic", &[]),
        ];
        let broken = downward(&packages);
        assert_eq!(broken.len(), 3, "{broken:?}");
        assert!(broken[0].starts_with("netdump depends on server"), "{broken:?}");
        assert!(broken[2].starts_with("attic has no place"), "{broken:?}");
    }

    #[test]
    fn narrow_features_and_reserved_crates_are_told() {
        let packages = [
            package(
                "server",
                &[("api", Kind::Normal, &["client"]), ("anyhow", Kind::Normal, &[])],
            ),
            package(
                "vmm-agent",
                &[("netdump", Kind::Normal, &["sim"]), ("kvm-ioctls", Kind::Normal, &[])],
            ),
            package(
                "guest-shim",
                &[("kvm-ioctls", Kind::Build, &[]), ("anyhow", Kind::Dev, &[])],
            ),
        ];
        assert_eq!(downward(&packages).len(), 4, "{:?}", downward(&packages));
    }

    #[test]
    fn a_cycle_is_told_once() {
        let packages = [
            package("a", &[("b", Kind::Normal, &[])]),
            package("b", &[("c", Kind::Normal, &[]), ("serde", Kind::Normal, &[])]),
            package("c", &[("a", Kind::Dev, &[])]),
        ];
        assert_eq!(cycles(&packages), ["a -> b -> c -> a"]);
    }

    #[test]
    fn the_table_itself_has_no_cycle() {
        let packages: Vec<Package> = ROOMS
            .iter()
            .map(|room| {
                let uses: Vec<_> = room.may_use.iter().map(|name| (*name, Kind::Normal, &[][..])).collect();
                package(room.name, &uses)
            })
            .collect();
        assert_eq!(cycles(&packages), Vec::<String>::new());
    }
}
