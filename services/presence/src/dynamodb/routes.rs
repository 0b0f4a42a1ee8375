//! The rising number: every change of a device's row is one write, under the
//! condition that no higher number is there.
//!
//! What follows a change is repaired by whoever repeats it: a call that is answered
//! has done all of it, and a repeated one does what is missing. So chat, which repeats
//! until it has an answer, leaves nothing half done unless its node dies, and then
//! its routes are dead.

use duologue_dynamodb::sdk::operation::update_item::UpdateItemError;
use duologue_dynamodb::sdk::operation::update_item::builders::UpdateItemFluentBuilder;
use duologue_dynamodb::sdk::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};
use duologue_proto::ids::UnixMillis;
use duologue_proto::presence::{PresenceError, Registered, Route};
use duologue_runtime::clock::RandomExt as _;
use duologue_runtime::faults::{Mutant, planted};
use tracing::warn;

use super::call::{Outcome, failed, settle};
use super::rows::{
    GONE_AT, Item, NONE, PARTITION, SORT, bytes, connect_number, expiry, number,
    read_connect_number, read_number, read_replaced, read_route, read_text, second, text,
};
use super::{DynamoDirectory, rows};
use crate::directory::{GONE_KEPT, MAX_ROUTES_PER_USER};

/// Nothing, a lower number, or one whose time is over.
const RISES: &str = "attribute_not_exists(p) OR n < :n OR x <= :now";
/// Rows of devices whose time is not over.
const DEVICES: &str = "attribute_exists(e) OR (attribute_exists(n) AND x > :now)";
/// Those of them that are not gone.
const DEVICES_IN_FORCE: &str = "attribute_exists(e)";
/// This very route in force.
const EXACT: &str = "n = :n AND e = :e AND h = :h AND i = :i";
/// What is in force is remembered as replaced, for who repeats the registration, and what
/// that has replaced, for who gets no answer. Values are read before any is set.
const REGISTER: &str = "SET qn = if_not_exists(rn, :n), qe = if_not_exists(re, :none), \
     qh = if_not_exists(rh, :none), qi = if_not_exists(ri, :none), \
     rn = if_not_exists(n, :n), re = if_not_exists(e, :none), \
     rh = if_not_exists(h, :none), ri = if_not_exists(i, :none), \
     n = :n, e = :e, h = :h, i = :i REMOVE x, b, g, w";
/// What the session has replaced stays: it may not have been told yet.
const REGISTER_AGAIN: &str = "SET n = :n, h = :h, i = :i";
/// Only over a row of the session itself.
const OWN_RISES: &str = "e = :e AND n < :n";
const MAKE_GONE: &str = "SET g = if_not_exists(e, :none), n = :n, x = :x, w = :w, b = :b \
     REMOVE e, h, i, rn, re, rh, ri, qn, qe, qh, qi";
const CLEAN_UP: &str = "SET g = if_not_exists(e, :none), n = :n, x = :x, w = :w \
     REMOVE b, e, h, i, rn, re, rh, ri, qn, qe, qh, qi";

/// Rows of one user's devices; those that are gone count for an hour.
pub const MAX_ROWS_PER_USER: usize = 2_048;

/// What a write to a device's row met.
struct Met {
    applied: bool,
    /// What was there before it, or what blocks it.
    row: Item,
}

impl DynamoDirectory {
    pub(super) async fn put_in_force(&self, route: &Route) -> Result<Registered, PresenceError> {
        if let Some(registered) = self.register_again(route).await? {
            return Ok(registered);
        }
        self.check_room(route).await?;
        let condition = registration_rule();
        let now = second(self.clock.now());
        let write = self.write(route, REGISTER, condition);
        let write = bind(write, [(":none", text(NONE)), (":now", now)]);
        let write = bind_names(bind_number(write, route), route);
        let met = self.settle_row(&write).await?;
        if !met.applied {
            return self.blocked(route, &met.row).await;
        }
        self.list(&route.user).await?;
        let before = read_route(&route.user, &met.row).into_iter();
        let [replaced, _] = read_replaced(&route.user, &met.row);
        Ok(in_force(route, before.chain(replaced)))
    }

