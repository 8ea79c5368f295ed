//! `make scale`: so many regions that what each of them costs shows, on as many datanodes as fit into one process.
//!
//! Prints `figure <name> <value> <unit>` lines and writes all figures to `figures/scale.json` in the target directory.
//! Nothing is decided by a time or a size here: it fails where something does not work.

use clap::Parser;
use metasrv_tests::figures::Figures;
use metasrv_tests::scale::{FULL, QUICK, run};

#[derive(Parser)]
#[command(
    about = "Creates, lists, drains and takes over 100,000 regions on 100 datanodes, and measures what that costs"
)]
struct Options {
    /// A twentieth of it: whether it works, not how well.
    #[arg(long)]
    quick: bool,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let size = if Options::parse().quick { QUICK } else { FULL };
    let mut figures = Figures::default();
    run(size, &mut figures).await;
    let path = figures.write("scale")?;
    eprintln!("written to {}", path.display());
    Ok(())
}
