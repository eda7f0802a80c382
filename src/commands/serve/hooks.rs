//! The table `hooks` of the settings file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{User, geteuid};
use server::{HookCommand, HookUser, Hooks};
use toml::{Table, Value};

use super::config::string;

/// What the table may say.
const KEYS: &str = "the keys of hooks are start, complete, incomplete, nospace, netdumpd-script, deadline-s and user";

/// Longest deadline: a day.
const DEADLINE_MAX_S: u64 = 86_400;

/// Reads the table; an error is a sentence with the key and the way out.
pub(super) fn parse(table: &Table) -> Result<Hooks, String> {
    let mut hooks = Hooks::default();
    for (key, value) in table {
        let told = match key.as_str() {
            "start" => command(value).map(|command| hooks.start = Some(command)),
            "complete" => command(value).map(|command| hooks.complete = Some(command)),
            "incomplete" => command(value).map(|command| hooks.incomplete = Some(command)),
            "nospace" => command(value).map(|command| hooks.nospace = Some(command)),
            "netdumpd-script" => string(value)
                .and_then(program)
                .map(|script| hooks.netdumpd_script = Some(script)),
            "deadline-s" => deadline(value).map(|deadline| hooks.deadline = deadline),
            "user" => string(value).and_then(user).map(|user| hooks.user = Some(user)),
            _ => Err(format!("there is no such key; {KEYS}")),
        };
        told.map_err(|why| format!("`{key}`: {why}"))?;
    }
    Ok(hooks)
}

/// A program with arguments; no shell takes them apart.
fn command(value: &Value) -> Result<HookCommand, String> {
    let words: Vec<&str> = match value {
        Value::Array(words) => words.iter().map(string).collect::<Result<_, _>>()?,
        value => vec![string(value)?],
    };
    let Some((first, arguments)) = words.split_first() else {
        return Err("the list is empty; name a program and its arguments, or leave the key out".to_owned());
    };
    Ok(HookCommand {
        program: program(first)?,
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
    })
}

/// A program that is there: a mistake is better heard at the start than at the first crash.
fn program(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(format!(
            "`{text}` is no absolute path; arguments are words of their own, as in [\"/usr/bin/logger\", \"-t\", \"dump\"]"
        ));
    }
    let runs = path
        .metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    runs.then(|| path.to_owned())
        .ok_or_else(|| format!("`{text}` is no program that can be run"))
}

fn deadline(value: &Value) -> Result<Duration, String> {
    let seconds = value.as_integer().and_then(|seconds| u64::try_from(seconds).ok());
    let seconds = seconds.filter(|seconds| (1..=DEADLINE_MAX_S).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| format!("a number of seconds from 1 to {DEADLINE_MAX_S} is wanted"))
}

fn user(name: &str) -> Result<HookUser, String> {
    let found = User::from_name(name).map_err(|why| format!("`{name}` cannot be looked up: {why}"))?;
    let found = found.ok_or_else(|| format!("there is no user `{name}` on this host"))?;
    if !geteuid().is_root() && found.uid != geteuid() {
        return Err(format!("only root may run commands as `{name}`; leave the key out"));
    }
    Ok(HookUser {
        uid: found.uid.as_raw(),
        gid: found.gid.as_raw(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Hooks, String> {
        parse(&text.parse().unwrap())
    }

    #[test]
    fn every_key_is_heard() {
        let own = User::from_uid(geteuid()).unwrap().expect("this process has a user");
        let text = format!(
            "start = '/bin/sh'\ncomplete = ['/bin/sh', '-c', 'a b']\nincomplete = ['/bin/sh', '1']\nnospace = ['/bin/sh']\n\
             netdumpd-script = '/bin/sh'\ndeadline-s = 5\nuser = '{}'\n",
            own.name
        );
        let hooks = parsed(&text).unwrap();
        let arguments = |command: &Option<HookCommand>| command.as_ref().map(|command| command.arguments.clone());
        assert_eq!(arguments(&hooks.start), Some(Vec::new()));
        assert_eq!(
            arguments(&hooks.complete),
            Some(vec!["-c".to_owned(), "a b".to_owned()])
        );
        assert_eq!(arguments(&hooks.incomplete), Some(vec!["1".to_owned()]));
        assert_eq!(arguments(&hooks.nospace), Some(Vec::new()));
        assert_eq!(hooks.netdumpd_script.as_deref(), Some(Path::new("/bin/sh")));
        assert_eq!(hooks.deadline, Duration::from_secs(5));
        assert_eq!(hooks.user.map(|user| user.uid), Some(own.uid.as_raw()));
        assert_eq!(parsed("").unwrap(), Hooks::default());
    }

    #[test]
    fn mistakes_name_the_key_and_the_way_out() {
        for (text, expected) in [
            ("stop = '/bin/sh'", ["`stop`", KEYS]),
            ("start = 'logger -t x'", ["`start`", "absolute"]),
            ("start = []", ["`start`", "leave the key out"]),
            ("start = '/nowhere/hook'", ["`/nowhere/hook`", "no program"]),
            ("netdumpd-script = '/etc/passwd'", ["`/etc/passwd`", "no program"]),
            ("deadline-s = 0", ["`deadline-s`", "from 1"]),
            ("user = 'no-such-user'", ["`no-such-user`", "no user"]),
        ] {
            let why = parsed(text).unwrap_err();
            assert!(expected.iter().all(|part| why.contains(part)), "`{text}`: {why}");
        }
    }
}
