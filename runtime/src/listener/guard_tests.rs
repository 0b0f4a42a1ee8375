use std::net::SocketAddr;
use std::sync::Mutex;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, advance};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected as _;

use super::ConnectionEvent::{
    Closed, HandshakeFailed, HandshakeTimedOut, Opened, PrefaceTimedOut, TooMany,
    TooManyFromAddress,
};
use super::*;
use crate::listener::PREFACE_TIMEOUT;
use crate::listener::test_tls::{Client, Files, Pair};
use crate::task::spawn;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Duplexes = Guard<ReceiverStream<Accepted<DuplexStream>>, DuplexStream>;

/// A network of in-memory streams behind a guard.
struct Network {
    accept: mpsc::Sender<Accepted<DuplexStream>>,
    guard: Duplexes,
    events: Arc<Mutex<Vec<ConnectionEvent>>>,
}

impl Network {
    fn new(config: GuardConfig) -> Self {
        let (accept, accepted) = mpsc::channel(16);
        let events: Arc<Mutex<Vec<ConnectionEvent>>> = Arc::default();
        let record = Arc::clone(&events);
        let config = GuardConfig {
            on_event: Arc::new(move |event| record.lock().unwrap().push(event)),
            ..config
        };
        let guard = guard(ReceiverStream::new(accepted), config);
        Self {
            accept,
            guard,
            events,
        }
    }

    /// A connection on its way in, by its near end.
    fn dial(&self, addr: &str) -> DuplexStream {
        let (near, far) = duplex(16 * 1024);
        let addr: SocketAddr = addr.parse().unwrap();
        let peer = Peer { addr: Some(addr) };
        self.accept.try_send(Accepted { io: far, peer }).unwrap();
        near
    }

    async fn next(&mut self) -> Connection<DuplexStream> {
        self.guard.next().await.unwrap().unwrap()
    }

    /// Lets the guard look at everything that is there; nobody may come in.
    fn settle(&mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(self.guard.poll_next_unpin(&mut cx).is_pending());
    }

