//! Where the API sockets of the machines on this host are.

use std::path::{Path, PathBuf};

/// Longest name of a machine: it is part of a socket's path, and those end at 107 bytes (unix(7)).
const NAME_LEN_MAX: usize = 48;

/// The folder in which a machine started by this user puts its socket.
pub(crate) fn own_folder() -> PathBuf {
    private_folder().unwrap_or_else(system_folder)
}

/// The folders in which machines are looked for, the user's own first.
pub(crate) fn all_folders() -> Vec<PathBuf> {
    private_folder().into_iter().chain([system_folder()]).collect()
}

/// The socket of the machine `name` in `folder`.
pub(crate) fn socket_in(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.sock"))
}

/// Checks a machine's name: it becomes part of a file name and of the path of a URL.
///
/// # Errors
/// A sentence that says what a name may be.
pub(crate) fn check_name(name: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > NAME_LEN_MAX || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(format!(
            "a name has 1 to {NAME_LEN_MAX} letters, digits, dots, dashes and underscores, and no dot in front"
        ));
    }
    Ok(name.to_owned())
}

fn private_folder() -> Option<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty())?;
    Some(Path::new(&runtime).join("coreferry/vms"))
}

fn system_folder() -> PathBuf {
    PathBuf::from("/run/coreferry/vms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["", ".", "..", "../x", "a/b", "a b", "é", ".hidden", &"x".repeat(49)] {
            assert!(check_name(name).is_err(), "`{name}` was taken");
        }
        for name in ["web-17", "a.b_c", "7", &"x".repeat(48)] {
            assert_eq!(check_name(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn the_longest_name_fits_into_a_socket_path() {
        let socket = socket_in(
            Path::new("/run/user/4294967295/coreferry/vms"),
            &"x".repeat(NAME_LEN_MAX),
        );
        assert!(socket.as_os_str().len() <= 107);
    }
}
