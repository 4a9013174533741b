//! Firebreak as ordinary tests use it: one plane, one controller process.

use firebreak_tests::controller_process::{ControllerProcess, LogOnFailure};
use firebreak_tests::watching::Sweeper;
use firebreak_tests::world::{World, install};
use firebreak_tests::{imds, shared};
use tokio::sync::{Mutex, OnceCell};

/// The controller's binary.
pub const CONTROLLER: &str = env!("CARGO_BIN_EXE_controller-under-test");

/// The instance on which the shared controller finds itself.
pub const OWN_INSTANCE: &str = "i-0f1eb4ea000000001";

/// Hold it as long as the test runs: it prints the controller's log on failure, and takes away what the test declared.
pub type Guard = (LogOnFailure, Sweeper);

/// A world on the shared plane, where the shared controller runs.
pub async fn world() -> (World<'static>, Guard) {
    worlds(1).await
}

/// The same with so many instances.
pub async fn worlds(instances: usize) -> (World<'static>, Guard) {
    let log = controller().await.lock().await.log_on_failure();
    let world = World::with_instances(shared::plane().await, instances).await;
    let sweeper = world.sweeper();
    (world, (log, sweeper))
}

/// A namespace and a scene, of which no `AwsAccount` and no policy speaks yet.
pub async fn unannounced() -> (World<'static>, Guard) {
    let log = controller().await.lock().await.log_on_failure();
    let world = World::unannounced(shared::plane().await, 1).await;
    let sweeper = world.sweeper();
    (world, (log, sweeper))
}

/// The shared controller, started by the first test that asks.
pub async fn controller() -> &'static Mutex<ControllerProcess> {
    static CONTROLLER_PROCESS: OnceCell<Mutex<ControllerProcess>> = OnceCell::const_new();
    CONTROLLER_PROCESS
        .get_or_init(async || {
            let controller = install(shared::plane().await, CONTROLLER, "2s").await.expect("the chart installs");
            let imds = imds::serve(OWN_INSTANCE).expect("an endpoint");
            let controller = controller.env("AWS_EC2_METADATA_DISABLED", "false");
            let mut controller = controller.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds);
            controller.start().expect("the controller starts");
            Mutex::new(controller)
        })
        .await
}
