//! Faults that are planted on purpose, to prove that they are caught
//! (`docs/proof.md`), and points at which a process kills itself.
//!
//! Only a build with the feature `faults` can have any. In every other build
//! [`planted`] is the constant `false` and [`point`] does nothing, so that what
//! they stand beside is all that is left.

mod mutant;
mod point;
#[cfg(feature = "faults")]
pub mod proof;
#[cfg(feature = "faults")]
mod switch;

pub use self::mutant::Mutant;
pub use self::point::Point;

#[cfg(feature = "faults")]
pub use self::switch::{Plant, plant};

/// Whether this fault is planted.
#[cfg(feature = "faults")]
pub fn planted(mutant: Mutant) -> bool {
    switch::planted() == Some(mutant)
}

/// Whether this fault is planted. It cannot be in this build.
#[cfg(not(feature = "faults"))]
#[inline]
pub const fn planted(_: Mutant) -> bool {
    false
}

/// What is planted in this process, or "nothing"; none in a build that can have no
/// faults. To be told loudly at the start.
pub fn of_this_process() -> Option<&'static str> {
    #[cfg(feature = "faults")]
    let planted = Some(switch::planted().map_or("nothing", Mutant::name));
    #[cfg(not(feature = "faults"))]
    let planted = None;
    planted
}

/// Marks a step. The process ends here if it is to, as by `kill -9`.
#[cfg(feature = "faults")]
pub fn point(point: Point) {
    switch::pass(point);
}

/// Marks a step. Nothing happens in this build.
#[cfg(not(feature = "faults"))]
#[inline]
pub const fn point(_: Point) {}
