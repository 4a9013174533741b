//! What the demo runs on: a control plane, an AWS account in an emulator with something to contain, and the manifests of
//! `examples/` with this account's endpoint, instance and access key filled in.

use std::fs;
use std::path::Path;

use firebreak_tests::emulator::{Aws, Emulator};
use firebreak_tests::plane::Plane;
use firebreak_tests::proxy::Proxy;
use firebreak_tests::scene::{self, Scene};

/// The account of the examples.
const ACCOUNT: &str = "111122223333";
/// The instance of the examples.
const INSTANCE: &str = "i-0123456789abcdef0";
/// The access key of the examples.
const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const ENDPOINT: &str = "# endpointUrl: http://127.0.0.1:5000";

/// The ground, without Firebreak. Drops in this order.
pub struct Stage {
    /// What the controller takes for AWS: it keeps a log.
    pub proxy: Proxy,
    /// AWS itself.
    pub aws: Aws,
    /// What is in it.
    pub scene: Scene,
    /// Kubernetes.
    pub plane: Plane,
    _emulator: Emulator,
}

impl Stage {
    pub async fn build() -> anyhow::Result<Self> {
        let (plane, emulator) = tokio::try_join!(Plane::start(), Emulator::start())?;
        let aws = emulator.account(ACCOUNT).await?;
        let scene = Scene::seed(&aws).await?;
        scene::role(&aws).await?;
        scene.open_to_internet(&aws).await?;
        scene::tag(&aws, &scene.instances[0].id, "service", "web").await?; // what an example selects by
        let proxy = Proxy::start(&emulator.url())?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let stage = Self { proxy, aws, scene, plane, _emulator: emulator };
        stage.copy_examples(&root.join("examples"))?;
        std::os::unix::fs::symlink(root.canonicalize()?.join("charts"), stage.plane.folder().join("charts"))?;
        Ok(stage)
    }

    fn copy_examples(&self, from: &Path) -> anyhow::Result<()> {
        let to = self.plane.folder().join("examples");
        fs::create_dir(&to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let text = fs::read_to_string(entry.path())?;
            let endpoint = format!("endpointUrl: {}", self.proxy.url());
            let text = text.replace(INSTANCE, &self.scene.instances[0].id).replace(KEY, &self.scene.access_keys[0]);
            let text = text.replace(ENDPOINT, &endpoint);
            fs::write(to.join(entry.file_name()), text)?;
        }
        Ok(())
    }
}
