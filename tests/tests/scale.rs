//! `make scale` works. What it measures is measured without a test beside it.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

/// Goal: thousands of regions are created, listed, drained from a node and taken over by two leaders; each has one route and one
/// writer after each of these, and none moves needlessly. Method: `scale --quick`, which fails where that is not so; its
/// figures are printed and in the file.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_regions_are_created_listed_drained_and_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let scale = std::path::Path::new(env!("CARGO_BIN_EXE_scale"));
    // Asking for a program builds what is missing, so that the command does not.
    metasrv_tests::binaries::binary("metasrv");
    metasrv_tests::binaries::binary("metactl");
    let mut process = metasrv_tests::process::Process::start("scale", scale, ["--quick"], directory.path());
    let status = process.ended(Duration::from_secs(100)).await;
    let printed = process.log();
    assert!(status.success(), "{printed}");
    let file = metasrv_tests::binaries::target_directory().join("figures/scale.json");
    let figures: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for name in
        ["leader_bytes_per_region", "create_seconds", "list_seconds", "drain_seconds", "kill_all_leased_ms"]
    {
        assert!(printed.contains(&format!("figure {name} ")), "{name} is not printed:\n{printed}");
        assert!(figures[name].is_number(), "{name} is not in the file: {figures}");
    }
    assert_eq!((&figures["scale_regions"], &figures["drained_regions"]), (&5_000.into(), &250.into()));
}
