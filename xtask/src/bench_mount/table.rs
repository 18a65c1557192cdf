//! A table of what was measured: a row a figure, a column a contender.

use super::contender::Contender;
use super::figure::{Better, Figure};

/// What a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Aim {
    /// So many times fuse2fs.
    Fuse2fs(f64),
    /// The lower of ten times fuse2fs and 0.8 of the ceiling.
    TenOrCeiling,
    /// What [`Aim::TenOrCeiling`] is, and the kernel's level.
    CeilingAndKernel,
    /// No more than so many microseconds.
    Microseconds(f64),
    /// No more than so many times the row before.
    TimesBefore(f64),
}

/// What is the kernel's level: so much of it.
const LEVEL: f64 = 0.95;

/// The figures of one row, a list a contender.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    pub(super) aim: Aim,
    /// The limit of time, in seconds.
    pub(super) limit_s: u64,
    figures: [Vec<Figure>; Contender::ALL.len()],
}

/// The table's first two lines.
pub(super) fn head() -> String {
    let names = Contender::ALL.map(Contender::name).join(" | ");
    let columns = "--:|".repeat(Contender::ALL.len() + 3);
    format!(
        "| work | | {names} | to fuse2fs | to the ceiling | to the kernel | aim |\n\
         |---|---|{columns}---|\n"
    )
}

impl Row {
    pub(super) fn new(
        (name, unit): (&'static str, &'static str),
        better: Better,
        aim: Aim,
        limit_s: u64,
    ) -> Row {
        let figures = [const { Vec::new() }; Contender::ALL.len()];
        Row { name, unit, better, aim, limit_s, figures }
    }

    /// Enters what `contender` did in one more round.
    pub(super) fn add(&mut self, contender: Contender, figure: Figure) {
        self.figures[index(contender)].push(figure);
    }

    /// The row as a line; `before` is the one above.
    pub(super) fn line(&self, before: Option<&Row>) -> String {
        let cells = Contender::ALL.map(|contender| self.cell(contender)).join(" | ");
        let peers = [Contender::Fuse2fs, Contender::Ceiling, Contender::Kernel];
        let ratios = peers.map(|peer| match self.ratio(peer) {
            Some(ratio) if self.is_out_of_time(peer) => format!("> {ratio:.2}"),
            Some(ratio) => format!("{ratio:.2}"),
            None => "-".to_owned(),
        });
        let lost = self.ratio(Contender::Fuse2fs).is_some_and(|ratio| ratio < 1.0);
        let lost = if lost { ": LOST" } else { "" };
        let [fuse2fs, ceiling, kernel] = ratios;
        let (name, unit, aim) = (self.name, self.unit, self.verdict(before));
        format!("| {name} | {unit} | {cells} | {fuse2fs}{lost} | {ceiling} | {kernel} | {aim} |")
    }

    /// The median with the least and the most.
    fn cell(&self, contender: Contender) -> String {
        let figures = self.sorted(contender);
        let (Some(least), Some(most)) = (figures.first(), figures.last()) else {
            return "-".to_owned();
        };
        if self.is_out_of_time(contender) {
            return format!("> {} s", self.limit_s);
        }
        format!("{:.0} ({least:.0}..{most:.0})", median(&figures))
    }

    fn sorted(&self, contender: Contender) -> Vec<f64> {
        let figures = self.figures[index(contender)].iter();
        let mut values: Vec<f64> = figures.map(|figure| figure.value).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn is_out_of_time(&self, contender: Contender) -> bool {
        self.figures[index(contender)].iter().any(|figure| figure.out_of_time)
    }

    /// By how much mpage is better than `peer`: the median of the rounds' own ratios.
    fn ratio(&self, peer: Contender) -> Option<f64> {
        let ours = &self.figures[index(Contender::Mpage)];
        let pairs = ours.iter().zip(&self.figures[index(peer)]);
        let ratios = pairs.map(|(ours, theirs)| self.better.ratio(ours.value, theirs.value));
        let mut ratios: Vec<f64> = ratios.collect();
        ratios.sort_by(f64::total_cmp);
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    /// What the row is to reach, and whether it did.
    fn verdict(&self, before: Option<&Row>) -> String {
        let reached = |peer: Contender, least: f64| self.ratio(peer).is_some_and(|at| at >= least);
        let ours = median(&self.sorted(Contender::Mpage));
        let lower = reached(Contender::Fuse2fs, 10.0) || reached(Contender::Ceiling, 0.8);
        let (aim, met) = match self.aim {
            Aim::Fuse2fs(times) => {
                (format!("{times} of fuse2fs"), reached(Contender::Fuse2fs, times))
            }
            Aim::TenOrCeiling => ("10 of fuse2fs or 0.8 of the ceiling".to_owned(), lower),
            Aim::CeilingAndKernel => (
                format!("10 of fuse2fs or 0.8 of the ceiling; {LEVEL} of the kernel"),
                lower && reached(Contender::Kernel, LEVEL),
            ),
            Aim::Microseconds(most) => (format!("{most:.0} us at most"), ours <= most),
            Aim::TimesBefore(times) => {
                let before = before.map_or(0.0, |row| median(&row.sorted(Contender::Mpage)));
                (format!("{times} of the row before at most"), ours <= times * before)
            }
        };
        let met = met && !self.is_out_of_time(Contender::Mpage);
        format!("{aim}: {}", if met { "met" } else { "MISSED" })
    }
}

fn index(contender: Contender) -> usize {
    Contender::ALL.iter().position(|other| *other == contender).expect("ALL has every contender")
}

/// The middle of sorted figures.
fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(better: Better, aim: Aim, figures: [[f64; 3]; 4]) -> Row {
        let mut row = Row::new(("work", "1/s"), better, aim, 60);
        for (contender, figures) in Contender::ALL.into_iter().zip(figures) {
            for value in figures {
                row.add(contender, Figure { value, out_of_time: false });
            }
        }
        row
    }

    #[test]
    fn ratios_are_the_rounds_own_and_the_aim_is_the_lower_of_two() {
        let figures = [[10.0, 30.0, 50.0], [20.0, 20.0, 20.0], [1.0; 3], [12.0, 36.0, 60.0]];
        let line = row(Better::More, Aim::TenOrCeiling, figures).line(None);
        assert!(
            line.starts_with("| work | 1/s | 30 (10..50) | 20 (20..20) | 1 (1..1) |"),
            "{line}"
        );
        let end = "| 1.50 | 0.83 | 30.00 | 10 of fuse2fs or 0.8 of the ceiling: met |";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn less_is_better_of_times_and_what_is_lost_is_told() {
        let figures = [[4.0; 3], [2.0; 3], [8.0; 3], [1.0; 3]];
        let line = row(Better::Less, Aim::Microseconds(3.0), figures).line(None);
        assert!(line.ends_with("| 0.50: LOST | 0.25 | 2.00 | 3 us at most: MISSED |"), "{line}");
    }

    #[test]
    fn who_is_out_of_time_has_its_limit_told() {
        let mut row = Row::new(("work", "1/s"), Better::More, Aim::Fuse2fs(1.0), 60);
        row.add(Contender::Mpage, Figure { value: 100.0, out_of_time: false });
        row.add(Contender::Fuse2fs, Figure { value: 2.0, out_of_time: true });
        let line = row.line(None);
        assert!(line.contains("| 100 (100..100) | > 60 s | - | - | > 50.00 |"), "{line}");
    }
}
