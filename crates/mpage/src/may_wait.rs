//! The proof that whoever waits holds no unsubmitted bio.
//!
//! A walker that waited for a page, a frame or a metadata read while it held a bio could wait for
//! itself: the page, the frame, the read may need that very bio to complete. So whatever can wait
//! takes a [`MayWait`], and the only way to get one from a walker is to submit what it holds.

use std::marker::PhantomData;

/// Says that no unsubmitted bio is held while it lives.
#[derive(Debug)]
pub(crate) struct MayWait<'a>(PhantomData<&'a mut ()>);

impl MayWait<'_> {
    /// For callers that build no bios.
    pub(crate) fn no_bio_held() -> MayWait<'static> {
        MayWait(PhantomData)
    }

    /// For a walker that has just submitted what it held, and cannot build while `hand` is
    /// borrowed.
    pub(crate) fn of_empty_hand<T>(_hand: &mut T) -> MayWait<'_> {
        MayWait(PhantomData)
    }
}
