//! The program `duologue`; everything is in the library of the same name.

fn main() -> std::io::Result<std::process::ExitCode> {
    duologue_runtime::threads::run(duologue::run())
}
