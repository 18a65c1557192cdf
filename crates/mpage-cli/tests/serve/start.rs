//! What keeps a server from starting, and how it starts.

use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::client::{Client, pattern};
use crate::process::{Served, run};

fn image(folder: &Path, bytes: u64) -> String {
    let path = folder.join("disk.img");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Fails with one line that holds all of `words`.
#[track_caller]
fn refused(args: &[&str], words: &[&str]) {
    let (status, out, told) = run(args);
    assert!(!status.success(), "{args:?}");
    assert_eq!(out, "", "it was never ready");
    for word in words {
        assert!(told.contains(word), "{word:?} is missing: {told}");
    }
    assert_eq!(told.trim_end().lines().count(), 1, "one line: {told}");
}

#[test]
fn a_bad_image_is_refused_in_one_line_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    refused(&["serve", &path("none")], &["none", "no such image", "--create"]);
    refused(&["serve", folder.path().to_str().unwrap()], &["directory"]);
    fs::write(path("empty"), "").unwrap();
    refused(&["serve", &path("empty")], &["empty", "truncate", "--create"]);
    File::create(path("odd")).unwrap().set_len(1_000_001).unwrap();
    refused(&["serve", &path("odd")], &["odd", "1000001", "truncate"]);
    refused(&["serve", "/dev/null"], &["/dev/null", "neither a regular file nor a block device"]);
}

#[test]
fn an_image_in_use_is_refused_and_its_user_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 1 << 20);
    let mut first = Served::start(Path::new(&image), &[]);
    let socket = folder.path().join("other.sock");
    refused(&["serve", "--socket", socket.to_str().unwrap(), &image], &["in use", "lslocks"]);
    assert!(!socket.exists());
    assert_eq!(first.simple().flush(), 0);
    assert_eq!(first.stop().0, Some(0));
}

#[test]
fn a_bad_socket_is_refused_in_one_line_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 1 << 20);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    refused(&["serve", "--socket", &path("no/folder"), &image], &["no/folder", "folder exists"]);
    refused(&["serve", "--socket", &path(&"x".repeat(120)), &image], &["108"]);
    fs::write(path("file"), "precious").unwrap();
    refused(&["serve", "--socket", &path("file"), &image], &["no socket", "--socket"]);
    assert_eq!(fs::read(path("file")).unwrap(), b"precious");
    let _listener = UnixListener::bind(path("live")).unwrap();
    refused(&["serve", "--socket", &path("live"), &image], &["another server", "--socket"]);
    assert!(Path::new(&path("live")).exists());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&["serve", "--listen", &address, &image], &[&address, "in use", "--listen"]);
}

#[test]
fn the_socket_of_a_dead_server_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 1 << 20);
    let first = Served::start(Path::new(&image), &[]);
    drop(first);
    assert!(folder.path().join("disk.img.sock").exists(), "a killed server leaves it");
    let mut second = Served::start(Path::new(&image), &[]);
    assert_eq!(second.simple().flush(), 0);
    assert_eq!(second.stop().0, Some(0));
}

#[test]
fn bad_sizes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 1 << 20);
    refused(&["serve", "--memory", "64K", &image], &["--memory", "at least"]);
    for size in ["64X", "1.5G", "", "-1"] {
        let (status, _, told) = run(&["serve", &format!("--memory={size}"), &image]);
        assert_eq!(status.code(), Some(2));
        assert!(told.contains("64M or 1G"), "{told}");
    }
}

#[test]
fn create_makes_a_sparse_image_and_touches_no_file_that_exists() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.img");
    let name = path.to_str().unwrap();
    let mut served = Served::start(&path, &["--create", "1G"]);
    assert_eq!(served.simple().size, 1 << 30);
    assert_eq!(served.stop().0, Some(0));
    use std::os::unix::fs::MetadataExt;
    let made = fs::metadata(&path).unwrap();
    assert_eq!((made.len(), made.blocks()), (1 << 30, 0));
    refused(&["serve", "--create", "2G", name], &["new.img", "exists already", "--create"]);
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 30);
}

#[test]
fn an_image_made_for_a_server_that_cannot_start_goes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("file"), "").unwrap();
    refused(&["serve", "--create", "1M", "--socket", &path("file"), &path("a")], &["no socket"]);
    refused(&["serve", "--create", "1000001", &path("b")], &["1000001"]);
    refused(&["serve", "--create", "0", &path("c")], &["--create"]);
    refused(&["serve", "--create", "1M", &path("none/d")], &["none/d", "cannot be made"]);
    for name in ["a", "b", "c"] {
        assert!(!Path::new(&path(name)).exists(), "{name}");
    }
}

#[test]
fn the_ready_line_says_what_is_served_where_and_what_to_try() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my disk?.img");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    let mut served = Served::start(&path, &["--export", "a b", "--read-only"]);
    let base = folder.path().display();
    let uri = format!("nbd+unix:///a%20b?socket={base}/my%20disk%3F.img.sock");
    for word in ["my disk?.img", "1 MiB", "read-only", &format!("nbdinfo '{uri}'"), "Ctrl-C"] {
        assert!(served.ready.contains(word), "{word:?} is missing: {}", served.ready);
    }
    let mut client = Client::greeted(served.connect(), 3);
    client.go("a b");
    assert_eq!(served.stop().0, Some(0));
}

#[test]
fn a_tcp_server_serves() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 1 << 20);
    let mut served = Served::start(Path::new(&image), &["--listen", "127.0.0.1:0"]);
    let address = served.ready.split("nbd://").nth(1).unwrap().split('/').next().unwrap();
    let stream = std::net::TcpStream::connect(address).unwrap();
    let stream = std::os::fd::OwnedFd::from(stream);
    let mut client = Client::simple(stream.into());
    assert_eq!(client.write(0, 1, &pattern(1, 500_000)), 0);
    assert_eq!(client.read(1, 500_000), Ok(pattern(1, 500_000)));
    assert_eq!(served.stop().0, Some(0));
}

#[test]
fn each_way_to_reach_the_device_serves() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 4 << 20);
    for (seed, args) in (1..).zip([&["--device", "threads"][..], &["--preallocate"], &[]]) {
        let mut served = Served::start(Path::new(&image), args);
        let mut client = served.simple();
        assert_eq!(client.write(0, 7, &pattern(seed, 100_000)), 0);
        assert_eq!(client.flush(), 0);
        assert_eq!(served.stop().0, Some(0));
        assert!(fs::read(&image).unwrap()[7..100_007] == pattern(seed, 100_000));
    }
    use std::os::unix::fs::MetadataExt;
    assert!(fs::metadata(&image).unwrap().blocks() >= 4 << 11, "room for all of it");
}

#[test]
fn manual_page_and_completions_are_made() {
    for what in ["man", "bash", "fish", "zsh"] {
        let (status, out, _) = run(&["generate", what]);
        assert!(status.success() && out.contains("preallocate"), "{what}");
    }
    let (status, out, _) = run(&["serve", "--help"]);
    assert!(status.success());
    for word in ["256M", "kill -9", "nbdinfo", "128 MiB"] {
        assert!(out.contains(word), "{word}");
    }
}
