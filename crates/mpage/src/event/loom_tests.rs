//! Waiting and notifying under every order of two or three threads.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};
use mpage_locks::thread::spawn;

use super::*;

/// A waiter that took its ticket before it looked never misses the change it waits for.
///
/// Failed when `notify` looked for sleepers before it counted, and when a waiter compared the
/// count before it announced itself.
#[test]
fn no_notification_is_missed() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(|| {
        let (event, done) = (Arc::new(Event::default()), Arc::new(AtomicUsize::new(0)));
        let notifiers = [1, 2].map(|_| {
            let (event, done) = (Arc::clone(&event), Arc::clone(&done));
            let body = move || {
                let _before = done.fetch_add(1, Ordering::Release);
                event.notify();
            };
            spawn("notify", body).expect("a thread")
        });
        loop {
            let ticket = event.ticket();
            if done.load(Ordering::Acquire) == 2 {
                break;
            }
            event.wait(ticket);
        }
        notifiers.into_iter().for_each(|notifier| notifier.join().expect("no panic"));
    });
}
