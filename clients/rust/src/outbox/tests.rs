//! Rules of order and of `after_seq`, one by one.

use super::*;

const NOW: Duration = Duration::from_secs(1);

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn id(number: usize) -> MessageId {
    MessageId::parse(&format!("m-{number}")).unwrap()
}

fn outbox(messages: usize) -> Outbox {
    let mut outbox = Outbox::default();
    for number in 1..=messages {
        outbox.push(&user("bob"), id(number), Seq::ZERO, "text".into(), false);
    }
    outbox
}

fn next(outbox: &mut Outbox, now: Duration) -> Option<MessageId> {
    let ready = outbox.is_ready(now);
    let next = outbox.next(now, |_| Seq(9)).map(|(_, pending)| pending.id);
    assert_eq!(ready, next.is_some());
    next
}

#[test]
fn a_deferred_message_goes_again_before_those_behind_it_and_alone() {
    let mut outbox = outbox(3);
    assert_eq!(next(&mut outbox, NOW), Some(id(1)));
    assert_eq!(next(&mut outbox, NOW), Some(id(2)));
    outbox.defer(&id(1), NOW + NOW);
    assert_eq!(next(&mut outbox, NOW + NOW), None, "2 is unanswered");
    outbox.defer(&id(2), NOW);
    assert_eq!(next(&mut outbox, NOW), None, "1 is held");
    assert_eq!(outbox.next_deadline(NOW), Some(NOW + NOW));
    assert_eq!(next(&mut outbox, NOW + NOW), Some(id(1)));
    assert_eq!(next(&mut outbox, NOW + NOW), None, "1 goes alone");
    outbox.settle(&id(1));
    assert_eq!(next(&mut outbox, NOW + NOW), Some(id(2)));
    assert_eq!(next(&mut outbox, NOW + NOW), Some(id(3)));
}

#[test]
fn nothing_overtakes_or_doubles_a_message_in_flight_when_an_earlier_one_is_deferred() {
    let mut outbox = outbox(4);
    for number in 1..=3 {
        assert_eq!(next(&mut outbox, NOW), Some(id(number)));
    }
    outbox.defer(&id(1), NOW);
    outbox.settle(&id(2));
    assert_eq!(next(&mut outbox, NOW), None, "3 is unanswered");
    outbox.settle(&id(3));
    assert_eq!(next(&mut outbox, NOW), Some(id(1)));
}

#[test]
fn after_seq_is_that_of_the_first_try_until_slots_are_seen() {
    let mut outbox = outbox(1);
    let known = |seq| move |_: &UserId| Seq(seq);
    let first = outbox.next(NOW, known(9)).unwrap().1;
    outbox.disconnected();
    let second = outbox.next(NOW, known(20)).unwrap().1;
    assert_eq!((first.after_seq, second.after_seq), (Seq(9), Seq(9)));
    assert!(outbox.saw(&user("bob"), Seq(11), Some(&id(7))).is_none());
    assert!(outbox.saw(&user("bob"), Seq(10), Some(&id(7))).is_none());
    outbox.disconnected();
    assert_eq!(outbox.next(NOW, known(20)).unwrap().1.after_seq, Seq(10));
    assert_eq!(
        outbox.saw(&user("bob"), Seq(11), Some(&id(1))).unwrap().id,
        id(1)
    );
    assert_eq!(outbox.len(), 0);
}

#[test]
fn the_same_id_of_another_sender_is_another_message() {
    let mut outbox = outbox(1);
    assert!(outbox.saw(&user("bob"), Seq(1), None).is_none());
    assert_eq!(outbox.messages().next().unwrap().1.after_seq, Seq(1));
}

#[test]
fn conversations_take_turns() {
    let mut outbox = outbox(2);
    outbox.push(&user("carol"), id(3), Seq::ZERO, "text".into(), false);
    let order: Vec<_> = std::iter::from_fn(|| next(&mut outbox, NOW)).collect();
    assert_eq!(order, [id(1), id(3), id(2)]);
}

#[test]
fn sends_in_flight_are_bounded() {
    let mut outbox = outbox(MAX_SENDS_IN_FLIGHT + 1);
    let sent = std::iter::from_fn(|| next(&mut outbox, NOW)).count();
    assert_eq!(sent, MAX_SENDS_IN_FLIGHT);
}

#[test]
fn a_scan_blocks_its_conversation_until_the_rest_is_short_enough() {
    let mut outbox = outbox(1);
    next(&mut outbox, NOW);
    outbox.defer(&id(1), Duration::ZERO);
    outbox.want_scan(&id(1));
    let scan = outbox.next_scan(NOW).unwrap();
    assert_eq!(scan.after_seq, Seq(9));
    assert_eq!(next(&mut outbox, NOW), None);
    assert!(outbox.is_running(&scan));
    outbox.saw(&user("bob"), Seq(10), Some(&id(7)));
    outbox.scanned(&scan, Some(Seq(10 + MAX_SEARCH + 1)), NOW);
    let scan = outbox.next_scan(NOW).unwrap();
    assert_eq!(scan.after_seq, Seq(10));
    outbox.saw(&user("bob"), Seq(11), Some(&id(8)));
    outbox.scanned(&scan, Some(Seq(11 + MAX_SEARCH)), NOW);
    assert_eq!(next(&mut outbox, NOW), Some(id(1)));
}

#[test]
fn a_scan_that_shows_nothing_new_waits() {
    let mut outbox = outbox(1);
    next(&mut outbox, NOW);
    outbox.defer(&id(1), Duration::ZERO);
    outbox.want_scan(&id(1));
    let scan = outbox.next_scan(NOW).unwrap();
    outbox.scanned(&scan, None, NOW);
    assert_eq!(outbox.next_scan(NOW), None);
    assert!(outbox.next_scan(NOW + RETRY_DELAY).is_some());
}

#[test]
fn a_message_given_up_in_flight_stays_until_its_answer_or_the_end_of_the_session() {
    let mut outbox = outbox(2);
    next(&mut outbox, NOW);
    assert_eq!(outbox.abandon(&id(1)), Some(false));
    assert_eq!(outbox.abandon(&id(2)), Some(false));
    assert_eq!(outbox.len(), 1);
    outbox.disconnected();
    assert_eq!(outbox.len(), 0);
    assert_eq!(outbox.abandon(&id(1)), None);
}
