//! The lease rules, against a model that keeps every read and judges from all
//! of them, and the promises that follow from the rules.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use duologue_presence::directory::{Lease, Renewed};
use duologue_presence::lease::{
    FADES_AFTER, Liveness, Observer, POLL_INTERVAL, READS_APART, REPLACED_GRACE,
};
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

/// Whether nothing is known of the time before a read of the record.
fn after_gap(record: &[Shown], index: usize) -> bool {
    let Some(before) = index.checked_sub(1) else {
        return true;
    };
    let apart = record[index]
        .read
        .began
        .saturating_duration_since(record[before].read.ended);
    apart > READS_APART
}

/// The unbroken run of reads, up to one of the record, that show the incarnation that
/// it shows.
fn run(record: &[Shown], last: usize) -> std::ops::RangeInclusive<usize> {
    let shown = |index: usize| record[index].lease.map(|(start, _)| start);
    let mut first = last;
    while first > 0 && shown(first - 1) == shown(last) {
        first -= 1;
    }
    first..=last
}

/// When the rest of the counter that a read shows began to count.
fn rest_began(record: &[Shown], last: usize) -> Instant {
    let mut first = last;
    let start = *run(record, last).start();
    while first > start
        && record[first - 1].lease == record[last].lease
        && !after_gap(record, first)
    {
        first -= 1;
    }
    record[first].read.ended
}

/// Whether the counter that a read shows rested, as far as any of the reads before proves.
fn rested(record: &[Shown], last: usize) -> bool {
    run(record, last)
        .rev()
        .take_while(|index| record[*index].lease == record[last].lease)
        .any(|index| {
            let rest = record[index].read.began;
            rest.saturating_duration_since(rest_began(record, index)) >= DEAD_AFTER
        })
}

/// The last read that shows what was before the incarnation that a read shows.
fn before(record: &[Shown], last: usize) -> Option<usize> {
    let before = run(record, last).start().checked_sub(1)?;
    record[before].lease.map(|_| before)
}

/// From when on an incarnation is dead that was replaced lately, by others up to the one
/// that a read shows.
fn replaced_over_at(record: &[Shown], last: usize, start: u8) -> Option<Instant> {
    let before = before(record, last)?;
    let read = record[before + 1].read;
    if record[before].lease.map(|(shown, _)| shown) != Some(start) {
        let over = replaced_over_at(record, before, start);
        return over.filter(|over| *over > read.began);
    }
    let grace = read.ended + REPLACED_GRACE;
    Some(if rested(record, before) {
        read.began
    } else if after_gap(record, before + 1) {
        grace
    } else {
        grace.min(rest_began(record, before) + DEAD_AFTER)
    })
}

/// The same of one that was never seen.
fn others_over_at(record: &[Shown], last: usize) -> Instant {
    let first = *run(record, last).start();
    let read = record[first].read;
    match before(record, last) {
        _ if after_gap(record, first) => read.ended + REPLACED_GRACE,
        None => read.began,
        Some(before) => others_over_at(record, before),
    }
}

/// Judges from the whole record, by the words of the design.
fn model(record: &[Shown], start: u8, row_read_at: Instant, now: Instant) -> Liveness {
    let Some(last) = record.len().checked_sub(1) else {
        return Liveness::Unknown;
    };
    let read = record[last].read;
    match record[last].lease {
        Some((seen, _)) if seen == start => {}
        shown => {
            let over = shown.is_none() || {
                let over = replaced_over_at(record, last, start);
                read.began >= over.unwrap_or_else(|| others_over_at(record, last))
            };
            return if over && read.began >= row_read_at {
                Liveness::Dead
            } else {
                Liveness::Unknown
            };
        }
    }
    if rested(record, last) {
        return Liveness::Dead;
    }
    // It lived for certain when the last read that showed less was sent.
    let mut run = run(record, last).rev();
    let lived = run.find(|index| record[*index].lease < record[last].lease);
    let fresh = |at| now.saturating_duration_since(at) <= FADES_AFTER;
    if lived.is_some_and(|index| fresh(record[index].read.began)) {
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
        let reads = [0, 2, 6, 9, last].map(|at| (at, lease(0, at.min(2))));
        let observer = observed(start, &reads);
        observer.liveness(&node(), &incarnation(0), start, start + secs(last))
    };
    assert_eq!((at(11), at(12)), (Liveness::Alive, Liveness::Dead));
}

