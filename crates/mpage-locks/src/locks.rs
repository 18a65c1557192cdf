//! Locks and a condition variable with one shape over three libraries.

#[cfg(not(any(mpage_loom, mpage_shuttle)))]
mod real {
    use std::time::Duration;

    pub use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    /// A lock that one thread holds at a time. Small, unfair, not reentrant.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        /// Makes an unlocked lock around `value`.
        pub const fn new(value: T) -> Mutex<T> {
            Mutex(parking_lot::Mutex::new(value))
        }

        /// Waits until the lock is free and takes it.
        #[inline]
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock()
        }
    }

    /// A lock that many threads hold at a time to read, or one to write. Not reentrant.
    #[derive(Debug, Default)]
    pub struct RwLock<T>(parking_lot::RwLock<T>);

    impl<T> RwLock<T> {
        /// Makes an unlocked lock around `value`.
        pub const fn new(value: T) -> RwLock<T> {
            RwLock(parking_lot::RwLock::new(value))
        }

        /// Waits until nobody writes and takes the lock to read.
        pub fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read()
        }

        /// Waits until nobody has the lock and takes it to write.
        pub fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write()
        }
    }

    /// Lets threads wait until another says that something changed.
    #[derive(Debug, Default)]
    pub struct Condvar(parking_lot::Condvar);

    impl Condvar {
        /// Makes a condition variable nobody waits on.
        pub const fn new() -> Condvar {
            Condvar(parking_lot::Condvar::new())
        }

        /// Gives up the lock, waits to be notified, and takes the lock again. May wake early.
        pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(&mut guard);
            guard
        }

        /// As [`wait`](Self::wait), for at most `limit`; false when the time ran out. `lock` is the
        /// lock of `guard`.
        pub fn wait_for<'a, T>(
            &self,
            _lock: &'a Mutex<T>,
            mut guard: MutexGuard<'a, T>,
            limit: Duration,
        ) -> (MutexGuard<'a, T>, bool) {
            let timed_out = self.0.wait_for(&mut guard, limit).timed_out();
            (guard, !timed_out)
        }

        /// Wakes one waiting thread, if there is one.
        pub fn notify_one(&self) {
            let _woken: bool = self.0.notify_one();
        }

        /// Wakes every waiting thread.
        pub fn notify_all(&self) {
            let _woken: usize = self.0.notify_all();
        }
    }
}

#[cfg(any(mpage_loom, mpage_shuttle))]
mod checked {
    use std::time::Duration;

    #[cfg(mpage_loom)]
    use loom::sync;
    #[cfg(mpage_shuttle)]
    use shuttle::sync;

    pub use sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    /// A lock that one thread holds at a time. Not reentrant.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        /// Makes an unlocked lock around `value`.
        pub fn new(value: T) -> Mutex<T> {
            Mutex(sync::Mutex::new(value))
        }

        /// Waits until the lock is free and takes it.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            match self.0.lock() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }
    }

    /// A lock that many threads hold at a time to read, or one to write. Not reentrant.
    #[derive(Debug, Default)]
    pub struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        /// Makes an unlocked lock around `value`.
        pub fn new(value: T) -> RwLock<T> {
            RwLock(sync::RwLock::new(value))
        }

        /// Waits until nobody writes and takes the lock to read.
        pub fn read(&self) -> RwLockReadGuard<'_, T> {
            match self.0.read() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }

        /// Waits until nobody has the lock and takes it to write.
        pub fn write(&self) -> RwLockWriteGuard<'_, T> {
            match self.0.write() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }
    }

    /// Lets threads wait until another says that something changed.
    #[derive(Debug, Default)]
    pub struct Condvar(sync::Condvar);

    impl Condvar {
        /// Makes a condition variable nobody waits on.
        pub fn new() -> Condvar {
            Condvar(sync::Condvar::new())
        }

        /// Gives up the lock, waits to be notified, and takes the lock again. May wake early.
        pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            match self.0.wait(guard) {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }

        /// No time passes under a schedule checker: others may run, and then the time has run out.
        /// `lock` is the lock of `guard`.
        pub fn wait_for<'a, T>(
            &self,
            lock: &'a Mutex<T>,
            guard: MutexGuard<'a, T>,
            _limit: Duration,
        ) -> (MutexGuard<'a, T>, bool) {
            drop(guard);
            super::super::thread::yield_now();
            (lock.lock(), false)
        }

        /// Wakes one waiting thread, if there is one.
        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        /// Wakes every waiting thread.
        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

#[cfg(any(mpage_loom, mpage_shuttle))]
pub use checked::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(any(mpage_loom, mpage_shuttle)))]
pub use real::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
