//! The EC2 instance of the Kubernetes node on which this controller runs, as the API server knows it: asked where the instance
//! metadata service does not answer, as in a pod on an instance whose hop limit is 1.
//! <https://kubernetes.io/docs/concepts/architecture/nodes/>

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tracing::{info, warn};

/// The environment variable that the chart sets to the node's name.
const NODE_NAME: &str = "NODE_NAME";

/// Asked once, at the start. None outside a cluster, and on nodes that are no EC2 instances.
pub async fn own_node_instance(client: &Client) -> Option<String> {
    let name = std::env::var(NODE_NAME).ok().filter(|name| !name.is_empty())?;
    match Api::<Node>::all(client.clone()).get_opt(&name).await {
        Ok(node) => {
            let id = node.and_then(|n| n.spec?.provider_id).as_deref().and_then(instance)?;
            info!(node = name, instance = id, "runs on this instance: it will not be contained");
            Some(id)
        }
        Err(error) => {
            warn!(node = name, %error, "on which instance this controller runs is not known");
            None
        }
    }
}

/// `i-...` of `aws:///eu-west-1a/i-...`.
/// <https://cloud-provider-aws.sigs.k8s.io/prerequisites/>
fn instance(provider_id: &str) -> Option<String> {
    let id = provider_id.strip_prefix("aws://")?.rsplit('/').next()?;
    id.starts_with("i-").then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::instance;

    #[test]
    fn a_node_on_ec2_names_its_instance() {
        assert_eq!(instance("aws:///eu-west-1a/i-0123456789abcdef0").as_deref(), Some("i-0123456789abcdef0"));
        for other in
            ["aws:///eu-west-1a/fargate-ip-10-0-0-1", "gce://project/zone/i-1", "kind://docker/kind/kind-worker", ""]
        {
            assert_eq!(instance(other), None, "{other}");
        }
    }
}