#[test]
fn rest_that_no_read_has_seen_is_not_counted() {
    let start = Instant::now();
    let at = |reads: &[u64], counter| {
        let mut shown = vec![(0, lease(0, 1)), (2, lease(0, 2))];
        shown.extend(reads.iter().map(|at| (*at, lease(0, counter))));
        let last = start + secs(*reads.last().unwrap());
        observed(start, &shown).liveness(&node(), &incarnation(0), start, last)
    };
    // A minute without reads, after which the node renews as ever, or does not.
    assert_eq!(at(&[62], 2), Liveness::Unknown);
    assert_eq!(at(&[62, 64], 2), Liveness::Unknown);
    assert_eq!(at(&[62, 66, 70, 71], 2), Liveness::Unknown);
    assert_eq!(at(&[62, 66, 70, 72], 2), Liveness::Dead);
    let renewed = [(62, lease(0, 2)), (64, lease(0, 3))];
    let observer = observed(start, &renewed);
    let liveness = observer.liveness(&node(), &incarnation(0), start, start + secs(64));
    assert_eq!(liveness, Liveness::Alive);
    // What was dead before stays so.
    assert_eq!(at(&[6, 9, 12, 62], 2), Liveness::Dead);
}

#[test]
fn a_new_incarnation_must_itself_be_seen_to_move_and_ends_the_old_one_a_little_later() {
    let start = Instant::now();
    let mut reads = vec![(0, lease(0, 1)), (2, lease(0, 2)), (4, lease(1, 9))];
    let at = |reads: &[(u64, Lease)]| {
        let now = start + secs(reads.last().unwrap().0);
        let observer = observed(start, reads);
        [0, 1].map(|number| observer.liveness(&node(), &incarnation(number), start, now))
    };
    assert_eq!(at(&reads), [Liveness::Unknown, Liveness::Unknown]);
    reads.push((8, lease(1, 10)));
    assert_eq!(at(&reads), [Liveness::Unknown, Liveness::Alive]);
    reads.push((9, lease(1, 10)));
    assert_eq!(at(&reads), [Liveness::Dead, Liveness::Alive]);
}

#[test]
fn a_node_that_starts_again_and_again_does_not_keep_its_first_start_from_being_dead() {
    let start = Instant::now();
    let starts = [(2, 0), (4, 1), (7, 2), (9, 3)];
    let reads = starts.map(|(at, number)| (at, lease(number, at)));
    let observer = observed(start, &reads);
    let now = start + secs(9);
    let first = observer.liveness(&node(), &incarnation(0), start, now);
    assert_eq!(first, Liveness::Dead);
}

#[test]
fn a_start_whose_end_was_late_to_be_seen_has_no_longer_than_ten_seconds_in_all() {
    let start = Instant::now();
    let reads = [(0, 1), (2, 2), (6, 2), (9, 2)].map(|(at, counter)| (at, lease(0, counter)));
    let mut reads = reads.to_vec();
    reads.push((11, lease(1, 1)));
    let liveness = |reads: &[(u64, Lease)], at| {
        observed(start, reads).liveness(&node(), &incarnation(0), start, start + secs(at))
    };
    assert_eq!(liveness(&reads, 11), Liveness::Unknown);
    reads.push((12, lease(1, 1)));
    assert_eq!(liveness(&reads, 12), Liveness::Dead);
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
    // Whoever was told that it is lost has gone on from there.
    let mut seen = Holder::new(lease(0, 1), start);
    assert!(seen.is_lost(start + secs(10)));
    seen.answered(read_at(start, secs(8), secs(1)), Renewed::InForce);
    assert!(seen.is_lost(start + secs(10)));
    let mut held = Holder::new(lease(0, 1), start);
    held.answered(
        read_at(start, secs(9), Duration::from_millis(900)),
        Renewed::InForce,
    );
    assert!(!held.is_lost(start + secs(18)));
    assert!(held.is_lost(start + secs(19)));
}
