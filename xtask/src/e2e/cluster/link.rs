//! A way from one process to another that can be cut: while it is, connections are
//! broken off and none is made.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Carries connections to a target; ends when this is dropped.
pub(super) struct Link {
    address: SocketAddr,
    is_cut: watch::Sender<bool>,
    _carrier: JoinSet<()>,
}

impl Link {
    /// Where one will be entered.
    pub(super) async fn entrance() -> Result<TcpListener> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        listener.context("cannot listen")
    }

    /// A whole link.
    pub(super) fn new(listener: TcpListener, target: SocketAddr) -> Result<Self> {
        let address = listener.local_addr()?;
        let is_cut = watch::Sender::new(false);
        let mut carrier = JoinSet::new();
        carrier.spawn(carry(listener, target, is_cut.subscribe()));
        Ok(Self {
            address,
            is_cut,
            _carrier: carrier,
        })
    }

    /// Where it is entered.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub(super) fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn carry(listener: TcpListener, target: SocketAddr, is_cut: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that was not made is none to carry.
                if let Ok((near, _)) = accepted
                    && !*is_cut.borrow()
                {
                    connections.spawn(carry_one(near, target, is_cut.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry_one(mut near: TcpStream, target: SocketAddr, mut is_cut: watch::Receiver<bool>) {
    let Ok(mut far) = TcpStream::connect(target).await else {
        return;
    };
    tokio::select! {
        // Either end is gone, whatever the reason.
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = is_cut.wait_for(|is_cut| *is_cut) => {}
    }
}
