//! The command-line tool `presence`.

fn main() -> std::process::ExitCode {
    presence::cli::run()
}
