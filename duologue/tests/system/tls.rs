//! TLS at the gRPC listener.

use duologue_proto::chat::v1::ListConversationsRequest;
use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use rcgen::generate_simple_self_signed;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::support::calls::{Bearer, client};
use crate::support::frames::hello;
use crate::support::{Place, Server, Session, program, soon};

/// A server with a certificate for localhost, in `cert.pem`.
async fn server(place: &Place) -> Server {
    let pair = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (place.path("cert.pem"), place.path("key.pem"));
    std::fs::write(&cert, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    place.serve(&["--tls-cert", cert, "--tls-key", key]).await
}

fn endpoint(server: &Server, scheme: &str) -> Endpoint {
    let url = format!("{scheme}://localhost:{}", server.grpc.port());
    Endpoint::from_shared(url).unwrap()
}

#[tokio::test]
async fn a_client_that_trusts_the_certificate_gets_in() {
    let place = Place::new();
    let server = server(&place).await;
    assert!(server.banner.contains("https://"), "{}", server.banner);
    let ca = Certificate::from_pem(std::fs::read(place.path("cert.pem")).unwrap());
    let tls = ClientTlsConfig::new().ca_certificate(ca);
    let channel = endpoint(&server, "https")
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let chat = client(channel, Bearer::new(&server.token("alice")));
    Session::caught_up(&chat, hello()).await;
}

#[tokio::test]
async fn a_client_that_does_not_trust_it_or_speaks_plaintext_does_not_get_in() {
    let place = Place::new();
    let server = server(&place).await;
    let other = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let ca = Certificate::from_pem(other.cert.pem());
    let tls = ClientTlsConfig::new().ca_certificate(ca);
    assert!(
        endpoint(&server, "https")
            .tls_config(tls)
            .unwrap()
            .connect()
            .await
            .is_err()
    );
    let plaintext = endpoint(&server, "http").connect_lazy();
    let list = ListConversationsRequest::default();
    let answer = soon(ChatServiceClient::new(plaintext).list_conversations(list)).await;
    // The connection fails; it does not come to a refusal by the server.
    assert!(answer.unwrap_err().details().is_empty());
}

#[tokio::test]
async fn health_trusts_the_authority_that_it_is_given() {
    let place = Place::new();
    let server = server(&place).await;
    let address = format!("https://localhost:{}", server.grpc.port());
    let mut command = program();
    command
        .args(["health", "--addr", &address, "--ca"])
        .arg(place.path("cert.pem"));
    let output = soon(command.output()).await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut command = program();
    command.args(["health", "--addr", &address]);
    assert!(!soon(command.output()).await.unwrap().status.success());
}
