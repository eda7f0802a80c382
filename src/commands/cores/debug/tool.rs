//! The debuggers, and how each is told of core and symbols.

use std::path::{Path, PathBuf};

use crate::cli_failure::{Exit, Failure};

/// A debugger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Crash,
    Drgn,
    Gdb,
}

impl std::str::FromStr for Tool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|tool| tool.name() == text)
            .ok_or_else(|| "it is crash, drgn or gdb".to_owned())
    }
}

impl Tool {
    const ALL: [Self; 3] = [Self::Crash, Self::Drgn, Self::Gdb];

    const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Drgn => "drgn",
            Self::Gdb => "gdb",
        }
    }

    /// The wanted one, else the first that is installed.
    pub(super) fn choose(wanted: Option<Self>) -> Result<Self, Failure> {
        let is_there = |tool: &Self| program(tool.name()).is_some();
        if let Some(tool) = wanted {
            return is_there(&tool).then_some(tool).ok_or_else(|| {
                let name = tool.name();
                let how = match tool {
                    Self::Drgn => "`pip install drgn`, or the package python3-drgn",
                    Self::Crash | Self::Gdb => "the package of that name has it",
                };
                Failure::new(Exit::Failed, format!("{name} is not in PATH; {how}"))
            });
        }
        Self::ALL.into_iter().find(is_there).ok_or_else(|| {
            let sentence = "neither crash, nor drgn, nor gdb is in PATH; install one of them (packages crash, gdb; `pip install drgn`)";
            Failure::new(Exit::Failed, sentence)
        })
    }

    /// Program and arguments.
    pub(super) fn command(self, symbols: &Path, vmcore: &Path, kernel_offset: Option<&str>) -> Vec<String> {
        let (symbols, vmcore) = (symbols.display().to_string(), vmcore.display().to_string());
        let words: &[&str] = match self {
            Self::Crash => &["crash", &symbols, &vmcore],
            // Nothing but these symbols: modules are not looked for all over the machine.
            Self::Drgn => &["drgn", "-c", &vmcore, "-s", &symbols],
            Self::Gdb => {
                let offset = kernel_offset.unwrap_or("0x0");
                // As one word each: gdb splits them itself, by rules like the shell's.
                let load = format!("symbol-file -o {offset} {}", escaped(&symbols));
                let open = format!("core-file {}", escaped(&vmcore));
                return ["gdb", "-q", "-ex", &load, "-ex", &open].map(str::to_owned).into();
            }
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}

/// A file name for gdb's command line, where blanks separate words.
fn escaped(name: &str) -> String {
    name.replace('\\', r"\\").replace(' ', r"\ ")
}

/// A program in `PATH`.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let is_program = |file: &PathBuf| {
        use std::os::unix::fs::PermissionsExt as _;
        file.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(is_program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_debugger_is_told_in_its_own_way() {
        let command = |tool: Tool, offset| tool.command(Path::new("/s/vm linux"), Path::new("/c/vmcore"), offset);
        assert_eq!(command(Tool::Crash, None), ["crash", "/s/vm linux", "/c/vmcore"]);
        assert_eq!(
            command(Tool::Drgn, None),
            ["drgn", "-c", "/c/vmcore", "-s", "/s/vm linux"]
        );
        let gdb = command(Tool::Gdb, Some("0x1e000000"));
        assert_eq!(
            gdb,
            [
                "gdb",
                "-q",
                "-ex",
                r"symbol-file -o 0x1e000000 /s/vm\ linux",
                "-ex",
                "core-file /c/vmcore"
            ]
        );
        assert!("kdb".parse::<Tool>().is_err());
    }
}
