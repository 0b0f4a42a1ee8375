//! The program `duologue`; everything is in the library of the same name.

#[tokio::main]
async fn main() -> std::process::ExitCode {
    duologue::run().await
}
