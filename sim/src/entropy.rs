//! Every number that nobody can foresee, made foreseeable: random bytes and clocks of the threads that simulate.
//!
//! The seeds of hash maps, of tokio's scheduler and of thread-local random numbers come from `getrandom`, and the time
//! of `Instant` and `SystemTime` from `clock_gettime`. Both are functions of the C library, and a program that defines
//! them itself is called instead. On a thread that simulates they answer from the seed and from virtual time; on any other
//! they ask the kernel, as before.

// Two functions of the C library are replaced; there is no safe way to define them.
#![allow(unsafe_code)]

use std::cell::Cell;

use rustix::time::{ClockId, clock_gettime as kernel_time};

/// 2026-01-01: what simulated wall clocks begin at, in seconds since 1970.
const WALL_BEGIN: u64 = 1_767_225_600;

const NANOS: u64 = 1_000_000_000;

thread_local! {
    /// The state of this thread's generator; none where it does not simulate.
    static RANDOM: Cell<Option<u64>> = const { Cell::new(None) };
    /// Virtual time in nanoseconds: since the machine's start, and since [`WALL_BEGIN`].
    static TIME: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// From now on this thread simulates, with random bytes of this seed.
pub fn begin(seed: u64) {
    RANDOM.set(Some(seed));
    TIME.set((NANOS, 0));
}

/// What this thread's clocks show: nanoseconds of the running host's own clock, and of true time.
pub fn set_time(boot_nanos: u64, wall_nanos: u64) {
    TIME.set((boot_nanos, wall_nanos));
}

/// One step of splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The C library's `getrandom`.
///
/// # Safety
/// As the C library has it: `buffer` points to `length` bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller owns these bytes for the time of the call.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    if let Ok(Some(mut state)) = RANDOM.try_with(Cell::get) {
        for chunk in bytes.chunks_mut(8) {
            let random = next(&mut state).to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
        RANDOM.set(Some(state));
        return isize::try_from(length).unwrap_or(isize::MAX);
    }
    match rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::from_bits_retain(flags)) {
        Ok(filled) => isize::try_from(filled).unwrap_or(isize::MAX),
        Err(_) => -1,
    }
}

/// The C library's `struct timespec` on 64-bit machines.
#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanos: i64,
}

/// The C library's `clock_gettime`.
///
/// # Safety
/// As the C library has it: `time` points to a `timespec` that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: i32, time: *mut Timespec) -> i32 {
    let wall = matches!(clock, 0 | 5);
    let simulated = matches!(RANDOM.try_with(Cell::get), Ok(Some(_)));
    let (seconds, nanos) = match clock {
        0 | 1 | 4..=7 if simulated => {
            let (boot, real) = TIME.try_with(Cell::get).unwrap_or_default();
            let shown = if wall { real.saturating_add(WALL_BEGIN * NANOS) } else { boot };
            (shown / NANOS, shown % NANOS)
        }
        known => {
            let kernel = kernel_time(match known {
                0 => ClockId::Realtime,
                2 => ClockId::ProcessCPUTime,
                3 => ClockId::ThreadCPUTime,
                5 => ClockId::RealtimeCoarse,
                6 => ClockId::MonotonicCoarse,
                7 => ClockId::Boottime,
                _ => ClockId::Monotonic,
            });
            (u64::try_from(kernel.tv_sec).unwrap_or(0), u64::try_from(kernel.tv_nsec).unwrap_or(0))
        }
    };
    let shown = Timespec {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i64::try_from(nanos).unwrap_or(0),
    };
    // SAFETY: the caller owns what `time` points to for the time of the call.
    unsafe { time.write(shown) };
    0
}
