//! The contract of `Directory`: one suite, run over every engine.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod engines;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use duologue_presence::directory::{
    GONE_KEPT, Lease, MAX_NODES, MAX_REPLACED, MAX_ROUTES_PER_USER, Renewed,
};
use duologue_presence::memory::{MAX_GONE_ROWS, MemoryDirectory};
use duologue_proto::ids::{Incarnation, NodeId, SessionId, UnixMillis};
use duologue_proto::presence::{ConnectNumber, PresenceError, Registered, Route};
use engines::Engine;
use proptest::prelude::*;
use support::{device, registered_again, route, user};
use tokio::task::JoinSet;

const AT: UnixMillis = UnixMillis(1_700_000_000_000);
const IN_FORCE: Registered = Registered::InForce {
    replaced: Vec::new(),
};

/// Every promise becomes one test per engine.
macro_rules! contract {
    (always: $($always:ident),* $(,)? ; settled: $($settled:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $(
                #[tokio::test]
                pub(super) async fn $always() {
                    super::$always(engines::memory()).await;
                }
            )*
            $(
                #[tokio::test]
                pub(super) async fn $settled() {
                    super::$settled(engines::memory()).await;
                }
            )*
        }

        mod dynamodb {
            use super::*;
            $(
                #[tokio::test]
                pub(super) async fn $always() {
                    super::$always(engines::dynamodb().await).await;
                }
            )*
            $(
                #[tokio::test]
                pub(super) async fn $settled() {
                    super::$settled(engines::dynamodb().await).await;
                }
            )*
        }

        mod dynamodb_with_faults {
            use super::*;
            $(
                #[tokio::test(start_paused = true)]
                async fn $always() {
                    for seed in 0..engines::SEEDS {
                        super::$always(engines::dynamodb_with_faults(seed).await).await;
                    }
                }
            )*
        }

        mod dynamodb_elsewhere {
            use super::*;
            $(
                #[tokio::test]
                #[ignore = "needs a DynamoDB that the environment names, as AWS_ENDPOINT_URL_DYNAMODB"]
                async fn $always() {
                    super::$always(engines::dynamodb_elsewhere().await).await;
                }
            )*
            $(
                #[tokio::test]
                #[ignore = "needs a DynamoDB that the environment names, as AWS_ENDPOINT_URL_DYNAMODB"]
                async fn $settled() {
                    super::$settled(engines::dynamodb_elsewhere().await).await;
                }
            )*
        }
    };
}

// What is settled holds where every call has had its outcome: a request that comes
// after its sender has given up may bring back what no rising number guards, or answer
// for a session that was replaced meanwhile.
contract!(
    always:
    a_registered_route_is_found_and_a_released_one_is_not,
    a_higher_number_replaces_and_names_who_was_replaced,
    a_late_registration_does_not_replace_its_successor,
    a_late_release_does_not_remove_its_successor,
    a_late_clean_up_does_not_remove_its_successor,
    a_released_session_cannot_come_back,
    a_release_that_overtakes_its_registration_wins,
    a_release_removes_what_has_a_lower_number,
    a_cleaned_up_session_comes_back_only_with_a_higher_number,
    a_clean_up_by_an_older_number_leaves_a_session_that_registered_again,
    registering_the_same_route_again_changes_nothing_and_names_who_was_replaced_again,
    an_equal_number_of_another_session_is_superseded,
    an_equal_number_of_another_session_releases_nothing,
    registering_again_replaces_the_own_row_and_nobody,
    whom_a_session_replaced_is_named_again_when_it_is_registered_again,
    re_registrations_count_after_connect_numbers,
    a_session_that_replaces_its_successor_is_not_told_of_itself,
    devices_and_users_do_not_touch_each_other,
    the_last_route_that_is_released_leaves_a_last_seen_time,
    users_with_routes_are_listed_in_order_page_by_page,
    a_lease_is_renewed_by_raising_its_counter,
    a_late_renewal_lowers_nothing,
    registrations_and_releases_at_once_leave_no_route_that_was_released,
    of_equal_numbers_at_once_exactly_one_is_in_force,
    the_highest_number_wins_whatever_comes_with_it_at_once,
    users_are_listed_while_others_come_and_go;
    settled:
    a_clean_up_of_the_last_route_forgets_the_last_seen_time,
    a_lease_that_was_taken_over_is_lost_to_who_had_it,
    a_lease_is_forgotten_only_as_it_was_seen,
    a_user_s_routes_and_the_nodes_have_a_limit_that_stops_no_successor,
    many_registrations_at_once_leave_the_highest_number
);

