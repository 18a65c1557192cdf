//! The tables that are printed.

use std::fmt;

use crate::sample::{KERNEL, LIBRARY, MEMCPY, Row, THREADS};
use crate::work::Operation;

#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ns an operation: median (least..most); ratios: median of the rounds' own\n")?;
        writeln!(
            f,
            "| {:<18} | {:>8} | {:>7} | {:>22} | {:>22} | {:>22} | {:>12} | {:>12} | {:<26} |",
            "operation",
            "set",
            "threads",
            "mpage",
            "kernel",
            "memcpy",
            "mpage/kernel",
            "mpage/memcpy",
            "aim",
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|--:|---|")?;
        for row in &self.rows {
            for (place, threads) in THREADS.iter().enumerate() {
                times(f, row, place, *threads)?;
            }
        }
        writeln!(f, "\ntwo threads against one, times as much\n")?;
        writeln!(
            f,
            "| {:<18} | {:>8} | {:>6} | {:>6} | {:>6} | {:>12} | {:<26} |",
            "operation", "set", "mpage", "kernel", "memcpy", "mpage/memcpy", "aim",
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|---|")?;
        self.rows.iter().try_for_each(|row| scaling(f, row))
    }
}

fn times(f: &mut fmt::Formatter<'_>, row: &Row, place: usize, threads: u64) -> fmt::Result {
    let figures = [LIBRARY, KERNEL, MEMCPY].map(|who| {
        let (median, least, most) = row.spread(place, who);
        format!("{median:.0} ({least:.0}..{most:.0})")
    });
    let (kernel, memcpy) = (row.ratio(place, KERNEL), row.ratio(place, MEMCPY));
    let aim = match row.operation {
        Operation::Write | Operation::ReadLine => met(kernel <= 0.1, "0.10 of the kernel"),
        Operation::Read => met(memcpy <= 1.3, "1.30 of memcpy"),
        Operation::FirstWrite => String::from("none"),
    };
    let [mpage_ns, kernel_ns, memcpy_ns] = figures;
    writeln!(
        f,
        "| {:<18} | {:>8} | {threads:>7} | {mpage_ns:>22} | {kernel_ns:>22} | {memcpy_ns:>22} \
         | {kernel:>12.3} | {memcpy:>12.2} | {aim:<26} |",
        row.operation.name(),
        size(row.bytes),
    )
}

fn scaling(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    let [mpage, kernel, memcpy] = [LIBRARY, KERNEL, MEMCPY].map(|who| row.scaling(who));
    let ratio = mpage / memcpy;
    let aim = match row.operation {
        Operation::FirstWrite => String::from("none"),
        _ => met(ratio >= 0.95, "0.95 of memcpy"),
    };
    writeln!(
        f,
        "| {:<18} | {:>8} | {mpage:>6.2} | {kernel:>6.2} | {memcpy:>6.2} | {ratio:>12.2} \
         | {aim:<26} |",
        row.operation.name(),
        size(row.bytes),
    )
}

fn met(met: bool, aim: &str) -> String {
    format!("{aim}: {}", if met { "met" } else { "MISSED" })
}

fn size(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
