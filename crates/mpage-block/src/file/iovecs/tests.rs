use super::*;
use crate::test_support::{arena, write_of};

#[test]
fn a_transfer_goes_on_where_it_stopped_inside_of_a_vector() {
    let arena = arena(8);
    let bio = write_of(&arena, 0, 1, 3 * 4096);
    let mut memory = IoVecs::of(&bio);
    let lens = |memory: &IoVecs| memory.rest().iter().map(|vec| vec.iov_len).sum();
    let whole: usize = lens(&memory);
    assert_eq!(whole, 3 * 4096);
    let start = memory.rest()[0].iov_base;
    memory.advance(5000);
    let left: usize = lens(&memory);
    assert_eq!(left, 3 * 4096 - 5000);
    assert_eq!(memory.rest()[0].iov_base, start.wrapping_byte_add(5000));
    memory.advance(3 * 4096 - 5000);
    assert!(memory.rest().is_empty());
}
