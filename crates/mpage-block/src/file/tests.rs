use std::path::PathBuf;
use std::process::Command;

use mpage_locks::{Condvar, Mutex, thread};
use mpage_mem::Arena;
use tempfile::TempDir;

use super::*;
use crate::test_support::{Door, Results, arena, flagged_write_of, read, read_of, write, write_of};
use crate::{BioFlags, Sector, submit_and_wait};

/// Makes the file when it is not there.
fn create(backend: Backend) -> FileOptions {
    FileOptions { create: true, backend, threads: 3, ..FileOptions::default() }
}

/// Opens what is there.
fn existing(backend: Backend) -> FileOptions {
    FileOptions { create: false, ..create(backend) }
}

/// Opens what is there to read it.
fn reading(backend: Backend) -> FileOptions {
    FileOptions { read_only: true, ..existing(backend) }
}

/// Makes of each function a test of each back end.
macro_rules! on_both_back_ends {
    ($($promise:ident)*) => {
        on_back_end!(uring, Uring, $($promise)*);
        on_back_end!(threads, Threads, $($promise)*);
    };
}

macro_rules! on_back_end {
    ($module:ident, $backend:ident, $($promise:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $promise() {
                    super::$promise(super::Backend::$backend);
                }
            )*
        }
    };
}

on_both_back_ends! {
    reads_see_what_was_written_and_so_does_the_kernel
    scattered_frames_go_to_and_come_from_neighbouring_sectors
    behind_the_end_of_a_regular_file_are_zeros
    the_size_is_what_was_set
    a_fua_write_is_done_as_one
    a_discard_makes_a_hole_and_keeps_the_size
    zeros_are_written_and_grow_the_file_as_a_write_does
    a_device_opened_to_read_refuses_what_writes
    a_file_has_one_writer_or_any_number_of_readers
    every_path_to_a_file_has_its_identity
    what_is_no_disk_is_refused_with_a_clear_line
    many_threads_submit_ten_thousand_bios_and_each_ends_once
    dropping_the_device_finishes_what_it_took
    an_image_behind_a_loop_device_is_refused
    a_mounted_image_and_its_loop_device_are_refused
    a_block_device_is_opened_alone_and_has_its_queues_limits
    flushes_and_fua_writes_make_the_device_flush_and_plain_writes_do_not
    a_block_device_of_no_bytes_is_refused
    a_completion_may_submit_more_than_the_device_has_places_for
    the_last_reference_may_go_in_a_completion
    a_device_that_was_dropped_has_left_nothing_behind
    a_full_file_system_is_told_of_and_what_fitted_is_written
    an_error_of_the_medium_is_the_bios_result
    zeros_are_written_where_the_file_system_has_no_call_for_it
}

/// How many bios ended, and who waits for it.
type Count = Arc<(Mutex<u64>, Condvar)>;

/// Held while a program is started, and by tests that see a lock go with its file: until the
/// program runs, it has a copy of every open file of this process, and the locks with them.
static STARTING: Mutex<()> = Mutex::new(());

/// A folder that goes with its value, and the path of an image in it that is not there yet.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let image = folder.path().join("disk.img");
    (folder, image)
}

fn file_of(bytes: &[u8]) -> (TempDir, PathBuf) {
    let (folder, image) = folder();
    std::fs::write(&image, bytes).expect("a file");
    (folder, image)
}

fn open(path: &Path, options: &FileOptions) -> FileDevice {
    FileDevice::open(path, options).expect("a file that can be opened")
}

fn why_not(path: impl AsRef<Path>, options: &FileOptions) -> String {
    FileDevice::open(path, options).expect_err("a file that cannot be opened").to_string()
}

fn reads_see_what_was_written_and_so_does_the_kernel(backend: Backend) {
    for direct in [true, false] {
        let (_folder, image) = folder();
        let arena = arena(64);
        let device = open(&image, &FileOptions { direct, ..create(backend) });
        write(&device, &arena, 16, 7, 40 * 4096);
        write(&device, &arena, 24, 8, 4096);
        submit_and_wait(&device, Bio::flush()).expect("a flush that works");
        let expected = [vec![0; 8192], vec![7; 4096], vec![8; 4096], vec![7; 38 * 4096]].concat();
        assert!(read(&device, &arena, 0, 42 * 4096) == expected, "direct: {direct}");
        assert!(std::fs::read(&image).expect("a file") == expected);
        assert_eq!(device.len(), Ok(42 * 4096));
    }
}

