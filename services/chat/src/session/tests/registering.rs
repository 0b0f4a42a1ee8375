//! A session whose node takes a new incarnation, or asks it to confirm its route.

use duologue_proto::presence::Route;
use proptest::prelude::*;

use super::*;
use crate::session::RETRY_PAUSE;

fn incarnation(number: usize) -> Incarnation {
    Incarnation::parse(&format!("i{number}")).unwrap()
}

fn registrations(effects: &[Effect]) -> Vec<Route> {
    let routes = effects.iter().filter_map(|effect| match effect {
        Effect::Register(route) => Some((**route).clone()),
        _ => None,
    });
    routes.collect()
}

fn in_force() -> Input {
    Input::Registered(Ok(Registered::InForce {
        replaced: Vec::new(),
    }))
}

fn syncs(effects: &[Effect]) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::Sync(_)))
}

#[test]
fn under_a_new_incarnation_the_session_registers_with_a_higher_number_and_then_syncs() {
    let mut driven = Driven::live(&[]);
    let again = Input::RegisterAgain(Some(incarnation(2)), Duration::from_secs(2));
    assert_eq!(registrations(&driven.give([again])), []);
    let effects = driven.after(Duration::from_secs(2));
    let routes = registrations(&effects);
    assert_eq!(routes.len(), 1);
    assert_eq!(routes[0].incarnation, incarnation(2));
    assert_eq!(routes[0].number.registration, 1);
    assert!(!syncs(&effects), "it is not confirmed");
    assert!(syncs(&driven.give([in_force()])));
}

#[test]
fn a_session_that_is_asked_to_confirm_may_find_that_it_was_superseded() {
    let mut driven = Driven::live(&[]);
    let effects = driven.give([Input::RegisterAgain(None, Duration::ZERO)]);
    assert_eq!(registrations(&effects)[0].number.registration, 1);
    let effects = driven.give([Input::Registered(Ok(Registered::Superseded))]);
    assert_eq!(goodbye(&effects), Some(GoodbyeReason::Superseded));
}

#[test]
fn every_try_has_a_number_of_its_own_since_a_clean_up_may_have_gone_by_the_last() {
    let unavailable = || PresenceError::Unavailable { retry_after: None };
    let mut driven = Driven::new();
    let mut sent = registrations(&driven.give([Input::Up(0, Up::Hello(Ok(Box::default())))]));
    for _ in 0..3 {
        driven.give([Input::Registered(Err(unavailable()))]);
        sent.extend(registrations(&driven.after(2 * RETRY_PAUSE)));
    }
    driven.give([in_force()]);
    let confirm = Input::RegisterAgain(None, Duration::ZERO);
    sent.extend(registrations(&driven.give([confirm])));
    let numbers = sent.iter().map(|route| route.number.registration);
    assert_eq!(numbers.collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn tries_to_register_are_spread_between_the_pause_and_its_double() {
    let (mut soonest, mut latest) = (Duration::MAX, Duration::ZERO);
    let mut driven = Driven::live(&[]);
    driven.give([Input::RegisterAgain(None, Duration::ZERO)]);
    for _ in 0..200 {
        let unavailable = PresenceError::Unavailable { retry_after: None };
        driven.give([Input::Registered(Err(unavailable))]);
        let due = driven.session.register_due.unwrap() - driven.now.instant;
        (soonest, latest) = (soonest.min(due), latest.max(due));
        assert_eq!(registrations(&driven.after(due)).len(), 1);
    }
    assert!(soonest >= RETRY_PAUSE && soonest < RETRY_PAUSE * 11 / 10);
    assert!(latest <= RETRY_PAUSE * 2 && latest > RETRY_PAUSE * 19 / 10);
}

#[test]
fn every_sync_by_the_clock_confirms_the_route_first_and_is_made_even_if_that_fails() {
    for ok in [true, false] {
        let mut driven = Driven::live(&[]);
        let effects = driven.after(Duration::from_mins(12));
        assert_eq!(registrations(&effects)[0].number.registration, 1);
        assert!(!syncs(&effects));
        let unavailable = PresenceError::Unavailable { retry_after: None };
        let failed = Input::Registered(Err(unavailable));
        assert!(syncs(&driven.give([if ok { in_force() } else { failed }])));
        let effects = driven.give([Input::Synced(Ok(page(&[])))]);
        assert!(matches!(
            pushed(&effects).as_slice(),
            [Down::CaughtUp { .. }]
        ));
        // Once is enough, until the next is due or the route comes in force late.
        let next = driven.after(2 * RETRY_PAUSE);
        assert_eq!(
            (registrations(&next).len(), syncs(&next)),
            (usize::from(!ok), false)
        );
    }
}

#[derive(Debug, Clone)]
enum Step {
    NewIncarnation(u64),
    Confirm,
    Answer(bool),
    Time(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..4_000u64).prop_map(Step::NewIncarnation),
        1 => Just(Step::Confirm),
        3 => any::<bool>().prop_map(Step::Answer),
        3 => (1..3_000u64).prop_map(Step::Time),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn one_registration_at_a_time_and_in_the_end_the_last_incarnation_is_in_force(
        steps in steps(),
    ) {
        let mut driven = Driven::new();
        let (mut last, mut sent, mut under_way) = (1, Vec::new(), 0);
        let mut effects = driven.give([Input::Up(0, Up::Hello(Ok(Box::default())))]);
        for step in steps.into_iter().map(Some).chain([const { None }; 20]) {
            let registered = registrations(&effects);
            under_way += registered.len();
            prop_assert!(under_way <= 1, "two at a time");
            sent.extend(registered);
            // Else its task would turn and turn.
            let due = driven.session.next_deadline();
            prop_assert!(due.is_none_or(|due| due > driven.now.instant));
            effects = match step {
                Some(Step::NewIncarnation(millis)) => {
                    last += 1;
                    let delay = Duration::from_millis(millis);
                    driven.give([Input::RegisterAgain(Some(incarnation(last)), delay)])
                }
                Some(Step::Confirm) => driven.give([Input::RegisterAgain(None, Duration::ZERO)]),
                Some(Step::Time(millis)) => driven.after(Duration::from_millis(millis)),
                Some(Step::Answer(ok)) if under_way > 0 => {
                    under_way = 0;
                    let unavailable = PresenceError::Unavailable { retry_after: None };
                    let failed = Input::Registered(Err(unavailable));
                    driven.give([if ok { in_force() } else { failed }])
                }
                None if under_way > 0 => {
                    under_way = 0;
                    driven.give([in_force()])
                }
                Some(Step::Answer(_)) | None => driven.after(Duration::from_millis(500)),
            };
        }
        prop_assert_eq!(&sent.last().unwrap().incarnation, &incarnation(last));
        for pair in sent.windows(2) {
            prop_assert!(pair[0].number < pair[1].number);
        }
    }
}
