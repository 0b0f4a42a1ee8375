//! Two users talk to each other:
//!
//! ```text
//! cargo run -p duologue-client --example chat -- http://127.0.0.1:50051 \
//!     "$(cargo run -q -- token alice)" "$(cargo run -q -- token bob)"
//! ```

#![expect(
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "an example prints, and names the events that it is about"
)]

use duologue_client::{Client, Content, Event, Events, UserId};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connects, and waits until nothing is lacking.
async fn join(address: &str, token: String) -> Result<(Client, Events), Failure> {
    let builder = Client::builder(address).token(token);
    let (client, mut events) = builder.start().await?;
    while let Some(event) = events.next().await {
        match event {
            Event::CaughtUp => break,
            Event::Stopped(reason) => return Err(format!("{reason:?}").into()),
            _ => {}
        }
    }
    Ok((client, events))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(one), Some(other)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: chat ADDRESS TOKEN_OF_ALICE TOKEN_OF_BOB".into());
    };
    let (alice, mut to_alice) = join(&address, one).await?;
    let (bob, mut to_bob) = join(&address, other).await?;

    let sent = alice.send(&UserId::parse("bob")?, "hello, bob").await?;
    while let Some(event) = to_bob.next().await {
        if let Event::Message(message) = event
            && message.message_id == sent
            && let Content::Text(text) = message.content
        {
            println!(
                "bob sees number {} of {}: {text}",
                message.seq, message.peer
            );
            bob.mark_read(&message.peer, message.seq).await?;
            bob.send(&message.peer, "hello, alice").await?;
            break;
        }
    }
    while let Some(event) = to_alice.next().await {
        match event {
            Event::Stored(stored) => println!("stored as number {}", stored.seq),
            Event::Read { peer, seq } => println!("{peer} has read up to {seq}"),
            Event::Message(message) if message.sender == message.peer => break,
            _ => {}
        }
    }
    // The last things said are answered before the program ends.
    println!(
        "not settled: {} and {}",
        alice.close().await?,
        bob.close().await?
    );
    Ok(())
}
