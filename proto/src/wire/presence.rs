//! `duologue.presence.v1`, to and from typed values.

use super::{
    InvalidField, Read, between, count, each, id, optional_user, size, texts, user, users,
};
use crate::ids::{DeviceId, Incarnation, NodeId, SessionId, UnixMillis, UserId};
use crate::limits::{MAX_ADDRESS_BYTES, MAX_INTERNAL_USERS};
use crate::presence::v1 as wire;
use crate::presence::{
    ConnectNumber, Lease, Liveness, NodeInfo, Registered, Renewed, Route, UserPresence,
};

/// A route.
pub fn write_route(route: &Route) -> wire::Route {
    wire::Route {
        user: route.user.to_string(),
        device: route.device.to_string(),
        connect_number: route.number.connect,
        registration: route.number.registration,
        session: route.session.to_string(),
        node: route.node.to_string(),
        incarnation: route.incarnation.to_string(),
    }
}

/// A route that must be there.
pub fn read_route(route: Option<wire::Route>) -> Read<Route> {
    let route = route.ok_or_else(|| InvalidField::absent("route"))?;
    one_route(route).map_err(|fault| fault.within("route"))
}

fn one_route(route: wire::Route) -> Read<Route> {
    Ok(Route {
        user: user("user", &route.user)?,
        device: id("device", &route.device, DeviceId::parse)?,
        number: ConnectNumber {
            connect: route.connect_number,
            registration: route.registration,
        },
        session: id("session", &route.session, SessionId::parse)?,
        node: id("node", &route.node, NodeId::parse)?,
        incarnation: id("incarnation", &route.incarnation, Incarnation::parse)?,
    })
}

/// What became of a registration.
pub fn write_registered(registered: &Registered) -> wire::RegisterResponse {
    use wire::register_response::Outcome;
    wire::RegisterResponse {
        outcome: Some(match registered {
            Registered::InForce { replaced } => Outcome::InForce(wire::InForce {
                replaced: replaced.iter().map(write_route).collect(),
            }),
            Registered::Superseded => Outcome::Superseded(wire::Superseded {}),
        }),
    }
}

/// What became of a registration.
pub fn read_registered(response: wire::RegisterResponse) -> Read<Registered> {
    use wire::register_response::Outcome;
    match response.outcome {
        Some(Outcome::InForce(in_force)) => {
            let replaced = in_force.replaced.into_iter().map(one_route).collect();
            let replaced: Read<_> = replaced;
            Ok(Registered::InForce {
                replaced: replaced.map_err(|fault| fault.within("in_force.replaced"))?,
            })
        }
        Some(Outcome::Superseded(_)) => Ok(Registered::Superseded),
        None => Err(InvalidField::absent("outcome")),
    }
}

/// Asks for a user's routes.
pub fn read_user(text: &str) -> Read<UserId> {
    user("user", text)
}

/// Routes.
pub fn write_routes(routes: &[Route]) -> wire::GetRoutesResponse {
    wire::GetRoutesResponse {
        routes: routes.iter().map(write_route).collect(),
    }
}

/// Routes.
pub fn read_routes(response: wire::GetRoutesResponse) -> Read<Vec<Route>> {
    each("routes", response.routes, one_route)
}

/// Asks for the presence of users.
pub fn write_get_presence(users: &[UserId]) -> wire::GetPresenceRequest {
    wire::GetPresenceRequest {
        users: texts(users),
    }
}

/// Asks for the presence of users.
pub fn read_get_presence(request: &wire::GetPresenceRequest) -> Read<Vec<UserId>> {
    between("users", request.users.len(), 0, MAX_INTERNAL_USERS)?;
    users("users", &request.users)
}

/// One user's presence.
pub fn write_presence(presence: &UserPresence) -> wire::UserPresence {
    wire::UserPresence {
        user: presence.user.to_string(),
        online: presence.online,
        last_seen_millis: presence.last_seen.map(|time| time.0),
    }
}

/// One user's presence.
pub fn read_presence(presence: &wire::UserPresence) -> Read<UserPresence> {
    Ok(UserPresence {
        user: user("user", &presence.user)?,
        online: presence.online,
        last_seen: presence.last_seen_millis.map(UnixMillis),
    })
}

