//! What a sync does while other threads store into one of its pages without a pause.
//!
//! `cargo run --release -p mpage-bench --example busy_page`

#![forbid(unsafe_code)]

use std::sync::Arc;

use mpage::{OpenOptions, Options, PageCache};
use mpage_locks::atomic::{AtomicBool, AtomicU64, Ordering};
use mpage_locks::{clock, thread};

const SYNCS: u64 = 300;
const PAGE: usize = 4096;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("storers  stores     syncs  pages sampled  longest sync");
    for storers in 0..=3 {
        measure(storers)?;
    }
    Ok(())
}

fn measure(storers: u8) -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let cache = PageCache::new(&Options { memory: 16 << 20, ..Options::default() })?;
    let file = cache.open(folder.path().join("data"), &OpenOptions::default())?;
    file.write_all_at(&[0; 2 * PAGE], 0)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stores = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for n in 0..storers {
        let (file, stop, stores) = (file.clone(), Arc::clone(&stop), Arc::clone(&stores));
        threads.push(thread::spawn("storer", move || -> mpage::Result<()> {
            while !stop.load(Ordering::Relaxed) {
                file.write_all_at(&[n; PAGE], 0)?;
                let _before = stores.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })?);
    }
    let mut longest_ns = 0;
    for n in 0..SYNCS {
        file.write_all_at(&n.to_le_bytes(), PAGE as u64)?;
        let began = clock::now_ns();
        file.fsync()?;
        longest_ns = longest_ns.max(clock::now_ns() - began);
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "a storer panicked")??;
    }
    let sampled = cache.stats().pages_sampled;
    let (stores, longest_ms) = (stores.load(Ordering::Relaxed), longest_ns / 1_000_000);
    println!("{storers:7}  {stores:9}  {SYNCS:5}  {sampled:13}  {longest_ms:9} ms");
    Ok(())
}
