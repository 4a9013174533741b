//! A control plane of one's own, with Firebreak installed.

use firebreak_tests::controller_process::ControllerProcess;
use firebreak_tests::plane::{ControllerManager, Plane};
use firebreak_tests::shared;
use firebreak_tests::world::install;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The controller's binary.
pub const CONTROLLER: &str = env!("CARGO_BIN_EXE_controller-under-test");

/// Each is an API server and a controller: more at once would measure the machine.
static PLACES: Semaphore = Semaphore::const_new(3);

/// A plane, and its controller.
#[derive(Debug)]
pub struct Apart {
    /// Runs, or is about to be started.
    pub controller: ControllerProcess,
    /// With the chart installed.
    pub plane: Plane,
    /// Goes last.
    pub place: SemaphorePermit<'static>,
}

/// A plane with the chart and a running controller.
pub async fn apart(manager: ControllerManager, drift_interval: &str) -> Apart {
    let mut apart = prepared(manager, drift_interval).await;
    apart.controller.start().unwrap();
    apart
}

/// The same, with the controller not started yet.
pub async fn prepared(manager: ControllerManager, drift_interval: &str) -> Apart {
    let permit = PLACES.acquire().await.unwrap();
    let plane = Plane::beside(shared::plane().await, manager).await.unwrap();
    let controller = install(&plane, CONTROLLER, drift_interval).await.unwrap();
    Apart { controller, plane, place: permit }
}
