//! Where the power goes, and what is left of what was not synced.

use std::fmt;

use super::content::Left;
use super::disk::Names;
use super::replay::Kind;

/// A loss of power.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// After as many moments of the record.
    pub(super) after: usize,
    pub(super) names: Names,
    pub(super) left: Left,
}

/// How many points of each kind are wanted, at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    pub(super) told: usize,
    pub(super) structure: usize,
    pub(super) unsynced: usize,
}

impl Point {
    /// Whether something that was not synced is left.
    pub(super) fn keeps_some(&self) -> bool {
        !matches!(self.left, Left::Nothing)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "after moment {} with {:?} and {:?} names",
            self.after, self.left, self.names
        )
    }
}

/// Chooses points that are spread over the moments of each kind; always the same
/// ones of the same record.
pub(super) fn choose(kinds: &[Kind], count: Count) -> Vec<Point> {
    let of = |kind| (0..kinds.len()).filter(move |at| kinds[*at] == kind);
    let told = spread(of(Kind::Told).collect(), count.told);
    let structure = spread(of(Kind::Structure).collect(), count.structure);
    let unsynced = spread(of(Kind::Unsynced).collect(), count.unsynced);
    let mut points: Vec<_> = told
        .into_iter()
        .map(|at| (at, Names::Synced, Left::Nothing))
        .chain(structure.into_iter().zip(0..).map(|(at, number)| {
            let (names, left) = match number % 4 {
                0 => (Names::Synced, Left::Nothing),
                1 => (Names::Current, Left::Nothing),
                2 => (Names::Current, beginning(at)),
                _ => (Names::Current, Left::Sectors(bits(at))),
            };
            (at, names, left)
        }))
        .chain(unsynced.into_iter().zip(0..).map(|(at, number)| {
            let left = if number % 2 == 0 {
                beginning(at)
            } else {
                Left::Sectors(bits(at))
            };
            (at, Names::Synced, left)
        }))
        .map(|(at, names, left)| Point {
            after: at + 1,
            names,
            left,
        })
        .collect();
    points.sort_by_key(|point| point.after);
    points
}

/// At most `count` of them, evenly, with the first and the last.
fn spread(moments: Vec<usize>, count: usize) -> Vec<usize> {
    let last = moments.len().saturating_sub(1);
    if moments.len() <= count || count < 2 {
        return moments.into_iter().take(count).collect();
    }
    (0..count)
        .map(|number| moments[number * last / (count - 1)])
        .collect()
}

fn beginning(at: usize) -> Left {
    let [low, high, ..] = bits(at).to_le_bytes();
    Left::Beginning(u16::from_le_bytes([low, high]))
}

/// Bits that look random: one step of `SplitMix64`.
fn bits(at: usize) -> u64 {
    let mut bits = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}
