//! The controller as its users run it: a test can name a binary of its own crate only.

fn main() -> std::process::ExitCode {
    firebreak_controller::main()
}
