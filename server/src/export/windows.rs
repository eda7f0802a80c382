//! Pages of a core, read and worked on in windows of memory, by several threads, and handed over in order.

use std::sync::mpsc::{self, Receiver};
use std::thread;

use vmcore::is_zero;
use vmcore::kdump::PageBitmap;
use vmcore::limits::{PAGE_LEN, PAGE_LEN_USIZE};

use super::Pages;

/// Pages of a window: 4 MiB, so that a thread has work for some milliseconds.
pub(super) const WINDOW_PAGES: u64 = 1024;
/// Pages read at once: they stay in the processor's cache until they are compressed.
const READ_PAGES: u64 = 64;
/// Windows that a thread may be ahead.
const AHEAD: usize = 2;

/// What a page holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'p> {
    /// Nothing but zeros.
    Zero,
    /// Its bytes.
    Bytes(&'p [u8]),
    /// It cannot be read.
    Lost,
}

/// Reads the wanted pages of a window, but not those of holes: `each` gets the frame and its content.
pub(super) fn read_window(
    core: &dyn Pages,
    wanted: &PageBitmap,
    window: u64,
    buffer: &mut Vec<u8>,
    each: &mut dyn FnMut(u64, Content<'_>),
) {
    for (first, count) in wanted.runs(window * WINDOW_PAGES..(window + 1) * WINDOW_PAGES) {
        let (mut at, end) = (first, first + count);
        while at < end {
            let holes = core.zero_len_bytes(at * PAGE_LEN, (end - at) * PAGE_LEN) / PAGE_LEN;
            (at..at + holes).for_each(|frame| each(frame, Content::Zero));
            at += holes;
            let count = (end - at).min(READ_PAGES);
            read(core, at, count, buffer, each);
            at += count;
        }
    }
}

/// Reads so many pages at once.
fn read(core: &dyn Pages, first: u64, count: u64, buffer: &mut Vec<u8>, each: &mut dyn FnMut(u64, Content<'_>)) {
    let len = usize::try_from(count * PAGE_LEN).unwrap_or(usize::MAX);
    buffer.resize(len, 0);
    let is_whole = core.read(first * PAGE_LEN, buffer).is_ok();
    for (frame, page) in (first..).zip(buffer.chunks_exact_mut(PAGE_LEN_USIZE)) {
        let is_there = is_whole || core.read(frame * PAGE_LEN, page).is_ok();
        let content = match page {
            _ if !is_there => Content::Lost,
            page if is_zero(page) => Content::Zero,
            page => Content::Bytes(page),
        };
        each(frame, content);
    }
}

/// The windows that have a wanted page.
fn windows(wanted: &PageBitmap) -> Vec<u64> {
    let all = 0..wanted.frames().div_ceil(WINDOW_PAGES);
    let is_wanted = |window: &u64| {
        wanted
            .runs(window * WINDOW_PAGES..(window + 1) * WINDOW_PAGES)
            .next()
            .is_some()
    };
    all.filter(is_wanted).collect()
}

/// Has `make` work on every window, and gives what it made to `take`, in order. Ends with the first error of `take`.
///
/// `make` is made anew for each thread. With one thread everything happens on the caller's.
pub(super) fn in_order<T: Send, E, M: FnMut(u64) -> T>(
    wanted: &PageBitmap,
    threads: usize,
    maker: &(dyn Fn() -> M + Sync),
    take: &mut dyn FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let windows = windows(wanted);
    if threads <= 1 {
        let mut make = maker();
        return windows.into_iter().try_for_each(|window| take(make(window)));
    }
    let windows = &windows;
    thread::scope(|scope| {
        let mut results: Vec<Receiver<T>> = Vec::with_capacity(threads);
        for index in 0..threads {
            let (send, receive) = mpsc::sync_channel(AHEAD);
            results.push(receive);
            scope.spawn(move || {
                let mut make = maker();
                for window in windows.iter().skip(index).step_by(threads) {
                    // Nobody waits for more: the taker has failed.
                    if send.send(make(*window)).is_err() {
                        return;
                    }
                }
            });
        }
        for (index, _) in windows.iter().enumerate() {
            let made = results.get(index % threads).and_then(|receive| receive.recv().ok());
            // A thread that ends early has panicked, which the scope tells.
            let Some(made) = made else { break };
            take(made)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_come_in_order_from_any_number_of_threads_and_an_error_ends_them() {
        let mut wanted = PageBitmap::new(40 * WINDOW_PAGES);
        wanted.insert(0, 40 * WINDOW_PAGES);
        wanted.remove(3 * WINDOW_PAGES, 2 * WINDOW_PAGES);
        let expected: Vec<u64> = (0..40).filter(|window| ![3, 4].contains(window)).collect();
        for threads in [1, 2, 3, 50] {
            let mut got = Vec::new();
            let maker = || |window| window;
            in_order::<_, (), _>(&wanted, threads, &maker, &mut |window| {
                got.push(window);
                Ok(())
            })
            .unwrap();
            assert_eq!(got, expected, "{threads} threads");
            let mut left = 5;
            let ended = in_order(&wanted, threads, &maker, &mut |window| {
                left -= 1;
                if left == 0 { Err(window) } else { Ok(()) }
            });
            assert_eq!(ended, Err(6));
        }
    }
}
