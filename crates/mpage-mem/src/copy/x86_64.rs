//! Copies by assembly, which memory that changes underneath does not bother.
//!
//! The compiler sees into none of these blocks. In its terms each is a sequence of relaxed atomic
//! loads and stores of single bytes, in no particular order, of which the processor makes fewer,
//! wider ones. Ranges that are no multiple of the width are covered by accesses that overlap.
//!
//! Fences around a block hold: the compiler moves no access across it, and the processor keeps its
//! stores, those of `rep movsb` too, in order with the stores of other instructions (Intel's
//! manual, volume 3, "Memory-Ordering Model for String Operations on Write-Back Memory").

use std::arch::asm;

/// The longest copy whose code is in the caller.
const INLINE_MAX: usize = 128;

/// From here on the processor's own copy loop is faster than one of vectors.
const REP_MIN: usize = 2048;

/// Copies the memory at `from` into `to`.
///
/// # Safety
///
/// As [`copy`], for `from`.
#[inline]
pub(crate) unsafe fn read(from: *const u8, to: &mut [u8]) {
    // SAFETY: the caller's promise about `from`; `to` is a range of its own.
    unsafe { copy(from, to.as_mut_ptr(), to.len()) };
}

/// Copies `from` to the memory at `to`.
///
/// # Safety
///
/// As [`copy`], for `to`.
#[inline]
pub(crate) unsafe fn write(to: *mut u8, from: &[u8]) {
    // SAFETY: the caller's promise about `to`; `from` is a range of its own.
    unsafe { copy(from.as_ptr(), to, from.len()) };
}

/// Copies `len` bytes from `from` to `to`.
///
/// # Safety
///
/// Both ranges are mapped, and they are equal or apart. Each is either the caller's alone or frame
/// memory, which nobody but this module and the kernel touches.
#[inline]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    match len {
        0 => {}
        // SAFETY: the caller's promise; the length is in the function's bounds.
        1..=3 => unsafe { copy_1_to_3(from, to, len) },
        // SAFETY: the caller's promise; the length is in the function's bounds.
        4..=7 => unsafe { copy_4_to_8(from, to, len) },
        // SAFETY: the caller's promise; the length is in the function's bounds.
        8..=15 => unsafe { copy_8_to_16(from, to, len) },
        // SAFETY: the caller's promise; the length is in the function's bounds.
        16..=32 => unsafe { copy_16_to_32(from, to, len) },
        // SAFETY: the caller's promise; the length is in the function's bounds.
        33..=64 => unsafe { copy_32_to_64(from, to, len) },
        // SAFETY: the caller's promise; the length is in the function's bounds.
        65..=INLINE_MAX => unsafe { copy_64_to_128(from, to, len) },
        // SAFETY: the caller's promise; the length is in the function's bounds.
        _ => unsafe { copy_long(from, to, len) },
    }
}

