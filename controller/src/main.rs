//! The binary `firebreak-controller`.

fn main() -> std::process::ExitCode {
    firebreak_controller::main()
}