async fn routes(engine: &Engine, name: &str) -> Vec<Route> {
    let mut rows = engine.lookup(&[user(name)]).await.unwrap();
    rows.remove(0).routes
}

async fn register(engine: &Engine, route: &Route) -> Registered {
    engine.register(route).await.unwrap()
}

async fn release(engine: &Engine, route: &Route) -> bool {
    engine.release(route, AT).await.unwrap()
}

async fn a_registered_route_is_found_and_a_released_one_is_not(engine: Engine) {
    let route = route("alice", "phone", 1);
    assert_eq!(register(&engine, &route).await, IN_FORCE);
    assert_eq!(routes(&engine, "alice").await, std::slice::from_ref(&route));
    assert!(release(&engine, &route).await);
    assert!(!release(&engine, &route).await);
    assert_eq!(routes(&engine, "alice").await, []);
}

async fn a_higher_number_replaces_and_names_who_was_replaced(engine: Engine) {
    let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
    register(&engine, &old).await;
    let replaced = vec![old];
    assert_eq!(
        register(&engine, &new).await,
        Registered::InForce { replaced }
    );
    assert_eq!(routes(&engine, "alice").await, [new]);
}

async fn a_late_registration_does_not_replace_its_successor(engine: Engine) {
    let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
    register(&engine, &new).await;
    assert_eq!(register(&engine, &old).await, Registered::Superseded);
    assert_eq!(routes(&engine, "alice").await, [new]);
}

async fn a_late_release_does_not_remove_its_successor(engine: Engine) {
    let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
    register(&engine, &old).await;
    register(&engine, &new).await;
    assert!(!release(&engine, &old).await);
    assert_eq!(routes(&engine, "alice").await, [new]);
}

async fn a_late_clean_up_does_not_remove_its_successor(engine: Engine) {
    let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
    register(&engine, &old).await;
    register(&engine, &new).await;
    assert!(!engine.remove(&old).await.unwrap());
    assert_eq!(routes(&engine, "alice").await, [new]);
}

async fn a_released_session_cannot_come_back(engine: Engine) {
    let (older, route) = (route("alice", "phone", 1), route("alice", "phone", 2));
    register(&engine, &route).await;
    release(&engine, &route).await;
    assert_eq!(register(&engine, &route).await, Registered::Superseded);
    assert_eq!(register(&engine, &older).await, Registered::Superseded);
    assert_eq!(routes(&engine, "alice").await, []);
}

async fn a_release_that_overtakes_its_registration_wins(engine: Engine) {
    let (route, next) = (route("alice", "phone", 1), route("alice", "phone", 2));
    assert!(!release(&engine, &route).await);
    assert_eq!(register(&engine, &route).await, Registered::Superseded);
    assert_eq!(register(&engine, &next).await, IN_FORCE);
}

async fn a_release_removes_what_has_a_lower_number(engine: Engine) {
    let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
    register(&engine, &old).await;
    assert!(release(&engine, &new).await);
    assert_eq!(routes(&engine, "alice").await, []);
    assert_eq!(register(&engine, &new).await, Registered::Superseded);
    // And a late release of the older one does not lower the number.
    assert!(!release(&engine, &old).await);
    assert_eq!(register(&engine, &new).await, Registered::Superseded);
}

async fn a_cleaned_up_session_comes_back_only_with_a_higher_number(engine: Engine) {
    let route = route("alice", "phone", 1);
    register(&engine, &route).await;
    assert!(engine.remove(&route).await.unwrap());
    assert!(!engine.remove(&route).await.unwrap());
    assert_eq!(register(&engine, &route).await, Registered::Superseded);
    let again = registered_again(&route, 1);
    assert_eq!(register(&engine, &again).await, IN_FORCE);
    assert_eq!(routes(&engine, "alice").await, [again]);
}