    /// The usual way of a session that its node registers again. None: the row is not
    /// of the session, and anything may be there.
    async fn register_again(&self, route: &Route) -> Result<Option<Registered>, PresenceError> {
        if route.number.registration == 0 {
            return Ok(None);
        }
        let write = self.write(route, REGISTER_AGAIN, OWN_RISES);
        let write = bind_names(bind_number(write, route), route);
        let met = self.settle_row(&write).await?;
        if !met.applied {
            let own = read_text(&met.row, rows::SESSION) == Some(route.session.as_str());
            return if own {
                self.blocked(route, &met.row).await.map(Some)
            } else {
                Ok(None)
            };
        }
        self.list(&route.user).await?;
        Ok(Some(in_force(route, replaced(route, &met.row))))
    }

    /// The very route that is in force is confirmed, and told again whom it replaced:
    /// the first answer may be lost.
    async fn blocked(&self, route: &Route, row: &Item) -> Result<Registered, PresenceError> {
        if read_route(&route.user, row).as_ref() != Some(route) {
            return Ok(Registered::Superseded);
        }
        self.list(&route.user).await?;
        Ok(in_force(route, replaced(route, row)))
    }

    /// A bound on what a lookup reads, so it may be passed by those who register at
    /// once. Rows of devices that are gone are read, too: who comes as another device
    /// every time leaves many.
    async fn check_room(&self, route: &Route) -> Result<(), PresenceError> {
        let rows = self.device_rows(&route.user, DEVICES).await?;
        if rows < MAX_ROUTES_PER_USER {
            return Ok(());
        }
        let own = self.device_row(route).await?;
        if own.contains_key(rows::SESSION) {
            return Ok(());
        }
        let in_force = self.device_rows(&route.user, DEVICES_IN_FORCE).await?;
        let has_row = !own.is_empty() || rows < MAX_ROWS_PER_USER;
        if in_force < MAX_ROUTES_PER_USER && has_row {
            return Ok(());
        }
        warn!(user.id = %route.user, rows, in_force, "a user has too many devices");
        Err(PresenceError::OfUser)
    }

    /// The row of the route's device; empty if there is none.
    async fn device_row(&self, route: &Route) -> Result<Item, PresenceError> {
        let get = self.db.repeating().get_item().table_name(&self.table);
        let get = get
            .key(PARTITION, text(route.user.as_str()))
            .key(SORT, text(route.device.as_str()))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let found = get.send().await.map_err(|error| failed(&error))?;
        Ok(found.item.unwrap_or_default())
    }

    pub(super) async fn make_gone(
        &self,
        route: &Route,
        at: UnixMillis,
    ) -> Result<bool, PresenceError> {
        let call = self.new_call();
        let there = format!("attribute_exists(p) AND ({})", release_rule());
        let mut met = self.settle_gone(route, at, &call, &there).await?;
        if !met.applied && met.row.is_empty() {
            // A registration that was refused for want of room leaves no row either. One
            // that is late is refused as well; if room was made meanwhile, whoever relays
            // to it finds nobody, and removes it.
            if self.device_rows(&route.user, DEVICES).await? >= MAX_ROWS_PER_USER {
                return Ok(false);
            }
            met = self.settle_gone(route, at, &call, &release_rule()).await?;
        }
        if met.applied {
            let went = met.row.contains_key(rows::SESSION);
            if went {
                self.after_last(&route.user, Some(at)).await?;
            }
            return Ok(went);
        }
        // Who released it may have gone no further.
        let gone = is_gone_by(route, &met.row);
        if let (true, Some(at)) = (gone, read_number(&met.row, GONE_AT)) {
            self.after_last(&route.user, Some(UnixMillis(at))).await?;
        }
        Ok(gone && is_by(&call, &met.row))
    }

    async fn settle_gone(
        &self,
        route: &Route,
        at: UnixMillis,
        call: &AttributeValue,
        condition: &str,
    ) -> Result<Met, PresenceError> {
        let now = self.clock.now();
        let write = self.write(route, MAKE_GONE, condition);
        let write = bind(
            write,
            [
                (":none", text(NONE)),
                (":now", second(now)),
                (":x", expiry(now, GONE_KEPT)),
                (":w", call.clone()),
                (":b", number(at.0)),
            ],
        );
        let write = bind_names(bind_number(write, route), route);
        self.settle_row(&write).await
    }

