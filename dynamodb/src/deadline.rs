//! A deadline that a request cannot slip past, however long its sender is paused.

use std::fmt;

use aws_sdk_dynamodb::client::customize::CustomizableOperation;
use aws_sdk_dynamodb::config::Config;
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
///
/// It is signed by the sender's own clock, by which the condition is judged, too. The
/// SDK would sign by DynamoDB's, as it last learned it: so a sender whose clock stood
/// still with its machine would sign an old request with a new time.
#[must_use]
pub fn send_while<T, E, B>(
    request: CustomizableOperation<T, E, B>,
    condition: impl Fn() -> bool + Send + Sync + 'static,
) -> CustomizableOperation<T, E, B> {
    request
        .config_override(Config::builder().disable_clock_skew_correction(true))
        .interceptor(SendWhile(condition))
}

struct SendWhile<F>(F);

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
