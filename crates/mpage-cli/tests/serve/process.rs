//! The command as a process.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use mpage_locks::thread::{self, JoinHandle};

use crate::client::Client;

/// Runs the command to its end, which it is expected to find by itself.
pub(crate) fn run(args: &[&str]) -> (ExitStatus, String, String) {
    let output = command(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status, text(output.stdout), text(output.stderr))
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mpage"));
    let _command = command.args(args).env_remove("MPAGE_LOG").stdin(Stdio::null());
    command
}

/// A server that is ready. It is killed when this is dropped.
pub(crate) struct Served {
    child: Child,
    socket: PathBuf,
    /// The line that said so.
    pub(crate) ready: String,
    told: Option<JoinHandle<String>>,
}

impl Served {
    /// Serves `image` on the socket beside it.
    pub(crate) fn start(image: &Path, args: &[&str]) -> Served {
        let mut all = vec!["serve"];
        all.extend(args);
        all.push(image.to_str().unwrap());
        let child = command(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let told = thread::spawn("stderr", move || {
            let mut text = String::new();
            let _bytes: usize = stderr.read_to_string(&mut text).unwrap();
            text
        });
        let mut ready = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let _bytes: usize = stdout.read_line(&mut ready).unwrap();
        let socket = PathBuf::from(format!("{}.sock", image.display()));
        let mut served = Served { child, socket, ready, told: Some(told.unwrap()) };
        if served.ready.is_empty() {
            panic!("it did not start: {:?}", served.end());
        }
        served
    }

    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }

    pub(crate) fn simple(&self) -> Client {
        Client::simple(self.connect())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end: the exit status, if no signal ended it, and what it told.
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let told = self.told.take().expect("it ends once").join().unwrap();
        (status.code(), told)
    }

    /// Stops it as a person would.
    pub(crate) fn stop(&mut self) -> (Option<i32>, String) {
        self.signal("TERM");
        self.end()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.told.is_some() {
            self.child.kill().unwrap();
            let _status = self.child.wait().unwrap();
        }
    }
}
