//! `make demo`: the main job, told with the commands that a responder would type. Each step is checked; the first that did
//! not happen ends the demo with an error. `KEEP=1` leaves everything up until Ctrl-C.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod narrator;
mod picture;
mod stage;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use firebreak_tests::controller_process::ControllerProcess;

use crate::narrator::Narrator;
use crate::stage::Stage;

#[tokio::main]
async fn main() -> ExitCode {
    // Waiting in vain panics, in the harness: what it waited for is the message.
    std::panic::set_hook(Box::new(|panic| eprintln!("\ndemo: failed. {}", panic.payload_as_str().unwrap_or("panicked"))));
    match demo().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: failed. {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> anyhow::Result<()> {
    let started = Instant::now();
    println!("Starting a Kubernetes control plane and an AWS emulator (some 10 seconds) ...");
    let stage = Stage::build().await?;
    let folder = stage.plane.folder().to_owned();
    let mut narrator = Narrator::new(folder, stage.plane.kubeconfig(), started);
    let controller = story::tell(&mut narrator, &stage).await?;
    if std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty() && keep != "0") {
        keep(&narrator, &stage, &controller).await?;
    }
    Ok(())
}

/// Where `firebreak-controller` is: beside this one.
fn binaries() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().context("a folder")?.to_owned())
}

/// Everything goes with this process, so it stays.
async fn keep(narrator: &Narrator, stage: &Stage, controller: &ControllerProcess) -> anyhow::Result<()> {
    println!("\nEverything is left up, until you press Ctrl-C here. In another terminal:\n");
    println!("    export KUBECONFIG={}", stage.plane.kubeconfig().display());
    println!("    export PATH={}:{}:$PATH", firebreak_tests::tools::control_plane().display(), binaries()?.display());
    println!("    cd {}", narrator.folder.display());
    println!("    sed -i 's/^  mode: .*/  mode: Contain/' examples/30-incident.yaml && kubectl apply -f examples/");
    println!("    kubectl get incidents,quarantines,evidence -A");
    println!("    tail -f {}", controller.log_path().display());
    println!("    firebreak-controller export > backup.json   # and, with the variables below, inventory --account prod\n");
    println!("AWS, with any tool that knows these variables (the same endpoint that the controller uses):\n");
    println!("    export AWS_ENDPOINT_URL={} AWS_DEFAULT_REGION={}", stage.proxy.url(), firebreak_tests::emulator::REGION);
    for (name, value) in stage.aws.environment() {
        println!("    export {name}={value}");
    }
    tokio::signal::ctrl_c().await?;
    println!("\nstopped");
    Ok(())
}
