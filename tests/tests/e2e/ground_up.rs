//! Firebreak as ordinary tests use it: one plane, one controller process.

use firebreak_tests::controller_process::{ControllerProcess, LogOnFailure};
use firebreak_tests::shared;
use firebreak_tests::world::{World, install};
use tokio::sync::{Mutex, OnceCell};

/// The controller's binary.
pub const CONTROLLER: &str = env!("CARGO_BIN_EXE_controller-under-test");

/// A world on the shared plane, where the shared controller runs. Hold the guard: it prints the controller's log on failure.
pub async fn world() -> (World<'static>, LogOnFailure) {
    worlds(1).await
}

/// The same with so many instances.
pub async fn worlds(instances: usize) -> (World<'static>, LogOnFailure) {
    let log = controller().await.lock().await.log_on_failure();
    (World::with_instances(shared::plane().await, instances).await, log)
}

/// The shared controller, started by the first test that asks.
pub async fn controller() -> &'static Mutex<ControllerProcess> {
    static CONTROLLER_PROCESS: OnceCell<Mutex<ControllerProcess>> = OnceCell::const_new();
    CONTROLLER_PROCESS
        .get_or_init(async || {
            let mut controller = install(shared::plane().await, CONTROLLER, "2s").await.expect("the chart installs");
            controller.start().expect("the controller starts");
            Mutex::new(controller)
        })
        .await
}