fn scattered_frames_go_to_and_come_from_neighbouring_sectors(backend: Backend) {
    let (_folder, image) = folder();
    let arena = arena(16);
    let device = open(&image, &create(backend));
    let frames = crate::test_support::frames(&arena, 8, 0);
    let mut bio = Bio::write(&arena, Sector(0), BioFlags::default());
    for (byte, index) in (1..).zip([6, 2, 4, 0]) {
        arena.write(frames[index], 0, &[byte; 4096]);
        assert!(bio.push(frames[index], 0, 4096, &device.limits()));
    }
    assert_eq!(bio.vecs().len(), 4);
    assert_eq!(submit_and_wait(&device, bio), Ok(()));
    let expected = [[1; 4096], [2; 4096], [3; 4096], [4; 4096]].concat();
    assert!(std::fs::read(&image).expect("a file") == expected);
    assert!(read(&device, &arena, 0, 16384) == expected);
}

fn behind_the_end_of_a_regular_file_are_zeros(backend: Backend) {
    for direct in [true, false] {
        for len in [0, 700, 4096, 5000] {
            let (_folder, image) = file_of(&vec![9; len]);
            let arena = arena(8);
            let device = open(&image, &FileOptions { direct, ..reading(backend) });
            let expected = [vec![9; len], vec![0; 12288 - len]].concat();
            assert!(read(&device, &arena, 0, 12288) == expected, "direct: {direct}, {len} bytes");
            assert!(read(&device, &arena, 800, 8192) == [0; 8192]);
        }
    }
}

fn the_size_is_what_was_set(backend: Backend) {
    let (_folder, image) = file_of(&[1; 4096]);
    let device = open(&image, &existing(backend));
    assert_eq!((device.set_len(700), device.len()), (Ok(()), Ok(700)));
    assert_eq!((device.set_len(9000), device.len()), (Ok(()), Ok(9000)));
    assert_eq!(std::fs::read(&image).expect("a file")[699..701], [1, 0]);
    assert_eq!(device.is_empty(), Ok(false));
}

fn a_fua_write_is_done_as_one(backend: Backend) {
    let (_folder, image) = folder();
    let (arena, device) = (arena(4), open(&image, &create(backend)));
    let fua = BioFlags { fua: true, ..BioFlags::default() };
    assert_eq!(submit_and_wait(&device, flagged_write_of(&arena, 8, 3, 4096, fua)), Ok(()));
    assert!(std::fs::read(&image).expect("a file")[4096..] == [3; 4096]);
}

fn a_discard_makes_a_hole_and_keeps_the_size(backend: Backend) {
    let (_folder, image) = file_of(&[5; 16384]);
    let device = open(&image, &existing(backend));
    assert_eq!(submit_and_wait(&device, Bio::discard(Sector(8), 1 << 20)), Ok(()));
    let expected = [[5; 4096], [0; 4096], [0; 4096], [0; 4096]].concat();
    assert!(std::fs::read(&image).expect("a file") == expected);
}

fn zeros_are_written_and_grow_the_file_as_a_write_does(backend: Backend) {
    let (_folder, image) = file_of(&[5; 8192]);
    let device = open(&image, &existing(backend));
    assert_eq!(submit_and_wait(&device, Bio::write_zeroes(Sector(8), 200 << 10)), Ok(()));
    let expected = [vec![5; 4096], vec![0; 200 << 10]].concat();
    assert!(std::fs::read(&image).expect("a file") == expected);
}

fn a_device_opened_to_read_refuses_what_writes(backend: Backend) {
    let (_folder, image) = file_of(&[5; 4096]);
    let (arena, device) = (arena(4), open(&image, &reading(backend)));
    for bio in [write_of(&arena, 0, 1, 4096), Bio::discard(Sector(0), 4096)] {
        assert_eq!(submit_and_wait(&device, bio), Err(Errno::ROFS));
    }
    assert_eq!(device.set_len(0), Err(Errno::ROFS));
    assert_eq!(submit_and_wait(&device, Bio::flush()), Ok(()));
    assert!(read(&device, &arena, 0, 4096) == [5; 4096]);
}

