//! The lease rules, against a model that keeps every read and judges from all
//! of them, and the promises that follow from the rules.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use duologue_presence::directory::{Lease, Renewed};
use duologue_presence::lease::{FADES_AFTER, Liveness, Observer, POLL_INTERVAL};
use duologue_proto::ids::{Incarnation, NodeId};
use duologue_runtime::lease::{DEAD_AFTER, Holder, RENEW_INTERVAL, ReadTime};
use proptest::prelude::*;
use tokio::time::Instant;

fn node() -> NodeId {
    NodeId::parse("n1").unwrap()
}

fn incarnation(number: u8) -> Incarnation {
    Incarnation::parse(&format!("i{number}")).unwrap()
}

fn lease(start: u8, counter: u64) -> Lease {
    Lease {
        node: node(),
        incarnation: incarnation(start),
        address: "127.0.0.1:1".to_owned(),
        counter,
    }
}

fn read_at(start: Instant, began: Duration, took: Duration) -> ReadTime {
    ReadTime {
        began: start + began,
        ended: start + began + took,
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// One successful read: when, and what it showed of the node.
#[derive(Debug, Clone)]
struct Shown {
    read: ReadTime,
    lease: Option<(u8, u64)>,
}

/// Judges from the whole record, by the words of the design.
fn model(record: &[Shown], start: u8, row_read_at: Instant, now: Instant) -> Liveness {
    // The unbroken run of reads, up to the last, that show this incarnation.
    let run: Vec<(ReadTime, u64)> = record
        .iter()
        .rev()
        .map_while(|shown| match shown.lease {
            Some((seen, counter)) if seen == start => Some((shown.read, counter)),
            Some(_) | None => None,
        })
        .collect();
    let Some((last_read, last_counter)) = run.first().copied() else {
        let judged = record
            .last()
            .is_some_and(|last| last.read.began >= row_read_at);
        return if judged {
            Liveness::Dead
        } else {
            Liveness::Unknown
        };
    };
    let same = run
        .iter()
        .take_while(|(_, counter)| *counter == last_counter);
    let rest_began = same.last().map_or(last_read.ended, |(read, _)| read.ended);
    if last_read.began.saturating_duration_since(rest_began) >= DEAD_AFTER {
        return Liveness::Dead;
    }
    // It lived for certain when the last read that showed less was sent.
    let lived = run.iter().find(|(_, counter)| *counter < last_counter);
    let fresh = |at| now.saturating_duration_since(at) <= FADES_AFTER;
    if lived.is_some_and(|(read, _)| fresh(read.began)) {
        Liveness::Alive
    } else {
        Liveness::Unknown
    }
}

#[derive(Debug, Clone)]
struct Step {
    pause_millis: u64,
    read_millis: u64,
    failed: bool,
    raise: u64,
    restart: bool,
    absent: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (
        prop_oneof![4 => 1_500u64..2_500, 1 => 0u64..15_000],
        prop_oneof![4 => 0u64..100, 1 => 0u64..6_000],
        prop::bool::weighted(0.2),
        prop_oneof![3 => Just(0u64), 2 => 1u64..3],
        prop::bool::weighted(0.05),
        prop::bool::weighted(0.03),
    )
        .prop_map(
            |(pause_millis, read_millis, failed, raise, restart, absent)| Step {
                pause_millis,
                read_millis,
                failed,
                raise,
                restart,
                absent,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_observer_judges_as_one_who_remembers_every_read(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let start = Instant::now();
        let (mut observer, mut record) = (Observer::default(), Vec::new());
        let (mut clock, mut current, mut counter) = (Duration::ZERO, 0u8, 1u64);
        for step in steps {
            let row_read_at = start + clock;
            clock += Duration::from_millis(step.pause_millis);
            counter += step.raise;
            if step.restart {
                (current, counter) = (current + 1, 1);
            }
            let read = read_at(start, clock, Duration::from_millis(step.read_millis));
            clock += Duration::from_millis(step.read_millis);
            if !step.failed {
                let shown = (!step.absent).then_some((current, counter));
                let leases: Vec<Lease> = shown.map(|(start, counter)| lease(start, counter)).into_iter().collect();
                observer.observe(read, &leases);
                record.push(Shown { read, lease: shown });
            }
            for probe in [Duration::ZERO, secs(3), secs(11), secs(20)] {
                for incarnation_number in [current.saturating_sub(1), current, current + 1] {
                    for row in [row_read_at, start + clock] {
                        let now = start + clock + probe;
                        prop_assert_eq!(
                            observer.liveness(&node(), &incarnation(incarnation_number), row, now),
                            model(&record, incarnation_number, row, now)
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_node_that_renews_in_time_is_never_called_dead_and_is_soon_known_to_live(
        pauses in prop::collection::vec((0u64..1_900, 0u64..200), 2..100),
    ) {
        // The counter is raised exactly every 2 s; reads come and last as they like.
        let start = Instant::now();
        let mut observer = Observer::default();
        let (mut clock, mut first_read) = (Duration::ZERO, None);
        for (pause, took) in pauses {
            clock += Duration::from_millis(pause);
            let raised = u64::try_from(clock.as_millis() / RENEW_INTERVAL.as_millis()).unwrap();
            let read = read_at(start, clock, Duration::from_millis(took));
            clock += Duration::from_millis(took);
            observer.observe(read, &[lease(0, raised)]);
            let first = *first_read.get_or_insert(clock);
            let liveness = observer.liveness(&node(), &incarnation(0), start, start + clock);
            prop_assert_ne!(liveness, Liveness::Dead);
            if clock >= first + RENEW_INTERVAL + POLL_INTERVAL {
                prop_assert_eq!(liveness, Liveness::Alive);
            }
        }
    }

    #[test]
    fn fifteen_seconds_after_a_kill_a_node_is_not_alive_whichever_reads_fail(
        killed_millis in 10_000u64..20_000,
        phase_millis in 0u64..2_000,
        failures in prop::collection::vec(any::<bool>(), 20),
    ) {
        let start = Instant::now();
        let killed = Duration::from_millis(killed_millis);
        let mut observer = Observer::default();
        for (poll, failed) in (0u32..).zip(failures) {
            let began = POLL_INTERVAL * poll + Duration::from_millis(phase_millis);
            let raised = u64::try_from(
                began.min(killed).as_millis() / RENEW_INTERVAL.as_millis(),
            )
            .unwrap();
            if !failed {
                observer.observe(read_at(start, began, Duration::from_millis(50)), &[lease(0, raised)]);
            }
            for offset in [100, 1_000, 1_999] {
                let now = began + Duration::from_millis(offset);
                if now >= killed + secs(15) {
                    let liveness = observer.liveness(&node(), &incarnation(0), start, start + now);
                    prop_assert_ne!(liveness, Liveness::Alive);
                }
            }
        }
    }

    #[test]
    fn no_observer_calls_a_lease_dead_that_its_holder_still_counts_on(
        renewals in prop::collection::vec((0u64..9_000, 0u64..9_000, 0u64..=100), 1..20),
        poll_millis in 100u64..2_500,
    ) {
        // Renewals of any length, taking effect anywhere between their ends,
        // until the holder gives up; the observer polls throughout.
        let start = Instant::now();
        let mut holder = Holder::new(lease(0, 1), start);
        let mut clock = Duration::ZERO;
        let mut effects = vec![(Duration::ZERO, 1u64)];
        let mut given_up = None;
        for (pause, took, effect_percent) in renewals {
            let before = clock;
            clock += Duration::from_millis(pause);
            let counter = holder.renewal().counter;
            let effect = clock + Duration::from_millis(took * effect_percent / 100);
            let renewal = read_at(start, clock, Duration::from_millis(took));
            effects.push((effect, counter));
            // It is lost as soon as time says so, not when it is asked.
            let quiet = (0..=took + pause).map(Duration::from_millis);
            if let Some(at) = quiet.map(|offset| before + offset).find(|at| holder.is_lost(start + *at)) {
                given_up = Some(at);
                break;
            }
            clock += Duration::from_millis(took);
            holder.answered(renewal, Renewed::InForce);
            prop_assert!(!holder.is_lost(renewal.ended));
        }
        let until = given_up.unwrap_or(clock);
        let mut observer = Observer::default();
        let mut poll = Duration::ZERO;
        while poll < until {
            let counter = effects.iter().filter(|(at, _)| *at <= poll).map(|(_, counter)| *counter).max().unwrap();
            observer.observe(read_at(start, poll, Duration::ZERO), &[lease(0, counter)]);
            let liveness = observer.liveness(&node(), &incarnation(0), start, start + poll);
            prop_assert_ne!(liveness, Liveness::Dead, "at {:?}", poll);
            poll += Duration::from_millis(poll_millis);
        }
    }
}

fn observed(start: Instant, reads: &[(u64, Lease)]) -> Observer {
    let mut observer = Observer::default();
    for (at, lease) in reads {
        let read = read_at(start, secs(*at), Duration::ZERO);
        observer.observe(read, std::slice::from_ref(lease));
    }
    observer
}

#[test]
fn a_node_is_unknown_until_its_counter_was_seen_to_move() {
    let start = Instant::now();
    let once = observed(start, &[(0, lease(0, 7)), (2, lease(0, 7))]);
    let twice = observed(start, &[(0, lease(0, 7)), (2, lease(0, 8))]);
    let now = start + secs(2);
    let of = |observer: &Observer| observer.liveness(&node(), &incarnation(0), start, now);
    assert_eq!(
        (of(&once), of(&twice)),
        (Liveness::Unknown, Liveness::Alive)
    );
}

#[test]
fn time_alone_never_calls_a_node_dead() {
    let start = Instant::now();
    let observer = observed(start, &[(0, lease(0, 1)), (2, lease(0, 2))]);
    let later = start + secs(3_600);
    let liveness = observer.liveness(&node(), &incarnation(0), start, later);
    assert_eq!(liveness, Liveness::Unknown);
}

#[test]
fn a_counter_that_rested_ten_seconds_is_dead_and_one_that_rested_less_is_not() {
    let start = Instant::now();
    let at = |last| {
        let reads = [(0, lease(0, 1)), (2, lease(0, 2)), (last, lease(0, 2))];
        let observer = observed(start, &reads);
        observer.liveness(&node(), &incarnation(0), start, start + secs(last))
    };
    assert_eq!((at(11), at(12)), (Liveness::Alive, Liveness::Dead));
}

#[test]
fn a_new_incarnation_ends_the_old_one_and_must_itself_be_seen_to_move() {
    let start = Instant::now();
    let observer = observed(
        start,
        &[(0, lease(0, 1)), (2, lease(0, 2)), (4, lease(1, 9))],
    );
    let of = |number| observer.liveness(&node(), &incarnation(number), start, start + secs(4));
    assert_eq!((of(0), of(1)), (Liveness::Dead, Liveness::Unknown));
}

#[test]
fn an_incarnation_newer_than_the_last_read_is_unknown_and_not_dead() {
    let start = Instant::now();
    let observer = observed(start, &[(0, lease(0, 1)), (2, lease(0, 2))]);
    let row_read_at = start + secs(3);
    let liveness = observer.liveness(&node(), &incarnation(1), row_read_at, row_read_at);
    assert_eq!(liveness, Liveness::Unknown);
    assert!(observer.is_unfamiliar(&node(), &incarnation(1)));
    assert!(!observer.is_unfamiliar(&node(), &incarnation(0)));
}

#[test]
fn a_read_that_was_overtaken_changes_nothing() {
    let start = Instant::now();
    let mut observer = observed(
        start,
        &[(0, lease(0, 1)), (4, lease(1, 2)), (6, lease(1, 3))],
    );
    let slow = read_at(start, secs(1), secs(6));
    observer.observe(slow, &[lease(0, 1)]);
    let liveness = observer.liveness(&node(), &incarnation(1), start, start + secs(7));
    assert_eq!(liveness, Liveness::Alive);
}

#[test]
fn a_lease_that_was_answered_lost_or_confirmed_too_late_stays_lost() {
    let start = Instant::now();
    let mut refused = Holder::new(lease(0, 1), start);
    refused.answered(read_at(start, secs(2), secs(0)), Renewed::Lost);
    assert!(refused.is_lost(start + secs(2)));
    let mut late = Holder::new(lease(0, 1), start);
    late.answered(read_at(start, secs(9), secs(2)), Renewed::InForce);
    assert!(late.is_lost(start + secs(11)));
    let mut held = Holder::new(lease(0, 1), start);
    held.answered(
        read_at(start, secs(9), Duration::from_millis(900)),
        Renewed::InForce,
    );
    assert!(!held.is_lost(start + secs(18)));
    assert!(held.is_lost(start + secs(19)));
}
