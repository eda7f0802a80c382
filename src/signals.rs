//! Ctrl-C and SIGTERM as a call.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Calls `asked` on a thread of its own, each time somebody asks this process to end.
///
/// # Errors
/// When the thread or the handlers cannot be had.
pub(crate) fn on_stop(mut asked: impl FnMut() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(entered);
    // Never joined: it waits for signals until the process ends.
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => asked(),
                    _ = terminate.recv() => asked(),
                }
            }
        });
    })?;
    Ok(())
}