async fn a_clean_up_by_an_older_number_leaves_a_session_that_registered_again(engine: Engine) {
    let route = route("alice", "phone", 1);
    let again = registered_again(&route, 1);
    register(&engine, &route).await;
    register(&engine, &again).await;
    assert!(!engine.remove(&route).await.unwrap());
    assert!(!release(&engine, &route).await);
    assert_eq!(routes(&engine, "alice").await, [again]);
}

async fn registering_the_same_route_again_changes_nothing_and_names_who_was_replaced_again(
    engine: Engine,
) {
    let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
    assert_eq!(register(&engine, &old).await, IN_FORCE);
    assert_eq!(register(&engine, &old).await, IN_FORCE);
    let replaced = vec![old];
    for _ in 0..3 {
        let replaced = replaced.clone();
        assert_eq!(
            register(&engine, &new).await,
            Registered::InForce { replaced }
        );
    }
    assert_eq!(routes(&engine, "alice").await, [new]);
}

async fn an_equal_number_of_another_session_is_superseded(engine: Engine) {
    let (held, other) = rivals();
    register(&engine, &held).await;
    assert_eq!(register(&engine, &other).await, Registered::Superseded);
    assert_eq!(routes(&engine, "alice").await, [held]);
}

async fn an_equal_number_of_another_session_releases_nothing(engine: Engine) {
    let (held, other) = rivals();
    register(&engine, &held).await;
    assert!(!release(&engine, &other).await);
    assert!(!engine.remove(&other).await.unwrap());
    assert_eq!(routes(&engine, "alice").await, [held]);
}

fn rivals() -> (Route, Route) {
    let held = route("alice", "phone", 1);
    let session = duologue_proto::ids::SessionId::parse("another").unwrap();
    let other = Route {
        session,
        ..held.clone()
    };
    (held, other)
}

async fn registering_again_replaces_the_own_row_and_nobody(engine: Engine) {
    let route = route("alice", "phone", 1);
    let again = registered_again(&route, 1);
    register(&engine, &route).await;
    assert_eq!(register(&engine, &again).await, IN_FORCE);
    assert_eq!(routes(&engine, "alice").await, [again]);
    assert_eq!(register(&engine, &route).await, Registered::Superseded);
}

/// Its first registration may be without an answer.
async fn whom_a_session_replaced_is_named_again_when_it_is_registered_again(engine: Engine) {
    let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
    register(&engine, &old).await;
    register(&engine, &new).await;
    let replaced = vec![old.clone()];
    for registration in [1, 1, 4] {
        let (again, replaced) = (registered_again(&new, registration), replaced.clone());
        assert_eq!(
            register(&engine, &again).await,
            Registered::InForce { replaced }
        );
        assert_eq!(routes(&engine, "alice").await, [again]);
    }
    let later = registered_again(&route("alice", "phone", 3), 1);
    // It may have had no answer, and then nobody was told of the one before it.
    let replaced = vec![registered_again(&new, 4), old];
    assert_eq!(
        register(&engine, &later).await,
        Registered::InForce { replaced }
    );
}

async fn re_registrations_count_after_connect_numbers(engine: Engine) {
    let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
    let again = registered_again(&old, u32::MAX);
    register(&engine, &again).await;
    let replaced = vec![again.clone()];
    assert_eq!(
        register(&engine, &new).await,
        Registered::InForce { replaced }
    );
    assert_eq!(register(&engine, &again).await, Registered::Superseded);
}

async fn a_session_that_replaces_its_successor_is_not_told_of_itself(engine: Engine) {
    let first = route("alice", "phone", 1);
    let second = Route {
        session: SessionId::parse("another").unwrap(),
        ..registered_again(&first, 1)
    };
    register(&engine, &first).await;
    register(&engine, &second).await;
    let back = register(&engine, &registered_again(&first, 2)).await;
    let replaced = vec![second];
    assert_eq!(back, Registered::InForce { replaced });
}

