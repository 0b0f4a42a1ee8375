//! Memory per session that says nothing more.

use std::time::Duration;

use anyhow::Result;

use crate::driver::{self, Door, Load, To, Users, When};
use crate::machine;
use crate::server::{Kind, Place, Server};
use crate::throughput::TEXT_BYTES;

/// The smaller and the larger number of sessions.
pub(crate) const SESSIONS: [usize; 2] = [1_000, 5_000];
/// How long they rest before memory is read.
const REST: Duration = Duration::from_secs(5);

/// KiB of memory per session, between the two numbers of sessions: each has a
/// connection of its own and has sent one message.
pub(crate) async fn measure(kind: Kind, place: &Place) -> Result<f64> {
    let mut resident = [0; 2];
    for (kib, sessions) in resident.iter_mut().zip(SESSIONS) {
        let server = Server::start(kind, place)?;
        let members = server.members(driver::pairs("user", sessions))?;
        let users = Users {
            addresses: &[server.address],
            members: &members,
            per_connection: 1,
            text_bytes: TEXT_BYTES,
            messages: 1,
            to: To::Peers,
        };
        let mut load = Load::start(&users, When::Window(1)).await?;
        load.complete(|_| ()).await?;
        load.wait(REST).await?;
        *kib = machine::resident_kib(server.process())?;
    }
    slope(resident)
}

/// The same of Duologue by a door.
pub(crate) async fn measure_door(door: Door, place: &Place) -> Result<f64> {
    let mut resident = [0; 2];
    for (kib, sessions) in resident.iter_mut().zip(SESSIONS) {
        let server = Server::start(Kind::Duologue, place)?;
        let members = server.members(driver::pairs("user", sessions))?;
        let users = Users {
            addresses: &[server.address_of(door)?],
            members: &members,
            per_connection: 1,
            text_bytes: TEXT_BYTES,
            messages: 1,
            to: To::Peers,
        };
        let mut load = Load::start_by(door, &users, 1).await?;
        load.complete(|_| ()).await?;
        load.wait(REST).await?;
        *kib = machine::resident_kib(server.process())?;
    }
    slope(resident)
}

/// KiB per session, between the two numbers of sessions.
fn slope(resident: [u64; 2]) -> Result<f64> {
    let [few, many] = resident.map(|kib| u32::try_from(kib).map_or(f64::MAX, f64::from));
    let between = u32::try_from(SESSIONS[1] - SESSIONS[0])?;
    Ok((many - few) / f64::from(between))
}
