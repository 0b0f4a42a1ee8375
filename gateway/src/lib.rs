//! The way into Duologue for browsers: calls by gRPC-Web, and the chat page.
//!
//! Everything that is asked of chat goes through one [`Upstream`], so that who may do
//! what, and how often, is decided in one place for every door. The gateway keeps
//! nothing of a user and has no power of its own: it passes on the user's token.

mod assets;
mod body;
pub mod config;
mod cors;
mod dev_token;
mod error;
mod grpc_web;
mod hand_on;
mod headers;
pub mod limits;
mod nodes;
mod origin;
mod router;
pub mod serve;
mod server;
mod stall;
mod upstream;
pub mod websocket;

pub use config::WebArgs;
pub use dev_token::DevTokens;
pub use origin::{InvalidOrigin, Origin, Origins};
pub use router::{Gateway, GatewayParts};
pub use server::serve;
pub use stall::accepted;
pub use upstream::Upstream;
