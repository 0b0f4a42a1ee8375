//! Users, devices and routes for tests.

use duologue_proto::ids::{DeviceId, Incarnation, NodeId, SessionId, UserId};
use duologue_proto::presence::{ConnectNumber, Route};

pub(crate) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(crate) fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

/// A route of a session of its own for every number.
pub(crate) fn route(name: &str, device_name: &str, connect: u64) -> Route {
    Route {
        user: user(name),
        device: device(device_name),
        number: ConnectNumber {
            connect,
            registration: 0,
        },
        session: SessionId::parse(&format!("session-{device_name}-{connect}")).unwrap(),
        node: NodeId::parse("n1").unwrap(),
        incarnation: Incarnation::parse("i0").unwrap(),
    }
}

/// The same session, registered again by its node.
pub(crate) fn registered_again(route: &Route, registration: u32) -> Route {
    let connect = route.number.connect;
    Route {
        number: ConnectNumber {
            connect,
            registration,
        },
        ..route.clone()
    }
}
