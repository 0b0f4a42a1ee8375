//! Connections that say what they should not: they end alone.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::calls::sent;
use crate::support::frames::{hello, ping};
use crate::support::{Server, Session, raw, soon};

/// What a connection is answered that says this and nothing more.
async fn answer(server: &Server, said: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.grpc).await.unwrap();
    stream.write_all(said).await.unwrap();
    let mut answer = Vec::new();
    // Closed or reset, either will do.
    let _ = soon(stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn garbage_ends_its_own_connection_and_no_other() {
    let server = Server::start(&[]).await;
    let (mut alice, ..) = Session::caught_up(&server.chat("alice").await, hello()).await;
    let http1 = b"GET / HTTP/1.1\r\nhost: chat\r\n\r\n";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let broken = [&preface[..], &[0xff; 64]].concat();
    for said in [&[0_u8; 64][..], &[0xff; 4_096], http1, &broken] {
        answer(&server, said).await;
        alice.ask(1, ping()).await;
    }
    sent(&mut server.chat("bob").await, "alice", "m", "hi").await;
    assert_eq!(alice.messages(1).await[0].seq, 1);
}

#[tokio::test]
async fn headers_beyond_8_kib_are_refused_and_the_server_goes_on() {
    let server = Server::start(&[]).await;
    let long = "x".repeat(16 * 1_024);
    let path = "/duologue.chat.v1.ChatService/ListConversations";
    let answer = raw::call(server.channel().await, Some(&long), path, vec![vec![]]).await;
    let status = raw::status_of(answer).await.unwrap_err();
    assert_ne!(status.code(), Code::Ok);
    sent(&mut server.chat("bob").await, "alice", "m", "hi").await;
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let server = Server::start(&["--connections-per-address", "2"]).await;
    let mut first = server.chat("alice").await;
    let second = server.chat("alice").await;
    assert!(answer(&server, b"").await.is_empty());
    sent(&mut first, "bob", "m", "hi").await;
    drop(second);
    let again = async {
        let endpoint = format!("http://{}", server.grpc);
        let endpoint = tonic::transport::Endpoint::from_shared(endpoint).unwrap();
        loop {
            let Ok(channel) = endpoint.connect().await else {
                continue;
            };
            let token = server.token("alice");
            let path = "/duologue.chat.v1.ChatService/ListConversations";
            let answer = raw::call(channel, Some(&token), path, vec![vec![]]).await;
            if raw::status_of(answer).await.is_ok() {
                return;
            }
        }
    };
    soon(again).await;
}
