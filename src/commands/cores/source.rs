//! Where cores come from: a directory, or a receiver's API.

use std::path::{Path, PathBuf};

use api::{
    Client, ClientError, CoreGroup, CoreInfo, CoreQuery, CoreState, CoreSummary, Endpoint, ExtentPage, GroupQuery,
    Page, ServiceError,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use server::LocalCores;

use crate::cli_failure::{Exit, Failure};
use crate::output;
use crate::trust::TrustArgs;

/// Where the receiver's API is by default.
const API_DEFAULT: &str = "http://127.0.0.1:20080";
/// Cores asked for at a time; the API gives no more.
const PAGE_ITEMS: usize = 500;

/// Where cores come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A directory.
    Dir(LocalCores),
    /// An API.
    Api(Client),
}

/// Which cores to list.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) guest: Option<String>,
    pub(super) state: Option<CoreState>,
    pub(super) signature: Option<String>,
    pub(super) since: Option<String>,
}

impl Filter {
    /// Whether everything is listed.
    pub(super) fn is_empty(&self) -> bool {
        self.guest.is_none() && self.state.is_none() && self.signature.is_none() && self.since.is_none()
    }
}

impl Source {
    /// The source that options and environment name; options come first.
    pub(super) fn open(dir: Option<PathBuf>, api: Option<String>, trust: TrustArgs) -> Result<Self, Failure> {
        Self::find(dir, api, trust, &|note| output::say(note))
    }

    /// The same; what people should know goes to `tell`.
    pub(super) fn find(
        dir: Option<PathBuf>,
        api: Option<String>,
        trust: TrustArgs,
        tell: &dyn Fn(&str),
    ) -> Result<Self, Failure> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(dir) = dir {
            return Self::dir(&dir, tell);
        }
        if let Some(url) = api {
            return Self::api(&url, trust);
        }
        if let Some(dir) = variable("COREFERRY_DIR") {
            return Self::dir(Path::new(&dir), tell);
        }
        match variable("COREFERRY_API") {
            Some(url) => Self::api(&url.to_string_lossy(), trust),
            None => Self::api(API_DEFAULT, trust),
        }
    }

    /// A directory.
    fn dir(dir: &Path, tell: &dyn Fn(&str)) -> Result<Self, Failure> {
        let cores = LocalCores::open(dir).map_err(|why| {
            let sentence = format!("{why}; --dir names the directory that `coreferry serve` stores in");
            Failure::new(Exit::Failed, sentence)
        })?;
        if !cores.is_store() {
            let shown = dir.display();
            tell(&format!("note: no receiver has ever stored anything in {shown}"));
        }
        Ok(Self::Dir(cores))
    }

    /// An API.
    fn api(url: &str, trust: TrustArgs) -> Result<Self, Failure> {
        let endpoint = Endpoint::parse(url).map_err(|why| Failure::new(Exit::Usage, format!("--api {why}")))?;
        let trust = trust.read(&endpoint)?;
        Ok(Self::Api(Client::new(endpoint).with_token(token()?).with_trust(trust)))
    }

    /// The cores that match, newest first.
    pub(super) fn list(&self, filter: &Filter) -> Result<Vec<CoreSummary>, Failure> {
        let mut query = CoreQuery {
            cursor: None,
            limit: PAGE_ITEMS,
            guest: filter.guest.clone(),
            signature: filter.signature.clone(),
            state: filter.state,
            since: filter.since.clone(),
        };
        let mut all = Vec::new();
        loop {
            let page = self.page(&query)?;
            all.extend(page.items);
            match page.next_cursor {
                Some(cursor) => query.cursor = Some(cursor),
                None => return Ok(all),
            }
        }
    }

    /// The newest cores, as many as come at once.
    pub(super) fn newest(&self) -> Result<Vec<CoreSummary>, Failure> {
        let query = CoreQuery {
            limit: PAGE_ITEMS,
            ..CoreQuery::default()
        };
        Ok(self.page(&query)?.items)
    }

    fn page(&self, query: &CoreQuery) -> Result<Page<CoreSummary>, Failure> {
        match self {
            Self::Dir(cores) => cores.page(query).map_err(|why| refused(&why)),
            Self::Api(client) => client.get(&list_path(query)).map_err(|why| failed(client, &why)),
        }
    }

    /// The groups of cores with the same signature.
    pub(super) fn groups(&self) -> Result<Vec<CoreGroup>, Failure> {
        let mut query = GroupQuery {
            cursor: None,
            limit: PAGE_ITEMS,
        };
        let mut all = Vec::new();
        loop {
            let page = match self {
                Self::Dir(cores) => cores.group_page(&query).map_err(|why| refused(&why))?,
                Self::Api(client) => {
                    let cursor = query
                        .cursor
                        .as_ref()
                        .map(|cursor| format!("&cursor={}", encode(cursor)));
                    let path = format!("/api/v1/groups?limit={}{}", query.limit, cursor.unwrap_or_default());
                    let page: Page<CoreGroup> = client.get(&path).map_err(|why| failed(client, &why))?;
                    page
                }
            };
            all.extend(page.items);
            match page.next_cursor {
                Some(cursor) => query.cursor = Some(cursor),
                None => return Ok(all),
            }
        }
    }

    /// Everything about one core.
    pub(super) fn info(&self, id: &str) -> Result<CoreInfo, Failure> {
        match self {
            Self::Dir(cores) => cores.info(id).map_err(|why| refused(&why)),
            Self::Api(client) => {
                let path = format!("/api/v1/cores/{}", encode(id));
                client.get(&path).map_err(|why| failed(client, &why))
            }
        }
    }
}

