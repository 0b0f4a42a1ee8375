//! Receipts reach everybody for fewer look-ups than messages.

use super::*;
use crate::relay::lookups::RECEIPT_ROUTES_AGE;

/// A receipt of user 2 for user 1: that `seq` was read.
fn receipt(lookups: &mut Lookups, seq: u64) {
    lookups.announce(Announcement::Cursor {
        user: user(2),
        peer: user(1),
        cursor: Cursor::asked(None, Some(Seq(seq))),
    });
}

fn read(news: &News) -> Vec<u64> {
    news.receipts.values().map(|cursor| cursor.read.0).collect()
}

/// Looks up what there is to look up, and finds nobody. Returns what was read.
fn look_up(lookups: &mut Lookups, now: Instant) -> Vec<(Lookup, Vec<u64>)> {
    let mut begun = Vec::new();
    while let Some(lookup) = lookups.next(now) {
        begun.push(lookup);
    }
    let found = begun.into_iter().map(|lookup| {
        let Lookup::User(user) = &lookup else {
            panic!("{lookup:?}");
        };
        let news = lookups.found(user, &[], now);
        (lookup.clone(), read(&news))
    });
    found.collect()
}

#[tokio::test(start_paused = true)]
async fn receipts_go_where_sessions_were_found_and_later_to_all() {
    let (mut lookups, now) = (Lookups::default(), Instant::now());
    let [one, two] = [1, 2].map(|number| Lookup::User(user(number)));
    receipt(&mut lookups, 1);
    let both = |seq| vec![(one.clone(), vec![seq]), (two.clone(), vec![seq])];
    assert_eq!(look_up(&mut lookups, now), both(1));
    assert!(lookups.take_to_known().is_empty());
    assert_eq!(lookups.due(), None, "everybody was told");
    for seq in 2..5 {
        receipt(&mut lookups, seq);
        assert!(look_up(&mut lookups, now).is_empty());
        let told = lookups.take_to_known();
        let told: Vec<_> = told
            .iter()
            .map(|found| (&found.user, read(&found.news)))
            .collect();
        assert_eq!(told, [(&user(1), vec![seq]), (&user(2), vec![seq])]);
    }
    let end = now + RECEIPT_ROUTES_AGE;
    assert_eq!(lookups.due(), Some(end));
    assert_eq!(look_up(&mut lookups, end), both(4), "who came in between");
    assert!(look_up(&mut lookups, end + RECEIPT_ROUTES_AGE).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_look_up_for_a_message_takes_the_receipts_along() {
    let (mut lookups, now) = (Lookups::default(), Instant::now());
    for seq in 1..3 {
        receipt(&mut lookups, seq);
        look_up(&mut lookups, now);
    }
    announce(&mut lookups, 1);
    let along: Vec<_> = look_up(&mut lookups, now)
        .into_iter()
        .map(|(_, read)| read)
        .collect();
    assert_eq!(along, [[2], [2]]);
    assert!(look_up(&mut lookups, now + RECEIPT_ROUTES_AGE).is_empty());
}

#[tokio::test(start_paused = true)]
async fn receipts_of_a_look_up_that_failed_are_looked_up_again() {
    let (mut lookups, now) = (Lookups::default(), Instant::now());
    for seq in 1..3 {
        receipt(&mut lookups, seq);
        look_up(&mut lookups, now);
    }
    let end = now + RECEIPT_ROUTES_AGE;
    let lookup = lookups.next(end).unwrap();
    lookups.failed(&lookup, end, 0);
    let again = look_up(&mut lookups, end + MAX_LOOKUP_PAUSE);
    assert!(again.contains(&(lookup, vec![2])), "{again:?}");
}
