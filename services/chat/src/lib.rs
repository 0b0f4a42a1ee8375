//! Holds one stream per device: stores, acknowledges, orders and relays.

pub mod ports;