/// The token of the environment: COREFERRY_TOKEN, or the first line of the file that COREFERRY_TOKEN_FILE names. None is an
/// argument: every user of a host sees those.
fn token() -> Result<Option<String>, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(token) = variable("COREFERRY_TOKEN") {
        return Ok(Some(token.to_string_lossy().trim().to_owned()));
    }
    let Some(path) = variable("COREFERRY_TOKEN_FILE").map(PathBuf::from) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&path).map_err(|why| {
        let sentence = format!(
            "cannot read {}: {why}; COREFERRY_TOKEN_FILE names the file with the token",
            path.display()
        );
        Failure::new(Exit::Failed, sentence)
    })?;
    Ok(text.lines().next().map(|line| line.trim().to_owned()))
}

/// A run of a core's extents, from an API.
pub(super) fn extents(client: &Client, id: &str, cursor: Option<&str>) -> Result<ExtentPage, Failure> {
    let cursor = cursor
        .map(|cursor| format!("?cursor={}", encode(cursor)))
        .unwrap_or_default();
    let path = format!("/api/v1/cores/{}/extents{cursor}", encode(id));
    client.get(&path).map_err(|why| failed(client, &why))
}

/// Path of a core in an API.
pub(super) fn core_path(id: &str) -> String {
    format!("/api/v1/cores/{}", encode(id))
}

/// Path of a core's vmcore in an API.
pub(super) fn vmcore_path(id: &str) -> String {
    format!("/api/v1/cores/{}/files/vmcore", encode(id))
}

/// The failure for a refusal of the local store.
pub(super) fn refused(why: &ServiceError) -> Failure {
    let exit = match why {
        ServiceError::NotFound { .. } => Exit::NothingMatched,
        ServiceError::BadRequest(_) => Exit::Usage,
        ServiceError::Denied(_) | ServiceError::Unauthenticated(_) => Exit::Denied,
        ServiceError::Conflict { .. }
        | ServiceError::WrongState(_)
        | ServiceError::Changed(_)
        | ServiceError::ConditionMissing(_)
        | ServiceError::Unavailable(_)
        | ServiceError::Internal(_) => Exit::Failed,
    };
    let hint = match why {
        ServiceError::NotFound { what: "core", .. } => "; `coreferry cores list` shows the ids",
        _ => "",
    };
    Failure::new(exit, format!("{why}{hint}"))
}

/// The failure for an error of the API's client.
pub(super) fn failed(client: &Client, why: &ClientError) -> Failure {
    let exit = Exit::from(why);
    let hint = match exit {
        Exit::Unreachable if matches!(why, ClientError::Unreachable { .. }) => {
            "; is `coreferry serve` running there? --dir DIR reads a directory without it".to_owned()
        }
        Exit::Denied => "; COREFERRY_TOKEN holds the token (`coreferry tokens add` makes one)".to_owned(),
        Exit::NothingMatched => format!("; `coreferry cores list --api {}` shows the ids", client.endpoint()),
        _ => String::new(),
    };
    Failure::new(exit, format!("{why}{hint}"))
}

/// Path and query of the list.
fn list_path(query: &CoreQuery) -> String {
    let mut path = format!("/api/v1/cores?limit={}", query.limit);
    let state = query.state.map(|state| state.as_str().to_owned());
    for (name, value) in [
        ("cursor", &query.cursor),
        ("guest", &query.guest),
        ("signature", &query.signature),
        ("state", &state),
        ("since", &query.since),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    path
}

/// Everything but the unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A value for a path or a query.
fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_percent_encoded() {
        let query = CoreQuery {
            limit: 5,
            guest: Some("web 1&x=y/ü".to_owned()),
            ..CoreQuery::default()
        };
        assert_eq!(
            list_path(&query),
            "/api/v1/cores?limit=5&guest=web%201%26x%3Dy%2F%C3%BC"
        );
    }
}
