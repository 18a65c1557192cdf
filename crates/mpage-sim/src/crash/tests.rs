//! That every state is looked at, and that a wrong one is found.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::*;

/// Collects what it is shown.
#[derive(Default)]
struct Album(RefCell<BTreeSet<(u64, Vec<u8>)>>);

impl Judge for Album {
    fn judge(&self, image: &[u8], crash: u64) -> Result<(), String> {
        let first_of_blocks = image.iter().step_by(512).copied().collect();
        let _new = self.0.borrow_mut().insert((crash, first_of_blocks));
        Ok(())
    }
}

fn write(number: u64, block: u64, byte: u8) -> Event {
    let change = Change::Write { start: block * 512, data: vec![byte; 512], grows: false };
    Event::Began { number, change, fua: false }
}

fn ended(number: u64, at: u64) -> Event {
    Event::Ended { number, at, well: true }
}

#[test]
fn every_combination_of_few_changes_is_shown() {
    let events = [write(1, 0, 1), write(2, 1, 1), write(3, 2, 1)];
    let album = Album::default();
    let _states =
        explore(vec![0; 4 * 512], 512, &events, &[], &album, 7).expect("nothing is wrong");
    let seen: Vec<_> = album
        .0
        .borrow()
        .iter()
        .filter(|(at, _)| *at == 3)
        .map(|(_, image)| image.clone())
        .collect();
    assert_eq!(seen.len(), 8, "{seen:?}");
}

#[test]
fn what_a_flush_covered_is_in_every_state() {
    let events =
        [write(1, 0, 1), ended(1, 2), Event::FlushBegan { number: 3 }, write(4, 1, 1), ended(3, 5)];
    let album = Album::default();
    let _states =
        explore(vec![0; 2 * 512], 512, &events, &[6], &album, 7).expect("nothing is wrong");
    let album = album.0.borrow();
    let before = |image: &[u8]| album.contains(&(4, image.to_vec()));
    assert!(before(&[0, 0]) && before(&[1, 1]) && before(&[0, 1]));
    let behind: Vec<_> = album.iter().filter(|(at, _)| *at >= 5).map(|(_, image)| image).collect();
    assert!(behind.iter().all(|image| image[0] == 1), "{behind:?}");
    assert!(album.contains(&(6, vec![1, 0])), "the instant of a promise is looked at");
}

#[test]
fn what_a_failed_flush_had_to_cover_stays_in_doubt() {
    let fails = Event::Ended { number: 3, at: 4, well: false };
    let second = [Event::FlushBegan { number: 5 }, ended(5, 6)];
    let first = [write(1, 0, 1), ended(1, 2), Event::FlushBegan { number: 3 }, fails];
    let events = [first.as_slice(), &second].concat();
    let album = Album::default();
    let _states = explore(vec![0; 512], 512, &events, &[], &album, 7).expect("nothing is wrong");
    assert!(album.0.borrow().contains(&(6, vec![0])), "a later flush says nothing of it");
}

/// Wants block 0 written from instant 3 on.
struct Strict;

impl Judge for Strict {
    fn judge(&self, image: &[u8], crash: u64) -> Result<(), String> {
        match crash < 3 || image[0] == 1 {
            true => Ok(()),
            false => Err("block 0 is lost".into()),
        }
    }
}

#[test]
fn a_promise_kept_by_chance_alone_is_found_out() {
    let events = [write(1, 0, 1), ended(1, 2)];
    let wrong = explore(vec![0; 512], 512, &events, &[3], &Strict, 7).expect_err("no flush");
    assert!(wrong.contains("block 0 is lost"), "{wrong}");
    let certain =
        [Event::Began { number: 1, change: change_of(&events[0]), fua: true }, ended(1, 2)];
    assert!(explore(vec![0; 512], 512, &certain, &[3], &Strict, 7).is_ok());
}

fn change_of(event: &Event) -> Change {
    match event {
        Event::Began { change, .. } => change.clone(),
        _ => unreachable!("only a change has one"),
    }
}
