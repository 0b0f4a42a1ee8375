//! A deadline that a request cannot slip past, however long its sender is paused.

use std::fmt;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// Lets a request leave only while a condition holds, which is looked at *after*
/// the request was signed. So its signature is not younger than the last moment at
/// which the condition held, and DynamoDB takes a request for 5 minutes after its
/// signature: a sender that is paused, for whatever time and wherever, cannot have
/// it applied later than that. A refused one is [`crate::Failure::TooLate`].
pub struct SendWhile<F>(pub F);

/// What the request ends with.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it is too late to send the request")]
pub(crate) struct TooLate;

impl<F> fmt::Debug for SendWhile<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendWhile")
    }
}

impl<F: Fn() -> bool + Send + Sync> Intercept for SendWhile<F> {
    fn name(&self) -> &'static str {
        "SendWhile"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if (self.0)() {
            Ok(())
        } else {
            Err(TooLate.into())
        }
    }
}
