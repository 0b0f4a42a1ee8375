//! The contract of Duologue: the generated wire types, and the words that both
//! sides of any wire share (typed ids, limits, the envelope).
//!
//! It must not decide anything: no service's rule stands here.

pub mod history;
pub mod ids;
pub mod limits;
pub mod message;
pub mod presence;

/// The public contract, generated from `proto/duologue/chat`.
pub mod chat {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
    pub mod v1 {
        include!("generated/duologue.chat.v1.rs");
    }
}

/// What chat nodes tell each other, generated from `proto/duologue/relay`.
pub mod relay {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
    pub mod v1 {
        include!("generated/duologue.relay.v1.rs");
    }
}

/// The descriptors of every file of the public contract, for reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");

/// The descriptors of what services say to each other, and of what that imports.
/// A public server does not know of it.
pub const INTERNAL_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/internal.bin");
