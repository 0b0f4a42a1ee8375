//! What history and presence share on DynamoDB: the client with its timeouts and
//! retries, what its failures mean, DynamoDB's clock, and the tables.
//!
//! It must not know what a table holds: rows and their rules are the services' own.

mod args;
pub mod client;
mod deadline;
pub mod failure;
pub mod limits;
pub mod server_time;
pub mod tables;
#[cfg(feature = "testing")]
pub mod testing;

pub use args::{DynamoArgs, TableArgs};
pub use aws_sdk_dynamodb as sdk;
pub use client::{DynamoDb, Options};
pub use deadline::send_while;
pub use failure::{Failure, classify};
pub use server_time::ServerTime;
