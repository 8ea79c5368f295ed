//! The reference datanode: `datanode run`. Its regions are small persistent key-value stores, and a write is accepted
//! only while the region's lease says so. This is how the world sees that leases mean something.

mod reference;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    reference::main()
}