/// The presence of several users.
pub fn write_presences(users: &[UserPresence]) -> Vec<wire::UserPresence> {
    users.iter().map(write_presence).collect()
}

/// The presence of several users.
pub fn read_presences(users: Vec<wire::UserPresence>) -> Read<Vec<UserPresence>> {
    between("users", users.len(), 0, MAX_INTERNAL_USERS)?;
    each("users", users, |presence| read_presence(&presence))
}

/// Asks who is online.
pub fn write_list_online(after: Option<&UserId>, max: usize) -> wire::ListOnlineRequest {
    wire::ListOnlineRequest {
        after_user: after.map(UserId::to_string),
        max_users: size(max),
    }
}

/// Asks who is online: after whom, how many.
pub fn read_list_online(request: &wire::ListOnlineRequest) -> Read<(Option<UserId>, usize)> {
    Ok((
        optional_user("after_user", request.after_user.as_ref())?,
        between("max_users", count(request.max_users), 1, MAX_INTERNAL_USERS)?,
    ))
}

/// A lease.
pub fn write_lease(lease: &Lease) -> wire::Lease {
    wire::Lease {
        node: lease.node.to_string(),
        incarnation: lease.incarnation.to_string(),
        address: lease.address.clone(),
        counter: lease.counter,
    }
}

/// A lease that must be there.
pub fn read_lease(lease: Option<wire::Lease>) -> Read<Lease> {
    let lease = lease.ok_or_else(|| InvalidField::absent("lease"))?;
    let read = |lease: wire::Lease| {
        Ok(Lease {
            node: id("node", &lease.node, NodeId::parse)?,
            incarnation: id("incarnation", &lease.incarnation, Incarnation::parse)?,
            address: address(lease.address)?,
            counter: lease.counter,
        })
    };
    read(lease).map_err(|fault: InvalidField| fault.within("lease"))
}

/// What became of a renewal.
pub fn write_renewed(renewed: Renewed) -> wire::RenewLeaseResponse {
    wire::RenewLeaseResponse {
        in_force: renewed == Renewed::InForce,
    }
}

/// What became of a renewal.
pub fn read_renewed(response: wire::RenewLeaseResponse) -> Renewed {
    if response.in_force {
        Renewed::InForce
    } else {
        Renewed::Lost
    }
}

/// Nodes.
pub fn write_nodes(nodes: Vec<NodeInfo>) -> wire::ListNodesResponse {
    let nodes = nodes.into_iter().map(|node| wire::Node {
        node: node.node.to_string(),
        incarnation: node.incarnation.to_string(),
        address: node.address,
        liveness: match node.liveness {
            Liveness::Alive => wire::Liveness::Alive,
            Liveness::Dead => wire::Liveness::Dead,
            Liveness::Unknown => wire::Liveness::Unknown,
        }
        .into(),
    });
    wire::ListNodesResponse {
        nodes: nodes.collect(),
    }
}

/// Nodes.
pub fn read_nodes(response: wire::ListNodesResponse) -> Read<Vec<NodeInfo>> {
    each("nodes", response.nodes, |node| {
        Ok(NodeInfo {
            node: id("node", &node.node, NodeId::parse)?,
            incarnation: id("incarnation", &node.incarnation, Incarnation::parse)?,
            address: address(node.address)?,
            liveness: match wire::Liveness::try_from(node.liveness) {
                Ok(wire::Liveness::Alive) => Liveness::Alive,
                Ok(wire::Liveness::Dead) => Liveness::Dead,
                Ok(wire::Liveness::Unknown) => Liveness::Unknown,
                Ok(wire::Liveness::Unspecified) | Err(_) => {
                    return Err(InvalidField::absent("liveness"));
                }
            },
        })
    })
}

fn address(address: String) -> Read<String> {
    between("address", address.len(), 1, MAX_ADDRESS_BYTES).map_err(|fault| InvalidField {
        rule: format!("has a wrong length: {}", fault.rule),
        ..fault
    })?;
    Ok(address)
}
