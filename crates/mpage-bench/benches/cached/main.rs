//! What cached reads and writes cost: the library, the kernel's page cache, and `memcpy`.
//!
//! ```text
//! cargo bench -p mpage-bench                 64 MiB and 1 GiB, about a minute
//! cargo bench -p mpage-bench -- --quick      64 MiB, a few seconds
//! cargo bench -p mpage-bench -- --cpu-time   where other work keeps the machine busy
//! ```
//!
//! In each round every contender does the same operations at the same random places, with one
//! thread and with two, in turn. Two threads have a half of the file each. A figure is the time
//! they took together, divided by all operations.

#![forbid(unsafe_code)]

mod contender;
mod kernel;
mod library;
mod machine;
mod memcpy;
mod round;
mod sample;
mod table;
mod work;

use std::process::{Command, ExitCode};
use std::sync::Arc;

use crate::contender::{Contender, Failed};
use crate::kernel::Kernel;
use crate::library::Library;
use crate::memcpy::Memcpy;
use crate::round::{Plan, Timer, measure};
use crate::table::Table;
use crate::work::Operation;

/// Asks the C library for huge pages under large allocations: what the cache's arena has as well.
const HUGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

const MIB: u64 = 1 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cached: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Failed> {
    let plan = plan()?;
    if std::env::var_os(HUGE_PAGES.0).is_none() {
        // The C library reads it before main, so it takes another process.
        let mut again = Command::new(std::env::current_exe()?);
        let status = again.args(std::env::args_os().skip(1)).env(HUGE_PAGES.0, HUGE_PAGES.1);
        let success = status.status()?.success();
        return Ok(if success { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let folder = tempfile::tempdir()?;
    println!("{}", machine::description(folder.path()));
    println!("rounds:      {} of about {} ms each", plan.rounds, plan.round_ms);
    println!("time:        {}", plan.timer.name());
    println!("cache state: everything cached; written pages dirty before, unless said otherwise");
    let mut table = Table::default();
    for &bytes in plan.sets {
        let library: Arc<dyn Contender> = Arc::new(Library::new(folder.path(), bytes)?);
        let kernel: Arc<dyn Contender> = Arc::new(Kernel::new(folder.path(), bytes)?);
        let memcpy: Arc<dyn Contender> = Arc::new(Memcpy::new(bytes));
        let contenders = [library, kernel, memcpy];
        println!("huge pages:  {}, at {} MiB a file", machine::huge_pages(), bytes / MIB);
        for operation in Operation::ALL {
            table.add(measure(&contenders, operation, bytes, &plan)?);
        }
    }
    print!("\n{table}");
    Ok(ExitCode::SUCCESS)
}

/// What the arguments ask for.
fn plan() -> Result<Plan, String> {
    let sets: &[u64] = &[64 * MIB, 1024 * MIB];
    let mut plan = Plan { sets, rounds: 9, round_ms: 60, timer: Timer::Wall };
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => plan = Plan { sets: &sets[..1], rounds: 3, round_ms: 20, ..plan },
            "--cpu-time" => plan.timer = Timer::Processor,
            "--bench" => {} // cargo says so.
            other => {
                return Err(format!("unexpected argument {other}; give --quick or --cpu-time"));
            }
        }
    }
    Ok(plan)
}
