//! What an idle session costs. Not a promise on every machine, so run by hand:
//! `cargo test -p duologue --test websocket -- --ignored --nocapture idle`.

use duologue_chat::{ChatConfig, Visibility};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{PROTO, soon};
use crate::system::{System, config};

/// Sessions that are measured.
const SESSIONS: usize = 2_000;
/// Sessions before them, which fill what is allocated once.
const WARM_UP: usize = 200;
/// What the issue of this door allows.
const MAX_BYTES: usize = 16 * 1024;

/// Resident memory of this process.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: usize = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures, and needs a quiet machine"]
async fn an_idle_session_takes_little() {
    // Else each is told of all others, and what that took is found free again.
    let config = ChatConfig {
        visibility: Visibility::Shared,
        ..config()
    };
    let system = System::with(config).await;
    let mut streams = Vec::new();
    let mut before = 0;
    for number in 0..WARM_UP + SESSIONS {
        if number == WARM_UP {
            before = resident_bytes();
        }
        let user = format!("user-{number:06}");
        let mut stream = system.raw(PROTO).await;
        let mut hello = vec![0x82, 0x80 | 15, 0, 0, 0, 0, 0x12, 13, 0x52, 11];
        hello.extend(user.as_bytes());
        stream.write_all(&hello).await.unwrap();
        // Welcome, and what follows until it is quiet: CaughtUp is field 11.
        let mut caught_up = false;
        while !caught_up {
            assert_eq!(soon(stream.read_u8()).await.unwrap(), 0x82);
            let length = match soon(stream.read_u8()).await.unwrap() {
                126 => usize::from(soon(stream.read_u16()).await.unwrap()),
                short => short.into(),
            };
            let mut message = vec![0; length];
            soon(stream.read_exact(&mut message)).await.unwrap();
            caught_up = message[0] == 11 << 3 | 2;
        }
        streams.push(stream);
    }
    let each = (resident_bytes() - before) / SESSIONS;
    println!("an idle session takes {each} bytes, its client's end in this process included");
    assert!(each <= MAX_BYTES, "{each}");
}
