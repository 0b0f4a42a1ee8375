//! A way between two processes that can be silent, deaf, or cut.

use std::net::SocketAddr;

use duologue_runtime::task;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// They pass.
    Open,
    /// What is sent arrives; what is answered is held.
    Silent,
    /// What is sent is held.
    Deaf,
    /// Every connection is closed, with what was held; there are no new ones.
    Cut,
}

/// A proxy before a server.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    way: watch::Sender<Way>,
}

impl Link {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, state) = watch::channel(Way::Open);
        task::spawn("link", async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                task::spawn("connection", carry(client, server, state.clone()));
            }
        });
        Self { address, way }
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mut way: watch::Receiver<Way>) {
    if *way.borrow() == Way::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    for connection in [&client, &server] {
        connection.set_nodelay(true).unwrap();
    }
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let up = |way: &Way| matches!(way, Way::Open | Way::Silent);
    let down = |way: &Way| matches!(way, Way::Open | Way::Deaf);
    let (way_up, way_down) = (way.clone(), way.clone());
    tokio::select! {
        _ = way.wait_for(|way| *way == Way::Cut) => {}
        _ = pump(from_client, to_server, way_up, up) => {}
        _ = pump(from_server, to_client, way_down, down) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut way: watch::Receiver<Way>,
    passes: impl Fn(&Way) -> bool,
) -> Option<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let count = from
            .read(&mut bytes)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        way.wait_for(&passes).await.ok()?;
        to.write_all(&bytes[..count]).await.ok()?;
    }
}