async fn devices_and_users_do_not_touch_each_other(engine: Engine) {
    let phone = route("alice", "phone", 5);
    let (laptop, other) = (route("alice", "laptop", 1), route("bob", "phone", 1));
    for route in [&phone, &laptop, &other] {
        assert_eq!(register(&engine, route).await, IN_FORCE);
    }
    assert!(release(&engine, &phone).await);
    assert_eq!(routes(&engine, "alice").await, [laptop]);
    assert_eq!(routes(&engine, "bob").await, [other]);
}

async fn the_last_route_that_is_released_leaves_a_last_seen_time(engine: Engine) {
    let last_seen = || async { engine.lookup(&[user("alice")]).await.unwrap()[0].last_seen };
    let (phone, laptop) = (route("alice", "phone", 1), route("alice", "laptop", 1));
    register(&engine, &phone).await;
    register(&engine, &laptop).await;
    engine.release(&phone, UnixMillis(1)).await.unwrap();
    assert_eq!(last_seen().await, None);
    engine.release(&laptop, UnixMillis(2)).await.unwrap();
    assert_eq!(last_seen().await, Some(UnixMillis(2)));
    engine.release(&laptop, UnixMillis(3)).await.unwrap();
    assert_eq!(last_seen().await, Some(UnixMillis(2)));
}

async fn a_clean_up_of_the_last_route_forgets_the_last_seen_time(engine: Engine) {
    let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
    register(&engine, &old).await;
    release(&engine, &old).await;
    register(&engine, &new).await;
    engine.remove(&new).await.unwrap();
    let rows = engine.lookup(&[user("alice")]).await.unwrap();
    assert_eq!(rows[0].last_seen, None);
}

async fn users_with_routes_are_listed_in_order_page_by_page(engine: Engine) {
    for name in ["dora", "bob", "alice", "carol"] {
        register(&engine, &route(name, "phone", 1)).await;
    }
    register(&engine, &route("bob", "laptop", 1)).await;
    release(&engine, &route("carol", "phone", 1)).await;
    let first = engine.users(None, 2).await.unwrap();
    assert_eq!(first, [user("alice"), user("bob")]);
    let rest = engine.users(first.last(), 2).await.unwrap();
    assert_eq!(rest, [user("dora")]);
    assert_eq!(engine.users(rest.last(), 2).await.unwrap(), []);
    assert_eq!(engine.users(None, 0).await.unwrap(), []);
}

fn lease(node: &str, start: &str, counter: u64) -> Lease {
    Lease {
        node: NodeId::parse(node).unwrap(),
        incarnation: Incarnation::parse(start).unwrap(),
        address: format!("{node}:1"),
        counter,
    }
}

async fn a_lease_is_renewed_by_raising_its_counter(engine: Engine) {
    let (one, two) = (lease("n1", "a", 1), lease("n2", "a", 1));
    assert_eq!(engine.renew(&one).await, Ok(Renewed::Lost));
    engine.take(&two).await.unwrap();
    engine.take(&one).await.unwrap();
    let raised = lease("n1", "a", 2);
    assert_eq!(engine.renew(&raised).await, Ok(Renewed::InForce));
    assert_eq!(engine.leases().await.unwrap(), [raised, two]);
}

async fn a_late_renewal_lowers_nothing(engine: Engine) {
    engine.take(&lease("n1", "a", 1)).await.unwrap();
    let (late, raised) = (lease("n1", "a", 2), lease("n1", "a", 3));
    for renewal in [&raised, &late, &raised] {
        assert_eq!(engine.renew(renewal).await, Ok(Renewed::InForce));
        assert_eq!(
            engine.leases().await.unwrap(),
            std::slice::from_ref(&raised)
        );
    }
}

async fn a_lease_that_was_taken_over_is_lost_to_who_had_it(engine: Engine) {
    engine.take(&lease("n1", "a", 9)).await.unwrap();
    let taken = lease("n1", "b", 1);
    engine.take(&taken).await.unwrap();
    assert_eq!(engine.renew(&lease("n1", "a", 10)).await, Ok(Renewed::Lost));
    assert_eq!(engine.leases().await.unwrap(), [taken]);
}