    pub(super) async fn clean_up(&self, seen: &Route) -> Result<bool, PresenceError> {
        let expiry = expiry(self.clock.now(), GONE_KEPT);
        let call = self.new_call();
        let write = self.write(seen, CLEAN_UP, clean_up_rule());
        let write = bind(
            write,
            [(":none", text(NONE)), (":x", expiry), (":w", call.clone())],
        );
        let write = bind_names(bind_number(write, seen), seen);
        let met = self.settle_row(&write).await?;
        let went = met.applied || is_by(&call, &met.row);
        if went {
            self.after_last(&seen.user, None).await?;
        }
        Ok(went)
    }

    fn new_call(&self) -> AttributeValue {
        bytes(self.random.number().to_be_bytes())
    }

    fn write(&self, route: &Route, update: &str, condition: &str) -> UpdateItemFluentBuilder {
        let update_item = self.db.once().update_item().table_name(&self.table);
        update_item
            .key(PARTITION, text(route.user.as_str()))
            .key(SORT, text(route.device.as_str()))
            .update_expression(update)
            .condition_expression(condition)
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
    }

    async fn settle_row(&self, write: &UpdateItemFluentBuilder) -> Result<Met, PresenceError> {
        let outcome = settle(&*self.random, || write.clone().send()).await?;
        Ok(match outcome {
            Outcome::Applied(output) => Met {
                applied: true,
                row: output.attributes.unwrap_or_default(),
            },
            Outcome::Blocked { error, .. } => Met {
                applied: false,
                row: blocking(error),
            },
        })
    }
}

/// Each fault that can be planted makes the condition hold where it must not.
fn registration_rule() -> &'static str {
    if planted(Mutant::LateRegistrationWins) || planted(Mutant::LowerConnectNumberWins) {
        return "attribute_exists(e) OR attribute_not_exists(p) OR n < :n OR x <= :now";
    }
    RISES
}

fn clean_up_rule() -> &'static str {
    if planted(Mutant::CleanUpBySession) {
        return "e = :e OR (n = :n AND h = :h AND i = :i)";
    }
    EXACT
}

fn release_rule() -> String {
    let rule = format!("{RISES} OR ({EXACT})");
    if planted(Mutant::ReleaseJustDeletes) {
        return format!("attribute_exists(p) OR {rule}");
    }
    rule
}

fn blocking(error: UpdateItemError) -> Item {
    if let UpdateItemError::ConditionalCheckFailedException(failed) = error {
        failed.item.unwrap_or_default()
    } else {
        Item::new()
    }
}

fn replaced(route: &Route, row: &Item) -> impl Iterator<Item = Route> {
    read_replaced(&route.user, row).into_iter().flatten()
}

fn in_force(route: &Route, replaced: impl Iterator<Item = Route>) -> Registered {
    let others = replaced.filter(|replaced| replaced.session != route.session);
    Registered::InForce {
        replaced: others.collect(),
    }
}

fn is_gone_by(route: &Route, row: &Item) -> bool {
    !row.contains_key(rows::SESSION) && read_connect_number(row, rows::NUMBER) == Some(route.number)
}

/// Whether this very call has taken a session away, by a try without an answer.
fn is_by(call: &AttributeValue, row: &Item) -> bool {
    row.get(rows::GONE_BY) == Some(call)
        && read_text(row, rows::GONE_SESSION).is_some_and(|session| session != NONE)
}

fn bind<const N: usize>(
    write: UpdateItemFluentBuilder,
    values: [(&str, AttributeValue); N],
) -> UpdateItemFluentBuilder {
    values.into_iter().fold(write, |write, (name, value)| {
        write.expression_attribute_values(name, value)
    })
}

fn bind_number(write: UpdateItemFluentBuilder, route: &Route) -> UpdateItemFluentBuilder {
    bind(write, [(":n", connect_number(route.number))])
}

fn bind_names(write: UpdateItemFluentBuilder, route: &Route) -> UpdateItemFluentBuilder {
    bind(
        write,
        [
            (":e", text(route.session.as_str())),
            (":h", text(route.node.as_str())),
            (":i", text(route.incarnation.as_str())),
        ],
    )
}
