//! Proof that a running Duologue keeps its promises (design §11).
//!
//! - [`record`]: what every client in a test caused and saw, in one order.
//! - [`check`]: pure functions from a record to the promises that it breaks.
//! - [`faults`]: how hard what was broken on purpose has struck.
//! - [`driver`]: many users with several devices over real sockets, who do whatever
//!   clients and networks do: retry, vanish, freeze, read slowly.
//!
//! It uses the contract and nothing of the services' code, so that it runs against
//! any deployment.

pub mod check;
pub mod driver;
pub mod event;
pub mod faults;
pub mod record;
