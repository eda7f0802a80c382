//! What runs, sent again whenever it looks different.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, DuplexStream};

use super::cores;
use crate::events::Listener;
use crate::service::CoreService;

/// Silence after which a comment is sent, so that what is between does not close the connection.
const PING_AFTER: Duration = Duration::from_secs(15);

/// Writes the running dumps until the caller is gone.
pub(super) async fn tell(listener: Listener, service: Arc<dyn CoreService>, mut pipe: DuplexStream) -> io::Result<()> {
    let mut newest = listener.log().watch();
    let mut shown = String::new();
    loop {
        newest.mark_unchanged();
        let reader = Arc::clone(&service);
        let found = tokio::task::spawn_blocking(move || super::running(&*reader)).await;
        let text = cores::running(&found.map_err(io::Error::other)?).into_string();
        if text != shown {
            // Markup of ours has no line feeds, and those of guests are escaped; a field would end at one.
            let lines: String = text.lines().map(|line| format!("data: {line}\n")).collect();
            pipe.write_all(format!("{lines}\n").as_bytes()).await?;
            shown = text;
        }
        if tokio::time::timeout(PING_AFTER, newest.changed()).await.is_err() {
            pipe.write_all(b": ping\n\n").await?;
        }
    }
}
