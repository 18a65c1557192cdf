use mpage_locks::thread;

use super::*;
use crate::file::FileDevice;
use crate::test_support::{arena, read, write};

/// Runs `body` on a thread that, with those it starts, gets `EPERM` from io_uring_setup(2).
fn where_io_uring_is_denied(body: impl FnOnce() + Send + 'static) {
    let denied = move || {
        deny_io_uring();
        body();
    };
    thread::spawn("denied", denied).expect("a thread").join().expect("no panic");
}

/// Linux: seccomp(2). The filter is the calling thread's, and of those it starts.
fn deny_io_uring() {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: u16::try_from(code).expect("a code"),
        jt,
        jf,
        k,
    };
    let setup = u32::try_from(libc::SYS_io_uring_setup).expect("a small number");
    let eperm = u32::try_from(libc::EPERM).expect("a small number");
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, setup, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | eperm, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the thread gives up a right, for itself.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(done, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the kernel copies the program, which lives until the call returns.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

fn image() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), [5; 8192]).expect("a file");
    file
}

fn options(backend: Backend) -> FileOptions {
    FileOptions { backend, ..FileOptions::default() }
}

#[test]
fn io_uring_is_taken_where_it_is_to_be_had() {
    let file = image();
    for backend in [Backend::Auto, Backend::Uring] {
        let device = FileDevice::open(file.path(), &options(backend)).expect("a file");
        assert_eq!(device.service.name(), "io_uring");
    }
    let device = FileDevice::open(file.path(), &options(Backend::Threads)).expect("a file");
    assert_eq!(device.service.name(), "a pool of threads");
}

#[test]
fn threads_serve_where_io_uring_is_denied() {
    where_io_uring_is_denied(|| {
        let file = image();
        let device = FileDevice::open(file.path(), &options(Backend::Auto)).expect("a file");
        assert_eq!(device.service.name(), "a pool of threads");
        let arena = arena(8);
        write(&device, &arena, 8, 7, 4096);
        assert!(read(&device, &arena, 0, 8192) == [[5; 4096], [7; 4096]].concat());
    });
}

#[test]
fn io_uring_that_is_asked_for_and_denied_is_an_error_with_a_remedy() {
    where_io_uring_is_denied(|| {
        let file = image();
        let refused = FileDevice::open(file.path(), &options(Backend::Uring));
        let message = refused.expect_err("it is denied").to_string();
        assert!(message.starts_with(&file.path().display().to_string()), "{message}");
        assert!(message.contains("kernel.io_uring_disabled"), "{message}");
        assert!(message.contains("`backend: Backend::Threads`"), "{message}");
        assert!(!message.contains('\n'), "{message}");
        drop(FileDevice::open(file.path(), &options(Backend::Threads)).expect("it is free again"));
    });
}

#[test]
fn each_denial_has_its_remedy() {
    let why = |errno: Errno| why_denied(&io::Error::from(errno));
    for old in [Errno::NOSYS, Errno::INVAL] {
        assert!(why(old).contains("Linux 6.1"));
    }
    for forbidden in [Errno::PERM, Errno::ACCESS] {
        assert!(why(forbidden).contains("kernel.io_uring_disabled"));
    }
    assert!(why(Errno::NOMEM).contains("`ulimit -l`"));
    assert!(why(Errno::MFILE).contains("`ulimit -n`"));
    assert!(why(Errno::IO).contains("refuses"));
}
