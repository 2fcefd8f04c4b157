//! Ctrl-C and SIGTERM end the program in order, so that no server is left running.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

static STOPPED: AtomicBool = AtomicBool::new(false);

/// Watches the signals on a thread of its own. From then on they do not end the program by themselves.
pub(crate) fn watch() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _runtime = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        STOPPED.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// Fails after a signal.
pub(crate) fn check() -> Result<(), String> {
    if STOPPED.load(Ordering::Relaxed) { Err("stopped by a signal".to_owned()) } else { Ok(()) }
}
