//! The memory that a case may have, by count of the allocator.

use std::alloc::System;
use std::sync::Once;

use cap::Cap;

/// Bytes of memory that a case may have, beside what there was before.
const MEMORY_MAX: usize = 16 << 20;

/// Lets `memory` give no more than a case may have, from now on; but whatever is needed to tell of
/// a panic.
pub fn limit(memory: &'static Cap<System>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            memory.set_limit(usize::MAX).expect("more than there is");
            hook(panic);
        }));
    });
    memory.set_limit(memory.allocated() + MEMORY_MAX).expect("it has less");
}