fn a_file_has_one_writer_or_any_number_of_readers(backend: Backend) {
    let _starting = STARTING.lock();
    let (_folder, image) = file_of(&[5; 4096]);
    let writer = open(&image, &existing(backend));
    assert!(why_not(&image, &existing(backend)).contains("another process, which locks it"));
    assert!(why_not(&image, &reading(backend)).contains("another process, which locks it"));
    drop(open(&image, &FileOptions { lock: false, ..existing(backend) }));
    assert!(
        why_not(&image, &existing(backend)).contains("lslocks"),
        "closing another opening frees nothing"
    );
    drop(writer);
    let (_one, _two) = (open(&image, &reading(backend)), open(&image, &reading(backend)));
    assert!(why_not(&image, &existing(backend)).contains("another process, which locks it"));
}

fn every_path_to_a_file_has_its_identity(backend: Backend) {
    let (folder, image) = file_of(&[5; 4096]);
    let other = folder.path().join("link");
    std::fs::hard_link(&image, &other).expect("a link");
    let (one, two) = (open(&image, &reading(backend)), open(&other, &reading(backend)));
    assert_eq!(one.identity(), two.identity());
    let (_folder, image) = file_of(&[5; 4096]);
    assert_ne!(open(&image, &reading(backend)).identity(), one.identity());
}

fn what_is_no_disk_is_refused_with_a_clear_line(backend: Backend) {
    let (folder, image) = folder();
    let path = folder.path();
    let is = |message: String, path: &Path, words: &str| {
        assert!(message.starts_with(&path.display().to_string()), "{message}");
        assert!(message.contains(words), "{message}");
        assert!(!message.contains('\n'), "{message}");
    };
    assert_eq!(
        why_not("", &existing(backend)),
        "the path is empty: name a disk image or a block device"
    );
    is(why_not(&image, &existing(backend)), &image, "no such file");
    is(why_not(path, &existing(backend)), path, "is a directory");
    is(
        why_not("/dev/null", &existing(backend)),
        Path::new("/dev/null"),
        "neither a regular file nor",
    );
    let beneath = path.join("none/disk.img");
    is(why_not(&beneath, &create(backend)), &beneath, "no such file");
    is(why_not("/proc/version", &reading(backend)), Path::new("/proc/version"), "`direct: false`");
    let denied = open::refused(&image, "open", Errno::ACCESS).to_string();
    is(denied, &image, "permission denied");
    is(open::refused(&image, "open", Errno::ROFS).to_string(), &image, "open it read-only");
}

