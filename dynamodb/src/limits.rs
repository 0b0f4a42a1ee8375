//! Every limit of what is shared on DynamoDB. Each stands in the code where it is kept.

pub use crate::client::{ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, MAX_ATTEMPTS, OPERATION_TIMEOUT};
pub use crate::server_time::MAX_ROUND_TRIP;
pub use crate::tables::{CREATE_POLL, CREATE_TIMEOUT};
