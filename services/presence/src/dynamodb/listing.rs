//! The list of users, in order, without an index or a scan: a hint per user, spread
//! over partitions by a hash, and merged when it is read.
//!
//! A hint says only that there may be routes; the routes are looked at before a user
//! is listed. What must hold is that every route of an answered registration has its
//! hint. So a registration puts the hint, with a new version, *after* its route; and
//! a hint is removed only in the version that was read *before* the routes were, of
//! which there was none. A removal that goes through after the put has then read the
//! put's version, and after it the route.
//!
//! So no version may come twice: every try of a put makes its own, and the client does
//! not repeat it. A try that arrives late would otherwise bring back a version of which
//! a removal is under way.

use std::collections::VecDeque;

use duologue_dynamodb::sdk::types::{AttributeValue, ReturnConsumedCapacity};
use duologue_proto::ids::{UnixMillis, UserId};
use duologue_proto::presence::PresenceError;
use duologue_runtime::clock::RandomExt as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tracing::error;

use super::DynamoDirectory;
use super::call::{failed, settle, unavailable};
use super::lookup::CONCURRENT_LOOKUPS;
use super::rows::{
    EXPIRY, Item, PARTITION, SEEN_AT, SEEN_ROW, SORT, VERSION, bytes, expiry, number, read_text,
    text,
};
use crate::directory::LAST_SEEN_KEPT;

/// Partitions of the list: each takes a thousand changes a second. For ever the same.
pub const LIST_BUCKETS: u64 = 16;
/// Hints read at once from one partition, at least.
const MIN_HINTS: usize = 8;
/// The same at most.
pub const MAX_HINTS: usize = 100;

/// One partition of the list, as far as it was read.
struct Bucket {
    partition: String,
    after: Option<UserId>,
    read: VecDeque<Hint>,
    ended: bool,
}

#[derive(Debug, Clone)]
struct Hint {
    user: UserId,
    version: AttributeValue,
}

