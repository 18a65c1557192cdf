//! A table of what was measured: a row a workload, a column a server.

use crate::clients::server::Program;

/// The figures of one workload, a list a server; more is better.
#[derive(Default)]
pub(super) struct Row {
    figures: [Vec<u64>; Program::ALL.len()],
}

/// The table's first two lines.
pub(super) fn head() -> String {
    let names = Program::ALL.map(Program::name).join(" | ");
    let columns = "--:|".repeat(Program::ALL.len());
    format!("| workload | | {names} | to the best peer |\n|---|---|{columns}---|\n")
}

impl Row {
    /// Enters what `program` did in one more round.
    pub(super) fn add(&mut self, program: Program, figure: u64) {
        self.figures[index(program)].push(figure);
    }

    /// The row as a line: medians with the least and the most, and mpage's ratio to the best peer.
    pub(super) fn line(&self, name: &str, unit: &str) -> String {
        let cells = Program::ALL.map(|program| {
            let mut figures = self.figures[index(program)].clone();
            figures.sort_unstable();
            let (least, most) = (figures.first(), figures.last());
            let (least, most) = (least.copied().unwrap_or(0), most.copied().unwrap_or(0));
            format!("{} ({least}..{most})", median(&figures))
        });
        let (peer, ratio) = self.ratio();
        let verdict = if ratio < 1.0 { ": LOST" } else { "" };
        let cells = cells.join(" | ");
        format!("| {name} | {unit} | {cells} | {ratio:.2} of {}{verdict} |", peer.name())
    }

    /// The peer with the best median, and the median of the rounds' ratios to it.
    fn ratio(&self) -> (Program, f64) {
        let peers = Program::ALL.into_iter().filter(|&program| program != Program::Mpage);
        let best = peers.max_by_key(|&peer| median(&self.figures[index(peer)]));
        let best = best.expect("mpage has peers");
        let rounds = self.figures[index(Program::Mpage)].iter().zip(&self.figures[index(best)]);
        let mut ratios: Vec<f64> = rounds.map(|(ours, theirs)| ratio(*ours, *theirs)).collect();
        ratios.sort_by(f64::total_cmp);
        (best, ratios.get(ratios.len() / 2).copied().unwrap_or(0.0))
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures are far below 2^52")]
fn ratio(ours: u64, theirs: u64) -> f64 {
    ours as f64 / theirs.max(1) as f64
}

fn index(program: Program) -> usize {
    Program::ALL.iter().position(|other| *other == program).expect("ALL has every program")
}

fn median(figures: &[u64]) -> u64 {
    let mut figures = figures.to_vec();
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_peer_is_the_one_compared_with_round_by_round() {
        let mut row = Row::default();
        for (ours, file, direct) in [(10, 20, 1), (30, 20, 1), (50, 100, 1000)] {
            row.add(Program::Mpage, ours);
            row.add(Program::NbdkitFile, file);
            row.add(Program::QemuDirect, direct);
        }
        let line = row.line("read", "1/s");
        assert!(line.starts_with("| read | 1/s | 30 (10..50) | 20 (20..100) | "), "{line}");
        assert!(line.ends_with("| 0.50 of nbdkit-file: LOST |"), "{line}");
    }
}
