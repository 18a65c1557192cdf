use super::super::queue::PASSED_MAX;
use super::*;
use crate::test_support::{Door, arena, flagged_write_of};
use crate::{BioFlags, Sector};

const SYNC: BioFlags = BioFlags { sync: true, background: false, fua: false };
const ORDINARY: BioFlags = BioFlags { sync: false, background: false, fua: false };
const BACKGROUND: BioFlags = BioFlags { sync: false, background: true, fua: false };

/// Runs one thread on bios that are all queued before it takes the second; the order of sectors.
fn order_of(bios: Vec<Bio>) -> Vec<u64> {
    let (taken, door) = (Door::default(), Door::default());
    let order = Arc::new(Mutex::new(Vec::new()));
    let run = {
        let (taken, door, order) = (taken.clone(), door.clone(), Arc::clone(&order));
        move |bio: Bio| {
            taken.open();
            door.pass();
            order.lock().push(bio.sector().0);
            bio.complete(Ok(()));
        }
    };
    let pool = Pool::start(1, run).expect("a thread");
    pool.submit(Bio::discard(Sector(1000), 512));
    taken.pass();
    for bio in bios {
        pool.submit(bio);
    }
    door.open();
    drop(pool);
    let order = order.lock();
    assert_eq!(order[0], 1000);
    order[1..].to_vec()
}

#[test]
fn sync_goes_before_ordinary_and_ordinary_before_background() {
    let arena = arena(8);
    let write = |sector, flags| flagged_write_of(&arena, sector, 0, 512, flags);
    let mut readahead = Bio::read(&arena, Sector(6));
    readahead.set_flags(BACKGROUND);
    let order = order_of(vec![
        write(1, BACKGROUND),
        write(2, ORDINARY),
        write(3, SYNC),
        write(4, ORDINARY),
        Bio::read(&arena, Sector(5)),
        readahead,
    ]);
    assert_eq!(order, [3, 5, 2, 4, 1, 6]);
}

#[test]
fn a_background_bio_is_passed_over_only_so_often() {
    let arena = arena(256);
    let write = |sector, flags| flagged_write_of(&arena, sector, 0, 512, flags);
    let mut bios = vec![write(500, BACKGROUND), write(501, ORDINARY), write(502, BACKGROUND)];
    bios.extend((0..100).map(|sector| write(sector, SYNC)));
    let order = order_of(bios);
    let place = |sector| order.iter().position(|own| *own == sector).expect("it was run");
    assert!(place(500) <= 2 * PASSED_MAX as usize, "background: {}", place(500));
    assert!(place(501) <= 2 * PASSED_MAX as usize, "ordinary: {}", place(501));
    let between = place(502) - place(500);
    assert!(between >= PASSED_MAX as usize, "once served, it waits again: {between}");
    assert_eq!(order.len(), 103);
}

#[test]
fn dropping_the_pool_finishes_the_queue() {
    let door = Door::default();
    let ended = Arc::new(Mutex::new(0));
    let run = {
        let door = door.clone();
        move |bio: Bio| {
            door.pass();
            bio.complete(Ok(()));
        }
    };
    let pool = Pool::start(3, run).expect("threads");
    for _ in 0..1000 {
        let mut bio = Bio::flush();
        let ended = Arc::clone(&ended);
        bio.on_completion(move |result| {
            assert_eq!(result, Ok(()));
            *ended.lock() += 1;
        });
        pool.submit(bio);
    }
    door.open();
    drop(pool);
    assert_eq!(*ended.lock(), 1000);
}

#[test]
fn the_last_reference_may_go_on_one_of_the_threads() {
    let ended = Door::default();
    let pool = Arc::new(Mutex::new(None));
    let run = {
        let (pool, ended) = (Arc::clone(&pool), ended.clone());
        move |bio: Bio| {
            let own: Option<Pool> = pool.lock().take();
            drop(own);
            bio.complete(Ok(()));
            ended.open();
        }
    };
    let mut held = pool.lock();
    let started = held.insert(Pool::start(2, run).expect("threads"));
    started.submit(Bio::flush());
    drop(held);
    ended.pass();
}