async fn a_lease_is_forgotten_only_as_it_was_seen(engine: Engine) {
    let (seen, raised) = (lease("n1", "a", 1), lease("n1", "a", 2));
    engine.take(&seen).await.unwrap();
    engine.renew(&raised).await.unwrap();
    assert!(!engine.forget(&seen).await.unwrap());
    assert!(!engine.forget(&lease("n1", "b", 2)).await.unwrap());
    assert!(engine.forget(&raised).await.unwrap());
    assert_eq!(engine.renew(&raised).await, Ok(Renewed::Lost));
    assert_eq!(engine.leases().await.unwrap(), []);
}

async fn a_user_s_routes_and_the_nodes_have_a_limit_that_stops_no_successor(engine: Engine) {
    for number in 0..MAX_ROUTES_PER_USER {
        register(&engine, &route("alice", &format!("d{number}"), 1)).await;
    }
    let refused = engine.register(&route("alice", "more", 1)).await;
    assert_eq!(refused, Err(PresenceError::OfUser));
    let next = engine.register(&route("alice", "d0", 2)).await;
    let replaced = vec![route("alice", "d0", 1)];
    assert_eq!(next, Ok(Registered::InForce { replaced }));
    assert_eq!(register(&engine, &route("bob", "d0", 1)).await, IN_FORCE);
    for number in 0..MAX_NODES {
        let lease = lease(&format!("n{number}"), "a", 1);
        engine.take(&lease).await.unwrap();
    }
    assert!(engine.take(&lease("more", "a", 1)).await.is_err());
    assert_eq!(engine.take(&lease("n0", "b", 1)).await, Ok(()));
}

async fn many_registrations_at_once_leave_the_highest_number(engine: Engine) {
    /// So few that none waits for as long as a database has to answer: who learns only by
    /// another try that it was in force is told that it was replaced.
    const AT_ONCE: usize = 32;
    let mut tasks = JoinSet::new();
    let mut done = Vec::new();
    for number in 1..=200 {
        if tasks.len() == AT_ONCE {
            done.extend(tasks.join_next().await);
        }
        // 67 and 200 share no divisor: every number once, in no order.
        let (engine, route) = (engine.clone(), route("alice", "phone", number * 67 % 200));
        tasks.spawn(async move { (route.clone(), register(&engine, &route).await) });
    }
    done.extend(tasks.join_all().await.into_iter().map(Ok));
    let (mut in_force, mut replaced) = (BTreeSet::new(), BTreeSet::new());
    for done in done {
        let (route, registered) = done.unwrap();
        if let Registered::InForce { replaced: by } = registered {
            in_force.insert(route.number);
            replaced.extend(by.into_iter().map(|route| route.number));
        }
    }
    let held = routes(&engine, "alice").await;
    assert_eq!(held, [route("alice", "phone", 199)]);
    // Everyone who was in force is named, but the last.
    in_force.remove(&held[0].number);
    assert_eq!(in_force, replaced);
}