    fn events(&self) -> Vec<ConnectionEvent> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

/// Whether the other side has closed the connection.
async fn is_closed(near: &mut DuplexStream) -> bool {
    near.read(&mut [0]).await.unwrap() == 0
}

#[tokio::test]
async fn a_connection_passes_unchanged_with_its_address() {
    let mut network = Network::new(GuardConfig::default());
    let mut near = network.dial("192.0.2.1:7");
    let mut connection = network.next().await;
    assert_eq!(
        connection.connect_info().addr,
        Some("192.0.2.1:7".parse().unwrap())
    );
    near.write_all(PREFACE).await.unwrap();
    near.write_all(b"hello").await.unwrap();
    connection.write_all(b"good day").await.unwrap();
    let (mut up, mut down) = ([0; 29], [0; 8]);
    connection.read_exact(&mut up).await.unwrap();
    near.read_exact(&mut down).await.unwrap();
    assert_eq!(&up[24..], b"hello");
    assert_eq!(&down, b"good day");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_finish_the_preface_is_closed_after_the_deadline() {
    for sent in [0, 1, 23] {
        let mut network = Network::new(GuardConfig::default());
        let mut near = network.dial("192.0.2.1:7");
        let mut connection = network.next().await;
        let start = Instant::now();
        near.write_all(&PREFACE[..sent]).await.unwrap();
        let mut read = Vec::new();
        let error = connection.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(read.len(), sent);
        assert_eq!(start.elapsed(), PREFACE_TIMEOUT);
        drop(connection);
        assert_eq!(network.events(), [Opened, PrefaceTimedOut, Closed]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_byte_now_and_then_does_not_stretch_the_deadline() {
    let mut network = Network::new(GuardConfig::default());
    let mut near = network.dial("192.0.2.1:7");
    let mut connection = network.next().await;
    let start = Instant::now();
    let dribble = async {
        for byte in PREFACE {
            tokio::time::sleep(Duration::from_secs(1)).await;
            near.write_all(&[*byte]).await.unwrap();
        }
    };
    let mut read = Vec::new();
    let error = tokio::select! {
        biased;
        result = connection.read_to_end(&mut read) => result.unwrap_err(),
        () = dribble => panic!("nobody closed the connection"),
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed(), PREFACE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_neither_reads_nor_speaks_is_closed_too() {
    let mut network = Network::new(GuardConfig::default());
    let _near = network.dial("192.0.2.1:7");
    let mut connection = network.next().await;
    let start = Instant::now();
    let error = connection.write_all(&vec![0; 32 * 1024]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed(), PREFACE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn after_the_preface_a_connection_may_be_silent() {
    let mut network = Network::new(GuardConfig::default());
    let mut near = network.dial("192.0.2.1:7");
    let mut connection = network.next().await;
    near.write_all(PREFACE).await.unwrap();
    connection.read_exact(&mut [0; 24]).await.unwrap();
    let silence = tokio::time::timeout(10 * PREFACE_TIMEOUT, connection.read_u8());
    assert!(silence.await.is_err(), "the connection was closed");
    near.write_all(b"x").await.unwrap();
    assert_eq!(connection.read_u8().await.unwrap(), b'x');
}

#[tokio::test(start_paused = true)]
async fn the_server_itself_closes_a_silent_peer() {
    let network = Network::new(GuardConfig::default());
    let (_, health) = tonic_health::server::health_reporter();
    let mut near = network.dial("192.0.2.1:7");
    let server = Server::builder().add_service(health);
    let start = Instant::now();
    let serving = spawn("server", server.serve_with_incoming(network.guard));
    near.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(start.elapsed(), PREFACE_TIMEOUT);
    drop(network.accept);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_another_is_not_harmed() {
    let mut network = Network::new(GuardConfig {
        seats: Seats::new(16, 2),
        ..GuardConfig::default()
    });
    let _near = [network.dial("192.0.2.1:1"), network.dial("192.0.2.1:2")];
    let (one, _two) = (network.next().await, network.next().await);
    let mut third = network.dial("192.0.2.1:3");
    let _other = network.dial("192.0.2.2:1");
    let _from_other = network.next().await;
    assert!(is_closed(&mut third).await);
    assert_eq!(
        network.events(),
        [Opened, Opened, TooManyFromAddress, Opened]
    );
    drop(one);
    let _fourth = network.dial("192.0.2.1:4");
    network.next().await;
}

#[tokio::test]
async fn a_network_of_ipv6_counts_as_one_address() {
    let mut network = Network::new(GuardConfig {
        seats: Seats::new(16, 1),
        ..GuardConfig::default()
    });
    let _near = network.dial("[2001:db8::1]:1");
    let _one = network.next().await;
    let mut neighbour = network.dial("[2001:db8::2]:1");
    network.settle();
    assert!(is_closed(&mut neighbour).await);
}

#[tokio::test]
async fn there_are_so_many_connections_in_all() {
    let mut network = Network::new(GuardConfig {
        seats: Seats::new(1, 16),
        ..GuardConfig::default()
    });
    let _near = network.dial("192.0.2.1:1");
    let one = network.next().await;
    let mut second = network.dial("192.0.2.2:1");
    network.settle();
    assert!(is_closed(&mut second).await);
    drop(one);
    let _third = network.dial("192.0.2.3:1");
    network.next().await;
    assert_eq!(network.events(), [Opened, TooMany, Closed, Opened, Closed]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_handshake_delays_nobody_and_ends_at_its_deadline() {
    let pair = Pair::new();
    let mut network = Network::new(GuardConfig {
        tls: Some(Files::of(&pair).tls()),
        ..GuardConfig::default()
    });
    let start = Instant::now();
    let mut slow = network.dial("192.0.2.1:1");
    let quick = network.dial("192.0.2.2:1");
    let client = Client::trusting(&[&pair]);
    let (connection, quick) = tokio::join!(network.next(), client.connect(quick));
    let (mut connection, mut quick) = (connection, quick.unwrap());
    quick.write_all(PREFACE).await.unwrap();
    connection.read_exact(&mut [0; 24]).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);

    tokio::select! {
        biased;
        closed = is_closed(&mut slow) => assert!(closed),
        _ = network.next() => panic!("the slow one was let in"),
    }
    assert_eq!(start.elapsed(), TLS_HANDSHAKE_TIMEOUT);
    assert_eq!(
        network.events(),
        [Opened, Opened, HandshakeTimedOut, Closed]
    );
}

#[tokio::test]
async fn a_handshake_takes_a_seat() {
    let mut network = Network::new(GuardConfig {
        seats: Seats::new(1, 16),
        tls: Some(Files::of(&Pair::new()).tls()),
        ..GuardConfig::default()
    });
    let _slow = network.dial("192.0.2.1:1");
    let mut second = network.dial("192.0.2.2:1");
    network.settle();
    assert!(is_closed(&mut second).await);
    assert_eq!(network.events(), [Opened, TooMany]);
}

#[tokio::test]
async fn a_handshake_that_fails_harms_nobody_else() {
    let pair = Pair::new();
    let mut network = Network::new(GuardConfig {
        tls: Some(Files::of(&pair).tls()),
        ..GuardConfig::default()
    });
    let mut plain = network.dial("192.0.2.1:1");
    plain.write_all(PREFACE).await.unwrap();
    let good = network.dial("192.0.2.2:1");
    let client = Client::trusting(&[&pair]);
    let (_connection, good) = tokio::join!(network.next(), client.connect(good));
    good.unwrap();
    let mut alert = Vec::new();
    plain.read_to_end(&mut alert).await.unwrap();
    assert_eq!(network.events(), [Opened, Opened, HandshakeFailed, Closed]);
}

#[tokio::test]
async fn the_guard_ends_after_the_last_handshake() {
    let pair = Pair::new();
    let config = GuardConfig {
        tls: Some(Files::of(&pair).tls()),
        ..GuardConfig::default()
    };
    let (near, far) = duplex(16 * 1024);
    let accepted = Accepted {
        io: far,
        peer: Peer::default(),
    };
    let mut guard = guard(stream::iter([accepted]), config);
    let client = Client::trusting(&[&pair]);
    let (connection, near) = tokio::join!(guard.next(), client.connect(near));
    assert!(connection.unwrap().is_ok() && near.is_ok());
    assert!(guard.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_preface_that_came_in_time_counts_even_if_it_is_read_late() {
    let mut network = Network::new(GuardConfig::default());
    let mut near = network.dial("192.0.2.1:7");
    let mut connection = network.next().await;
    near.write_all(PREFACE).await.unwrap();
    advance(2 * PREFACE_TIMEOUT).await;
    connection.read_exact(&mut [0; 24]).await.unwrap();
}
