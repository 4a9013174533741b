//! The plane and the emulator that ordinary tests of one test binary share. Each test brings a namespace, an AWS
//! account and a [`crate::proxy::Proxy`] of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::OnceCell;

use crate::emulator::{Aws, Emulator};
use crate::plane::Plane;

/// The shared control plane, started by the first test that asks.
pub async fn plane() -> &'static Plane {
    static PLANE: OnceCell<Plane> = OnceCell::const_new();
    PLANE.get_or_init(async || Plane::start().await.expect("a control plane")).await
}

/// The shared AWS emulator, started by the first test that asks.
pub async fn emulator() -> &'static Emulator {
    static EMULATOR: OnceCell<Emulator> = OnceCell::const_new();
    EMULATOR.get_or_init(async || Emulator::start().await.expect("an AWS emulator")).await
}

/// Clients of an AWS account that no other test has.
pub async fn new_account() -> Aws {
    static NEXT: AtomicU64 = AtomicU64::new(100_000_000_001);
    let account = NEXT.fetch_add(1, Ordering::Relaxed);
    emulator().await.account(&account.to_string()).await.expect("an AWS account")
}