async fn the_highest_number_wins_whatever_comes_with_it_at_once(engine: Engine) {
    let mut tasks = JoinSet::new();
    for number in 1..40 {
        let route = route("alice", "phone", number * 17 % 40);
        let (registrar, other) = (engine.clone(), engine.clone());
        let same = route.clone();
        tasks.spawn(async move { _ = register(&registrar, &route).await });
        // Of the highest there is neither a release nor a clean-up.
        if same.number.connect < 39 {
            tasks.spawn(async move {
                if same.number.connect.is_multiple_of(2) {
                    release(&other, &same).await;
                } else {
                    other.remove(&same).await.unwrap();
                }
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(
        routes(&engine, "alice").await,
        [route("alice", "phone", 39)]
    );
    assert_eq!(engine.users(None, 9).await.unwrap(), [user("alice")]);
}

/// Whoever has a route in force is listed, however its other routes came and went.
async fn users_are_listed_while_others_come_and_go(engine: Engine) {
    let mut tasks = JoinSet::new();
    for number in 0..12 {
        let engine = engine.clone();
        tasks.spawn(async move {
            let name = format!("u{}", number % 4);
            for connect in 1..=4 {
                let route = route(&name, &format!("d{number}"), connect);
                register(&engine, &route).await;
                let listed = engine.users(None, 9).await.unwrap();
                assert!(listed.contains(&user(&name)), "{name}: {listed:?}");
                release(&engine, &route).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(engine.users(None, 9).await.unwrap(), []);
}

async fn registrations_and_releases_at_once_leave_no_route_that_was_released(engine: Engine) {
    let mut tasks = JoinSet::new();
    for number in 1..=100 {
        let route = route("alice", "phone", number);
        let (registrar, releaser) = (engine.clone(), engine.clone());
        let same = route.clone();
        tasks.spawn(async move { register(&registrar, &route).await != IN_FORCE });
        tasks.spawn(async move { release(&releaser, &same).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(routes(&engine, "alice").await, []);
}

async fn of_equal_numbers_at_once_exactly_one_is_in_force(engine: Engine) {
    let mut tasks = JoinSet::new();
    for session in 0..50 {
        let engine = engine.clone();
        let session = duologue_proto::ids::SessionId::parse(&format!("s{session}")).unwrap();
        let route = Route {
            session,
            ..route("alice", "phone", 1)
        };
        tasks.spawn(async move { (route.clone(), register(&engine, &route).await) });
    }
    let mut winners = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (route, registered) = done.unwrap();
        if registered != Registered::Superseded {
            winners.push(route);
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(routes(&engine, "alice").await, winners);
}

#[tokio::test(start_paused = true)]
async fn a_released_session_cannot_come_back_for_an_hour_and_then_costs_nothing() {
    let engine: Engine = Arc::new(MemoryDirectory::new());
    let route = route("alice", "phone", 1);
    register(&engine, &route).await;
    release(&engine, &route).await;
    let second = std::time::Duration::from_secs(1);
    tokio::time::advance(GONE_KEPT.saturating_sub(second)).await;
    assert_eq!(register(&engine, &route).await, Registered::Superseded);
    tokio::time::advance(second).await;
    assert_eq!(register(&engine, &route).await, IN_FORCE);
}

#[tokio::test]
async fn past_the_cap_the_oldest_gone_number_is_forgotten_and_no_other() {
    let engine: Engine = Arc::new(MemoryDirectory::new());
    for number in 0..=MAX_GONE_ROWS {
        release(&engine, &route("alice", &format!("d{number}"), 1)).await;
    }
    let first = register(&engine, &route("alice", "d0", 1)).await;
    let second = register(&engine, &route("alice", "d1", 1)).await;
    assert_eq!((first, second), (IN_FORCE, Registered::Superseded));
}

#[derive(Debug, Clone)]
enum Call {
    Register(Route),
    Release(Route),
    Remove(Route),
}

fn call() -> impl Strategy<Value = Call> {
    let route = (0u8..2, 0u8..2, 1u64..4, 0u32..3, 0u8..2).prop_map(
        |(name, device_number, connect, registration, session)| Route {
            number: ConnectNumber {
                connect,
                registration,
            },
            session: duologue_proto::ids::SessionId::parse(&format!("s{connect}-{session}"))
                .unwrap(),
            device: device(&format!("d{device_number}")),
            ..route(&format!("u{name}"), "any", 0)
        },
    );
    (route, 0u8..3).prop_map(|(route, kind)| match kind {
        0 => Call::Register(route),
        1 => Call::Release(route),
        _ => Call::Remove(route),
    })
}

/// One device by the words of the design: the highest number, and whose.
#[derive(Debug, Default, Clone)]
struct Row {
    number: Option<ConnectNumber>,
    held: Option<Route>,
    /// Of other sessions, by the one that is in force.
    replaced: Vec<Route>,
}

impl Row {
    fn apply(&mut self, call: &Call) -> Option<Registered> {
        let (Call::Register(route) | Call::Release(route) | Call::Remove(route)) = call;
        let own = self.held.as_ref() == Some(route);
        let takes_effect = self.number < Some(route.number);
        let before = self.held.clone();
        match call {
            Call::Register(_) if own => return Some(self.in_force()),
            Call::Register(_) if !takes_effect => return Some(Registered::Superseded),
            Call::Register(_) => {
                match before {
                    Some(before) if before.session == route.session => {}
                    Some(before) => {
                        self.replaced.insert(0, before);
                        self.replaced.truncate(MAX_REPLACED);
                    }
                    None => self.replaced.clear(),
                }
                self.held = Some(route.clone());
            }
            Call::Release(_) if !(takes_effect || own) => return None,
            Call::Remove(_) if !own => return None,
            Call::Release(_) | Call::Remove(_) => self.held = None,
        }
        self.number = Some(route.number);
        matches!(call, Call::Register(_)).then(|| self.in_force())
    }

    fn in_force(&self) -> Registered {
        let own = self.held.as_ref().map(|held| &held.session);
        let others = self.replaced.iter();
        let others = others.filter(|replaced| Some(&replaced.session) != own);
        Registered::InForce {
            replaced: others.cloned().collect(),
        }
    }
}

/// Applies calls to an engine and to the model, which must agree after each.
async fn agrees_with_the_model(engine: Engine, calls: Vec<Call>) -> Result<(), TestCaseError> {
    let mut rows: BTreeMap<_, Row> = BTreeMap::new();
    for call in calls {
        let (Call::Register(route) | Call::Release(route) | Call::Remove(route)) = &call;
        let row = rows
            .entry((route.user.clone(), route.device.clone()))
            .or_default();
        let held = row.held.is_some();
        let expected = row.apply(&call);
        let went = held && row.held.is_none();
        match &call {
            Call::Register(_) => {
                prop_assert_eq!(Some(register(&engine, route).await), expected);
            }
            Call::Release(_) => prop_assert_eq!(release(&engine, route).await, went),
            Call::Remove(_) => prop_assert_eq!(engine.remove(route).await.unwrap(), went),
        }
        let mut online = Vec::new();
        for name in ["u0", "u1"] {
            let of_user = rows.iter().filter(|((owner, _), _)| *owner == user(name));
            let expected: Vec<Route> = of_user.filter_map(|(_, row)| row.held.clone()).collect();
            prop_assert_eq!(&routes(&engine, name).await, &expected);
            online.extend((!expected.is_empty()).then(|| user(name)));
        }
        prop_assert_eq!(engine.users(None, 9).await.unwrap(), online);
    }
    Ok(())
}

fn paused() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #[test]
    fn any_calls_in_any_order_leave_what_the_rising_number_says(
        calls in prop::collection::vec(call(), 1..80),
    ) {
        paused().block_on(async {
            agrees_with_the_model(engines::memory(), calls).await
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_calls_to_dynamodb_leave_what_the_rising_number_says(
        calls in prop::collection::vec(call(), 1..40),
    ) {
        paused().block_on(async {
            agrees_with_the_model(engines::dynamodb().await, calls).await
        })?;
    }

    #[test]
    fn any_calls_to_a_failing_dynamodb_leave_what_the_rising_number_says(
        calls in prop::collection::vec(call(), 1..40),
        seed in any::<u64>(),
    ) {
        paused().block_on(async {
            agrees_with_the_model(engines::dynamodb_with_faults(seed).await, calls).await
        })?;
    }
}

/// Each fault that can be planted in the engine makes the test of its rule fail
/// (`docs/proof.md`).
#[cfg(feature = "faults")]
mod mutants {
    use duologue_runtime::caught;
    use duologue_runtime::faults::proof::{Caught, each_is_caught, the_table_says};

    use super::{dynamodb, memory};

    /// By one test per engine.
    macro_rules! by_both {
        ($($mutant:ident by $test:ident,)*) => {
            caught! {
                $(file!() => $mutant by memory::$test,
                file!() => $mutant by dynamodb::$test,)*
            }
        };
    }

    const CAUGHT: &[Caught] = by_both! {
        CleanUpBySession by a_clean_up_by_an_older_number_leaves_a_session_that_registered_again,
        LateRegistrationWins by a_late_registration_does_not_replace_its_successor,
        ReleaseJustDeletes by a_late_release_does_not_remove_its_successor,
        LowerConnectNumberWins by many_registrations_at_once_leave_the_highest_number,
    };

    #[test]
    fn every_planted_fault_fails_the_test_of_its_rule_which_passes_without_it() {
        each_is_caught(CAUGHT);
    }

    #[test]
    fn the_table_says_what_is_caught_here() {
        the_table_says("directory", CAUGHT);
    }
}
