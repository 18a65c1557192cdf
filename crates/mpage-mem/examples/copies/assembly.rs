//! The ways to copy in assembly, one loop each.

use std::arch::asm;

use crate::{Direction, Way};

/// A function that copies blocks of four vectors of `$width` bytes with `$load_store`.
macro_rules! vectors {
    ($name:ident, $width:literal, $load_store:literal, $register:literal, $last:literal) => {
        fn $name(from: *const u8, to: *mut u8, len: usize) {
            assert!(len.is_multiple_of(4 * $width), "{len} bytes in blocks of four vectors");
            // SAFETY: both ranges are valid and apart, and the length is a multiple of a block.
            unsafe {
                asm!(
                    "2:",
                    concat!($load_store, " ", $register, "0, [rsi + rax]"),
                    concat!($load_store, " ", $register, "1, [rsi + rax + ", $width, "]"),
                    concat!($load_store, " ", $register, "2, [rsi + rax + 2 * ", $width, "]"),
                    concat!($load_store, " ", $register, "3, [rsi + rax + 3 * ", $width, "]"),
                    concat!($load_store, " [rdi + rax], ", $register, "0"),
                    concat!($load_store, " [rdi + rax + ", $width, "], ", $register, "1"),
                    concat!($load_store, " [rdi + rax + 2 * ", $width, "], ", $register, "2"),
                    concat!($load_store, " [rdi + rax + 3 * ", $width, "], ", $register, "3"),
                    concat!("add rax, 4 * ", $width),
                    "cmp rax, rdx",
                    "jb 2b",
                    $last,
                    in("rsi") from,
                    in("rdi") to,
                    in("rdx") len,
                    inout("rax") 0_usize => _,
                    clobber_abi("sysv64"),
                    options(nostack),
                );
            }
        }
    };
}

vectors!(vectors_of_16, 16, "movups", "xmm", "");
vectors!(vectors_of_32, 32, "vmovdqu", "ymm", "vzeroupper");
vectors!(vectors_of_64, 64, "vmovdqu64", "zmm", "vzeroupper");

fn rep_movsb(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: both ranges are valid and apart.
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

/// The ways this processor has.
pub(crate) fn ways(direction: Direction) -> Vec<Way> {
    let mut ways = vec![
        Way::raw("rep movsb", 0, direction, rep_movsb),
        Way::raw("16 byte vectors", 64, direction, vectors_of_16),
    ];
    if is_x86_feature_detected!("avx2") {
        ways.push(Way::raw("32 byte vectors", 128, direction, vectors_of_32));
    }
    if is_x86_feature_detected!("avx512f") {
        ways.push(Way::raw("64 byte vectors", 256, direction, vectors_of_64));
    }
    ways
}
