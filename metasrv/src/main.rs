//! The binary `metasrv`: see `command`.

fn main() -> std::process::ExitCode {
    metasrv::command::main()
}
