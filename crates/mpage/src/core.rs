//! What the parts of one cache share: pages, nodes, mappings, limits, counters.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::address_space::AddressSpace;
use crate::clock::Clock;
use crate::page_pool::PagePool;
use crate::page_tree::NodePool;
use crate::stats::Stats;

/// The shared parts of one cache.
pub(crate) struct Core {
    pub(crate) pool: PagePool,
    pub(crate) nodes: Arc<NodePool>,
    pub(crate) mappings: Mappings,
    pub(crate) stats: Stats,
    pub(crate) limits: DirtyLimits,
    pub(crate) clock: Clock,
    /// Pages that are dirty, in all mappings.
    pub(crate) dirty_pages: AtomicUsize,
    /// Pages whose write is in flight, in all mappings.
    pub(crate) writeback_pages: AtomicUsize,
    /// Where reclaim looks next.
    pub(crate) clock_hand: AtomicUsize,
    ids: AtomicU64,
}

/// How many pages may wait to be written, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirtyLimits {
    /// Above this the flusher runs. Linux: `dirty_background_bytes`.
    pub(crate) background_pages: usize,
    /// Above this writers wait. Linux: `dirty_bytes`.
    pub(crate) pages: usize,
    /// For how long a page may be dirty. Linux: `dirty_expire_centisecs`.
    pub(crate) expire_ns: u64,
    /// How long there is between two looks for pages dirty for longer; `None`: nobody looks. Linux:
    /// `dirty_writeback_centisecs`.
    pub(crate) interval_ns: Option<u64>,
}

impl Core {
    /// The shared parts over `pool` and `nodes`.
    pub(crate) fn new(pool: PagePool, nodes: NodePool, limits: DirtyLimits, clock: Clock) -> Core {
        Core {
            pool,
            nodes: Arc::new(nodes),
            mappings: Mappings::default(),
            stats: Stats::default(),
            limits,
            clock,
            dirty_pages: AtomicUsize::new(0),
            writeback_pages: AtomicUsize::new(0),
            clock_hand: AtomicUsize::new(0),
            ids: AtomicU64::new(1),
        }
    }

    /// A number no mapping or device of this cache had before; never zero.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Pages dirty or in flight.
    pub(crate) fn unwritten_pages(&self) -> usize {
        self.dirty_pages.load(Ordering::SeqCst) + self.writeback_pages.load(Ordering::SeqCst)
    }

    /// Asks the flushers of all devices that have something dirty to write it.
    pub(crate) fn want_cleaning(&self) {
        self.mappings.dirty().iter().for_each(|(_, mapping)| mapping.dev().want_cleaning());
    }
}

/// The mappings of one cache, and which of them are dirty since when.
#[derive(Default)]
pub(crate) struct Mappings {
    all: Mutex<BTreeMap<u64, Weak<AddressSpace>>>,
    dirty: Mutex<BTreeMap<(u64, u64), Arc<AddressSpace>>>,
    /// Mappings with an error nobody was told of: they live until somebody is.
    in_error: Mutex<BTreeMap<u64, Arc<AddressSpace>>>,
}

impl Mappings {
    /// Adds a mapping.
    pub(crate) fn add(&self, id: u64, mapping: &Weak<AddressSpace>) {
        let _new = self.all.lock().insert(id, Weak::clone(mapping));
    }

    /// Forgets a mapping.
    pub(crate) fn forget(&self, id: u64) {
        let _gone = self.all.lock().remove(&id);
    }

    /// The mapping with number `id`, if it still lives.
    pub(crate) fn get(&self, id: u64) -> Option<Arc<AddressSpace>> {
        self.all.lock().get(&id).and_then(Weak::upgrade)
    }

    /// Every mapping that lives.
    pub(crate) fn all(&self) -> Vec<Arc<AddressSpace>> {
        self.all.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// A mapping became dirty at `when_ns`: from now on the cache keeps it alive.
    pub(crate) fn add_dirty(&self, when_ns: u64, mapping: Arc<AddressSpace>) {
        let dev = Arc::clone(mapping.dev());
        let _before = self.dirty.lock().insert((when_ns, mapping.id()), mapping);
        dev.arm_timer();
    }

    /// A mapping that became dirty at `when_ns` is clean. The caller drops what it gets after it
    /// let go of the mapping's lock.
    pub(crate) fn remove_dirty(&self, when_ns: u64, id: u64) -> Option<Arc<AddressSpace>> {
        self.dirty.lock().remove(&(when_ns, id))
    }

    /// A mapping that counted as dirty since `when_ns` does since `now_ns`.
    pub(crate) fn move_dirty(&self, when_ns: u64, now_ns: u64, id: u64) {
        let mut dirty = self.dirty.lock();
        let mapping = dirty.remove(&(when_ns, id)).expect("a dirty mapping is on the list");
        let _before = dirty.insert((now_ns, id), mapping);
    }

    /// Keeps a mapping while it has an error nobody was told of. Called after each error and after
    /// each look at them: whoever comes last sees how it is, whatever the others saw.
    pub(crate) fn keep_while_in_error(&self, mapping: Arc<AddressSpace>) {
        let mut in_error = self.in_error.lock();
        let before = if mapping.errors.has_unseen() {
            in_error.insert(mapping.id(), mapping)
        } else {
            in_error.remove(&mapping.id())
        };
        drop(in_error);
        drop(before);
    }

    /// The cache goes away: nothing is kept alive any more.
    pub(crate) fn release_all(&self) -> Vec<Arc<AddressSpace>> {
        let dirty = std::mem::take(&mut *self.dirty.lock());
        let in_error = std::mem::take(&mut *self.in_error.lock());
        dirty.into_values().chain(in_error.into_values()).collect()
    }

    /// The dirty mappings and since when they are, those dirty for longest first.
    pub(crate) fn dirty(&self) -> Vec<(u64, Arc<AddressSpace>)> {
        let dirty = self.dirty.lock();
        dirty.iter().map(|((when_ns, _), mapping)| (*when_ns, Arc::clone(mapping))).collect()
    }

    /// Since when a mapping of device `dev` is dirty: the one that is for longest.
    pub(crate) fn dirty_since(&self, dev: u64) -> Option<u64> {
        let dirty = self.dirty.lock();
        let mut of_dev = dirty.iter().filter(|(_, mapping)| mapping.dev().id() == dev);
        of_dev.next().map(|((when_ns, _), _)| *when_ns)
    }
}

#[cfg(all(test, mpage_shuttle))]
mod shuttle_tests;
