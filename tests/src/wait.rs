//! Waiting on conditions. A test never sleeps and hopes: it names what it waits for, and until when.

use std::fmt::Display;
use std::time::Duration;

use metasrv::clock::SystemClock;
use metasrv_core::time::{BootTime, Clock as _};

/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// The present instant of the clock that all processes of this machine share.
pub fn now() -> BootTime {
    SystemClock.now()
}

/// Looks at a condition until it holds, and returns what it yields. Panics at the deadline with what was waited for
/// and with the last reason why it did not hold.
pub async fn eventually<T, E: Display>(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let started = now();
    loop {
        let looked = tokio::time::timeout(limit, condition()).await;
        let why = match looked {
            Ok(Ok(value)) => return value,
            Ok(Err(why)) => why.to_string(),
            Err(_) => "looking at the condition took too long".to_owned(),
        };
        let waited = now().since(started);
        assert!(waited < limit, "waited {waited:.1?} for this: {what}; still: {why}");
        tokio::time::sleep(POLL).await;
    }
}

/// Looks at something for a while and panics as soon as it does not hold: for what must not happen.
pub async fn throughout<E: Display>(
    period: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<(), E>,
) {
    let started = now();
    while now().since(started) < period {
        if let Err(why) = condition().await {
            panic!("after {:.1?} this no longer held: {what}; because: {why}", now().since(started));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A future that must end within a limit.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {limit:?} for this: {what}"),
    }
}