/// # Safety
///
/// As [`copy`].
#[inline]
unsafe fn copy_1_to_3(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the first, the middle and the last byte are all there are, and in the range.
    unsafe {
        asm!(
            "movzx {a:e}, byte ptr [{from}]",
            "movzx {b:e}, byte ptr [{from} + {middle}]",
            "movzx {c:e}, byte ptr [{from} + {last}]",
            "mov byte ptr [{to}], {a:l}",
            "mov byte ptr [{to} + {middle}], {b:l}",
            "mov byte ptr [{to} + {last}], {c:l}",
            from = in(reg) from,
            to = in(reg) to,
            middle = in(reg) len / 2,
            last = in(reg) len - 1,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
///
/// As [`copy`].
#[inline]
unsafe fn copy_4_to_8(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the first and the last four bytes cover the range and lie in it.
    unsafe {
        asm!(
            "mov {a:e}, dword ptr [{from}]",
            "mov {b:e}, dword ptr [{from} + {last}]",
            "mov dword ptr [{to}], {a:e}",
            "mov dword ptr [{to} + {last}], {b:e}",
            from = in(reg) from,
            to = in(reg) to,
            last = in(reg) len - 4,
            a = out(reg) _,
            b = out(reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
///
/// As [`copy`].
#[inline]
unsafe fn copy_8_to_16(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the first and the last eight bytes cover the range and lie in it.
    unsafe {
        asm!(
            "mov {a}, qword ptr [{from}]",
            "mov {b}, qword ptr [{from} + {last}]",
            "mov qword ptr [{to}], {a}",
            "mov qword ptr [{to} + {last}], {b}",
            from = in(reg) from,
            to = in(reg) to,
            last = in(reg) len - 8,
            a = out(reg) _,
            b = out(reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
///
/// As [`copy`].
#[inline]
unsafe fn copy_16_to_32(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the first and the last 16 bytes cover the range and lie in it.
    unsafe {
        asm!(
            "movups {a}, [{from}]",
            "movups {b}, [{from} + {last}]",
            "movups [{to}], {a}",
            "movups [{to} + {last}], {b}",
            from = in(reg) from,
            to = in(reg) to,
            last = in(reg) len - 16,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
///
/// As [`copy`].
#[inline]
unsafe fn copy_32_to_64(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the first and the last 32 bytes cover the range and lie in it.
    unsafe {
        asm!(
            "movups {a}, [{from}]",
            "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + {last}]",
            "movups {d}, [{from} + {last} + 16]",
            "movups [{to}], {a}",
            "movups [{to} + 16], {b}",
            "movups [{to} + {last}], {c}",
            "movups [{to} + {last} + 16], {d}",
            from = in(reg) from,
            to = in(reg) to,
            last = in(reg) len - 32,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
///
/// As [`copy`].
#[inline]
unsafe fn copy_64_to_128(from: *const u8, to: *mut u8, len: usize) {
    let last = len - 64;
    // SAFETY: the first 64 bytes lie in the range.
    unsafe { copy_32_to_64(from, to, 64) };
    // SAFETY: the last 64 bytes lie in the range, and cover it with the first.
    unsafe { copy_32_to_64(from.wrapping_add(last), to.wrapping_add(last), 64) };
}

/// Copies more than `INLINE_MAX` bytes.
///
/// # Safety
///
/// As [`copy`].
unsafe fn copy_long(from: *const u8, to: *mut u8, len: usize) {
    // The processor's loop cuts pieces as they lie at one end, which cuts words in two that lie
    // otherwise at the other.
    let alike = (from.addr() ^ to.addr()).is_multiple_of(size_of::<u64>());
    if len >= REP_MIN && alike && is_x86_feature_detected!("ermsb") {
        // SAFETY: the caller's promise.
        unsafe { copy_rep(from, to, len) };
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the caller's promise, and the processor has AVX2.
        unsafe { copy_avx2(from, to, len) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { copy_sse2(from, to, len) };
    }
}

/// # Safety
///
/// As [`copy`].
pub(super) unsafe fn copy_rep(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the instruction touches the two ranges; the direction flag is clear in Rust code.
    unsafe {
        asm!(
            "rep movsb",
            inout("rsi") from => _,
            inout("rdi") to => _,
            inout("rcx") len => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies 128 bytes or more in blocks of 128, the last of which ends with the range.
///
/// # Safety
///
/// As [`copy`]; the processor has AVX2.
pub(super) unsafe fn copy_avx2(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: blocks begin at or before the last one, which begins at `len - 128`.
    unsafe {
        asm!(
            "2:",
            "vmovdqu ymm0, [rsi + rax]",
            "vmovdqu ymm1, [rsi + rax + 32]",
            "vmovdqu ymm2, [rsi + rax + 64]",
            "vmovdqu ymm3, [rsi + rax + 96]",
            "vmovdqu [rdi + rax], ymm0",
            "vmovdqu [rdi + rax + 32], ymm1",
            "vmovdqu [rdi + rax + 64], ymm2",
            "vmovdqu [rdi + rax + 96], ymm3",
            "add rax, 128",
            "cmp rax, rdx",
            "jb 2b",
            "vmovdqu ymm0, [rsi + rdx]",
            "vmovdqu ymm1, [rsi + rdx + 32]",
            "vmovdqu ymm2, [rsi + rdx + 64]",
            "vmovdqu ymm3, [rsi + rdx + 96]",
            "vmovdqu [rdi + rdx], ymm0",
            "vmovdqu [rdi + rdx + 32], ymm1",
            "vmovdqu [rdi + rdx + 64], ymm2",
            "vmovdqu [rdi + rdx + 96], ymm3",
            "vzeroupper",
            in("rsi") from,
            in("rdi") to,
            in("rdx") len - 128,
            inout("rax") 0_usize => _,
            clobber_abi("sysv64"),
            options(nostack),
        );
    }
}

/// Copies 64 bytes or more in blocks of 64, the last of which ends with the range.
///
/// # Safety
///
/// As [`copy`].
pub(super) unsafe fn copy_sse2(from: *const u8, to: *mut u8, len: usize) {
    let last = len - 64;
    for at in (0..last).step_by(64).chain([last]) {
        // SAFETY: blocks begin at or before the last one, which ends with the range.
        unsafe { copy_32_to_64(from.wrapping_add(at), to.wrapping_add(at), 64) };
    }
}