fn many_threads_submit_ten_thousand_bios_and_each_ends_once(backend: Backend) {
    const THREADS: u64 = 4;
    const BIOS: u64 = 2500;
    const DEPTH: usize = 32;
    let (_folder, image) = folder();
    let device = Arc::new(open(&image, &create(backend)));
    let threads: Vec<_> = (0..THREADS)
        .map(|own| {
            let device = Arc::clone(&device);
            let submit = move || {
                let arena = arena(DEPTH + 1);
                let in_flight = Arc::new((Mutex::new((0_usize, 0_u64)), Condvar::new()));
                for number in 0..BIOS {
                    let mut counts = in_flight.0.lock();
                    while counts.0 == DEPTH {
                        counts = in_flight.1.wait(counts);
                    }
                    counts.0 += 1;
                    drop(counts);
                    let byte = u8::try_from(1 + number % 200).expect("small");
                    let sector = 8 * (own * 256 + number % 200);
                    let mut bio = write_of(&arena, sector, byte, 4096);
                    let told = Arc::clone(&in_flight);
                    bio.on_completion(move |result| {
                        assert_eq!(result, Ok(()));
                        let mut counts = told.0.lock();
                        counts.0 -= 1;
                        counts.1 += 1;
                        drop(counts);
                        told.1.notify_all();
                    });
                    device.submit(bio).expect("it is taken");
                }
                let mut counts = in_flight.0.lock();
                while counts.0 > 0 {
                    counts = in_flight.1.wait(counts);
                }
                assert_eq!(counts.1, BIOS);
                drop(counts);
                assert_eq!(arena.free_frames(), DEPTH + 1);
            };
            thread::spawn("submitter", submit).expect("a thread")
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    let bytes = std::fs::read(&image).expect("a file");
    for own in 0..4 {
        for page in 0..200 {
            let at = (own * 256 + page) * 4096;
            let byte = u8::try_from(1 + page).expect("small");
            assert!(bytes[at..at + 4096] == [byte; 4096], "thread {own}, page {page}");
        }
    }
}

fn dropping_the_device_finishes_what_it_took(backend: Backend) {
    let _starting = STARTING.lock();
    let (_folder, image) = folder();
    let (arena, device, results) = (arena(256), open(&image, &create(backend)), Results::default());
    for sector in 0..200 {
        device.submit(results.of(write_of(&arena, 8 * sector, 1, 4096))).expect("it is taken");
    }
    drop(device);
    assert_eq!(results.so_far(), vec![Ok(()); 200]);
    assert!(std::fs::read(&image).expect("a file") == vec![1; 200 * 4096]);
    drop(open(&image, &existing(backend)));
}

/// Runs a program of `package`, and gives back what it printed.
fn run(package: &str, program: &str, arguments: &[&str]) -> String {
    let starting = STARTING.lock();
    let output = Command::new(program).args(arguments).output();
    drop(starting);
    let output =
        output.unwrap_or_else(|error| panic!("{program}: {error}: install package {package}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} needs root: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A loop device, which is taken down when this goes.
struct Loop(String);

impl Loop {
    fn of(image: &Path) -> Loop {
        let image = image.to_str().expect("a path of letters");
        Loop(run("util-linux", "losetup", &["--find", "--show", image]))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _starting = STARTING.lock();
        let _status = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// A mount, which is undone when this goes.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _starting = STARTING.lock();
        let _status = Command::new("umount").arg(&self.0).status();
    }
}

fn an_image_behind_a_loop_device_is_refused(backend: Backend) {
    let (folder, image) = file_of(&[5; 1 << 20]);
    let other = folder.path().join("link");
    std::fs::hard_link(&image, &other).expect("a link");
    let device = Loop::of(&image);
    for path in [&image, &other] {
        let message = why_not(path, &reading(backend));
        assert!(message.contains(&format!("loop device {}", device.0)), "{message}");
        assert!(message.contains("losetup --detach"), "{message}");
    }
    drop(open(&image, &FileOptions { lock: false, ..reading(backend) }));
    drop(device);
    drop(open(&image, &existing(backend)));
}

fn a_mounted_image_and_its_loop_device_are_refused(backend: Backend) {
    let (folder, image) = file_of(&[0; 1 << 20]);
    let path = image.to_str().expect("a path of letters");
    let _made = run("e2fsprogs", "mke2fs", &["-q", "-F", path]);
    let device = Loop::of(&image);
    let point = folder.path().join("a mount");
    std::fs::create_dir(&point).expect("a folder");
    let _output = run("mount", "mount", &[&device.0, point.to_str().expect("letters")]);
    let mounted = Mounted(point.clone());
    let words = format!("mounted at {}: umount", point.display());
    assert!(
        why_not(&image, &existing(backend)).contains(&words),
        "{}",
        why_not(&image, &existing(backend))
    );
    let words = format!("a mount at {}", point.display());
    assert!(
        why_not(&device.0, &existing(backend)).contains(&words),
        "{}",
        why_not(&device.0, &existing(backend))
    );
    drop(mounted);
}

fn a_block_device_is_opened_alone_and_has_its_queues_limits(backend: Backend) {
    let (_folder, image) = file_of(&[5; 1 << 20]);
    let arena = arena(8);
    let behind = Loop::of(&image);
    let device = open(Path::new(&behind.0), &existing(backend));
    let limits = device.limits();
    assert_eq!(limits.capacity, Some(1 << 20));
    let queue = Path::new("/sys/block").join(&behind.0["/dev/".len()..]).join("queue");
    let told = |name| std::fs::read_to_string(queue.join(name)).expect("the kernel's word");
    assert_eq!(told("max_segments").trim(), limits.segments_max.to_string());
    let message = why_not(&behind.0, &existing(backend));
    assert!(message.contains("in use by the kernel or another program"), "{message}");

    write(&device, &arena, 8, 7, 8192);
    assert!(read(&device, &arena, 0, 12288) == [vec![5; 4096], vec![7; 8192]].concat());
    let end = submit_and_wait(&device, write_of(&arena, 2048, 1, 512));
    assert_eq!(end, Err(Errno::NOSPC));
    assert_eq!(submit_and_wait(&device, Bio::write_zeroes(Sector(0), 4096)), Ok(()));
    assert_eq!(submit_and_wait(&device, Bio::discard(Sector(8), 4096)), Ok(()));
    assert_eq!(submit_and_wait(&device, Bio::flush()), Ok(()));
    let expected = [vec![0; 8192], vec![7; 4096], vec![5; 4096]].concat();
    assert!(read(&device, &arena, 0, 16384) == expected);
    assert_eq!(device.set_len(0), Err(Errno::OPNOTSUPP));
    assert_eq!(device.len(), Ok(1 << 20));
}

fn flushes_and_fua_writes_make_the_device_flush_and_plain_writes_do_not(backend: Backend) {
    let (_folder, image) = file_of(&[5; 1 << 20]);
    let arena = arena(8);
    let behind = Loop::of(&image);
    let device = open(Path::new(&behind.0), &existing(backend));
    let stat = Path::new("/sys/block").join(&behind.0["/dev/".len()..]).join("stat");
    let flushes = || {
        let stat = std::fs::read_to_string(&stat).expect("the kernel's counts");
        let count = stat.split_whitespace().nth(15).expect("Linux counts flushes since 5.5");
        count.parse::<u64>().expect("a count")
    };
    let before = flushes();
    write(&device, &arena, 8, 7, 8192);
    assert_eq!(flushes(), before);
    assert_eq!(submit_and_wait(&device, Bio::flush()), Ok(()));
    assert_eq!(flushes(), before + 1);
    let fua = BioFlags { fua: true, ..BioFlags::default() };
    assert_eq!(submit_and_wait(&device, flagged_write_of(&arena, 8, 3, 4096, fua)), Ok(()));
    assert!(flushes() > before + 1, "a device without FUA flushes instead, once or twice");
}

fn a_block_device_of_no_bytes_is_refused(backend: Backend) {
    let (_folder, image) = file_of(&[]);
    let empty = Loop::of(&image);
    let message = why_not(&empty.0, &existing(backend));
    assert!(message.contains("its size is zero"), "{message}");
}

fn a_completion_may_submit_more_than_the_device_has_places_for(backend: Backend) {
    const CHAINS: u64 = 100;
    const LINKS: u64 = 20;
    /// Writes page after page of a chain, each from the completion of the one before.
    fn go_on(device: &Arc<FileDevice>, arena: &Arc<Arena>, chain: u64, link: u64, done: &Count) {
        let mut bio = write_of(arena, 8 * (chain * LINKS + link), 1, 4096);
        let again = (Arc::clone(device), Arc::clone(arena), Arc::clone(done));
        bio.on_completion(move |result| {
            assert_eq!(result, Ok(()));
            let (device, arena, done) = &again;
            if link + 1 < LINKS {
                go_on(device, arena, chain, link + 1, done);
            }
            *done.0.lock() += 1;
            done.1.notify_all();
        });
        device.submit(bio).expect("it is taken");
    }
    let (_folder, image) = folder();
    let device = Arc::new(open(&image, &create(backend)));
    assert!(CHAINS > device.limits().queue_depth as u64);
    let (arena, done) = (arena(256), Count::default());
    for chain in 0..CHAINS {
        go_on(&device, &arena, chain, 0, &done);
    }
    let mut count = done.0.lock();
    while *count < CHAINS * LINKS {
        count = done.1.wait(count);
    }
    drop(count);
    let bytes = usize::try_from(CHAINS * LINKS * 4096).expect("small");
    assert!(std::fs::read(&image).expect("a file") == vec![1; bytes]);
}

fn the_last_reference_may_go_in_a_completion(backend: Backend) {
    let (_folder, image) = folder();
    let (arena, device) = (arena(8), Arc::new(open(&image, &create(backend))));
    let (alone, ended, results) = (Door::default(), Door::default(), Results::default());
    let mut bio = write_of(&arena, 0, 1, 4096);
    let (own, waits, told) = (Arc::clone(&device), alone.clone(), ended.clone());
    bio.on_completion(move |result| {
        waits.pass();
        drop(own);
        assert_eq!(result, Ok(()));
        told.open();
    });
    device.submit(bio).expect("it is taken");
    device.submit(results.of(write_of(&arena, 8, 2, 4096))).expect("it is taken");
    drop(device);
    alone.open();
    ended.pass();
}

fn a_device_that_was_dropped_has_left_nothing_behind(backend: Backend) {
    let _starting = STARTING.lock();
    let (_folder, image) = file_of(&[5; 4096]);
    for _ in 0..100 {
        // Fails when the one before is not closed: it has the lock.
        let device = open(&image, &existing(backend));
        let target = Arc::downgrade(&device.target);
        assert_eq!(submit_and_wait(&device, Bio::flush()), Ok(()));
        drop(device);
        assert!(target.upgrade().is_none(), "no thread has it");
    }
}

fn a_full_file_system_is_told_of_and_what_fitted_is_written(backend: Backend) {
    let (folder, _) = folder();
    let point = folder.path();
    let small = ["-t", "tmpfs", "-o", "size=64k", "none", point.to_str().expect("letters")];
    let _output = run("mount", "mount", &small);
    let _mounted = Mounted(point.into());
    let options = FileOptions { direct: false, ..create(backend) };
    let (arena, device) = (arena(64), open(&point.join("disk.img"), &options));
    let too_much = write_of(&arena, 0, 7, 128 << 10);
    assert_eq!(submit_and_wait(&device, too_much), Err(Errno::NOSPC));
    assert_eq!(submit_and_wait(&device, write_of(&arena, 8, 8, 4096)), Ok(()));
    let expected = [vec![7; 4096], vec![8; 4096], vec![7; 56 << 10]].concat();
    assert!(read(&device, &arena, 0, 64 << 10) == expected);
    let too_much = Bio::write_zeroes(Sector(0), 1 << 20);
    assert_eq!(submit_and_wait(&device, too_much), Err(Errno::NOSPC));
}

fn an_error_of_the_medium_is_the_bios_result(backend: Backend) {
    let (_folder, image) = file_of(&[5; 1 << 20]);
    let behind = Loop::of(&image);
    let (arena, device) = (arena(8), open(Path::new(&behind.0), &existing(backend)));
    let medium = std::fs::OpenOptions::new().write(true).open(&image).expect("a file");
    medium.set_len(4096).expect("a shorter file");
    let (bio, frames) = read_of(&arena, 1024, 8192);
    assert_eq!(submit_and_wait(&device, bio), Err(Errno::IO));
    assert!(frames.iter().all(|frame| arena.unpin(*frame)), "the bio has let go");
    assert!(read(&device, &arena, 0, 4096) == [5; 4096]);
}

fn zeros_are_written_where_the_file_system_has_no_call_for_it(backend: Backend) {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let memory = std::fs::File::from(rustix::fs::memfd_create("disk", flags).expect("a file"));
    std::os::unix::fs::FileExt::write_all_at(&memory, &[5; 8192], 0).expect("memory");
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
    let (arena, options) = (arena(64), FileOptions { direct: false, ..existing(backend) });
    let device = open(Path::new(&path), &options);
    assert_eq!(submit_and_wait(&device, Bio::write_zeroes(Sector(8), 200 << 10)), Ok(()));
    let expected = [vec![5; 4096], vec![0; 200 << 10]].concat();
    assert!(read(&device, &arena, 0, 204 << 10) == expected);
}
