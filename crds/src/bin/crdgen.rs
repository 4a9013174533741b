//! Writes `crds/manifests/*.yaml` and `docs/api.md` from the API types: `firebreak-crdgen ROOT`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    for (path, text) in firebreak_crds::docs::generated()? {
        let path = Path::new(&root).join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(())
}