impl DynamoDirectory {
    /// Puts the hint of a user whose route is in force.
    pub(super) async fn list(&self, user: &UserId) -> Result<(), PresenceError> {
        let put = self.db.once().put_item().table_name(&self.table);
        let put = put
            .item(PARTITION, text(&partition_of(user)))
            .item(SORT, text(user.as_str()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let attempt = || {
            let version = bytes(self.random.number().to_be_bytes());
            put.clone().item(VERSION, version).send()
        };
        settle(&*self.random, attempt).await?;
        Ok(())
    }

    /// After a route went: if it was the last, the user was seen `at`, or nobody knows
    /// when, and is not listed any more.
    pub(super) async fn after_last(
        &self,
        user: &UserId,
        at: Option<UnixMillis>,
    ) -> Result<(), PresenceError> {
        let hint = self.hint(user).await?;
        let rows = self.rows_of(user).await?;
        if !rows.routes.is_empty() {
            return Ok(());
        }
        match (at, rows.last_seen) {
            (Some(at), seen) if seen < Some(at) => self.put_last_seen(user, at).await?,
            (None, Some(seen)) => self.forget_last_seen(user, seen).await?,
            (Some(_) | None, _) => {}
        }
        match hint {
            Some(hint) => self.remove_hint(&hint).await,
            None => Ok(()),
        }
    }

    pub(super) async fn listed(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, PresenceError> {
        let mut buckets: Vec<_> = (0..LIST_BUCKETS)
            .map(|number| Bucket {
                partition: partition(number),
                after: after.cloned(),
                read: VecDeque::new(),
                ended: false,
            })
            .collect();
        let mut listed = Vec::new();
        while listed.len() < max {
            let hints = self.next_hints(&mut buckets, max - listed.len()).await?;
            if hints.is_empty() {
                break;
            }
            listed.extend(self.with_routes(hints).await?);
        }
        Ok(listed)
    }

    /// The next hints in order of user, over all partitions.
    async fn next_hints(
        &self,
        buckets: &mut [Bucket],
        max: usize,
    ) -> Result<Vec<Hint>, PresenceError> {
        let mut hints = Vec::new();
        while hints.len() < max.min(MAX_HINTS) {
            self.fill(buckets, max).await?;
            let heads = buckets.iter_mut().filter(|bucket| !bucket.read.is_empty());
            let first =
                heads.min_by_key(|bucket| bucket.read.front().map(|hint| hint.user.clone()));
            let Some(hint) = first.and_then(|bucket| bucket.read.pop_front()) else {
                break;
            };
            hints.push(hint);
        }
        Ok(hints)
    }

    /// Reads on wherever nothing is left of what was read: the next of all is then the
    /// first of one.
    async fn fill(&self, buckets: &mut [Bucket], max: usize) -> Result<(), PresenceError> {
        let share = max.div_ceil(buckets.len()).saturating_mul(2);
        let share = share.clamp(MIN_HINTS, MAX_HINTS);
        let empty = buckets
            .iter_mut()
            .filter(|bucket| bucket.read.is_empty() && !bucket.ended);
        let reads: Vec<_> = empty.map(|bucket| self.read_hints(bucket, share)).collect();
        stream::iter(reads)
            .buffer_unordered(CONCURRENT_LOOKUPS)
            .try_collect()
            .await
    }

    async fn read_hints(&self, bucket: &mut Bucket, max: usize) -> Result<(), PresenceError> {
        let query = self.db.repeating().query().table_name(&self.table);
        let query = match &bucket.after {
            None => query.key_condition_expression("p = :p"),
            Some(after) => query
                .key_condition_expression("p = :p AND s > :after")
                .expression_attribute_values(":after", text(after.as_str())),
        };
        let query = query
            .expression_attribute_values(":p", text(&bucket.partition))
            .limit(i32::try_from(max).unwrap_or(i32::MAX))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let page = query.send().await.map_err(|error| failed(&error))?;
        bucket.ended = page.last_evaluated_key.is_none();
        for item in page.items.unwrap_or_default() {
            bucket.read.push_back(read_hint(&item)?);
        }
        if let Some(last) = bucket.read.back() {
            bucket.after = Some(last.user.clone());
        }
        Ok(())
    }

    /// Those with routes; the hints of the others are removed. A user whose rows cannot
    /// be read is left out: the others can be listed without.
    async fn with_routes(&self, hints: Vec<Hint>) -> Result<Vec<UserId>, PresenceError> {
        let reads: Vec<_> = hints
            .iter()
            .map(|hint| self.legible_rows_of(&hint.user))
            .collect();
        let reads = stream::iter(reads).buffered(CONCURRENT_LOOKUPS);
        let rows: Vec<_> = reads.try_collect().await?;
        let mut listed = Vec::with_capacity(hints.len());
        for (hint, rows) in hints.into_iter().zip(rows) {
            match rows {
                Some(rows) if rows.routes.is_empty() => self.remove_hint(&hint).await?,
                Some(_) => listed.push(hint.user),
                None => {}
            }
        }
        Ok(listed)
    }

    async fn hint(&self, user: &UserId) -> Result<Option<Hint>, PresenceError> {
        let get = self.db.repeating().get_item().table_name(&self.table);
        let get = get
            .key(PARTITION, text(&partition_of(user)))
            .key(SORT, text(user.as_str()))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = get.send().await.map_err(|error| failed(&error))?;
        answer.item.as_ref().map(read_hint).transpose()
    }

    /// In exactly this version, and otherwise not.
    async fn remove_hint(&self, hint: &Hint) -> Result<(), PresenceError> {
        let delete = self.db.once().delete_item().table_name(&self.table);
        let delete = delete
            .key(PARTITION, text(&partition_of(&hint.user)))
            .key(SORT, text(hint.user.as_str()))
            .condition_expression("v = :v")
            .expression_attribute_values(":v", hint.version.clone())
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        settle(&*self.random, || delete.clone().send()).await?;
        Ok(())
    }

    /// Of several who saw the last route go, the latest is believed.
    async fn put_last_seen(&self, user: &UserId, at: UnixMillis) -> Result<(), PresenceError> {
        let put = self.db.once().put_item().table_name(&self.table);
        let put = put
            .item(PARTITION, text(user.as_str()))
            .item(SORT, text(SEEN_ROW))
            .item(SEEN_AT, number(at.0))
            .item(EXPIRY, expiry(self.clock.now(), LAST_SEEN_KEPT))
            .condition_expression("attribute_not_exists(p) OR a < :a")
            .expression_attribute_values(":a", number(at.0))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        settle(&*self.random, || put.clone().send()).await?;
        Ok(())
    }

    async fn forget_last_seen(&self, user: &UserId, seen: UnixMillis) -> Result<(), PresenceError> {
        let delete = self.db.once().delete_item().table_name(&self.table);
        let delete = delete
            .key(PARTITION, text(user.as_str()))
            .key(SORT, text(SEEN_ROW))
            .condition_expression("a = :a")
            .expression_attribute_values(":a", number(seen.0))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        settle(&*self.random, || delete.clone().send()).await?;
        Ok(())
    }
}

fn read_hint(item: &Item) -> Result<Hint, PresenceError> {
    let user = read_text(item, SORT).and_then(|user| UserId::parse(user).ok());
    let hint = user.zip(item.get(VERSION));
    let Some((user, version)) = hint else {
        error!("a row of the list of users cannot be read");
        return Err(unavailable());
    };
    Ok(Hint {
        user,
        version: version.clone(),
    })
}

fn partition_of(user: &UserId) -> String {
    partition(hash(user.as_str()) % LIST_BUCKETS)
}

fn partition(bucket: u64) -> String {
    format!("#list-{bucket:02}")
}

/// FNV-1a: every replica of every version must find the same partition.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_s_partition_is_the_same_for_ever() {
        // The published values of FNV-1a.
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
        let user = UserId::parse("foobar").unwrap();
        assert_eq!(partition_of(&user), "#list-08");
    }
}
