//! A request to AWS, and what it asks for.

use std::collections::BTreeMap;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request};

/// Prefixes of the actions that change nothing.
const READING: [&str; 8] = ["Describe", "Get", "List", "AssumeRole", "Decode", "Simulate", "Lookup", "Head"];

/// A request of AWS's query protocol (EC2, IAM, STS, ELB, Auto Scaling): a form with `Action` and its parameters.
#[derive(Debug)]
pub struct AwsRequest {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Such as `ec2`; empty when the request is not signed
    pub service: String,
    /// Such as `DescribeInstances`
    pub action: String,
    pub params: BTreeMap<String, String>,
}

impl AwsRequest {
    pub async fn read(request: Request<Incoming>) -> anyhow::Result<Self> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut params: BTreeMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
        let action = params.remove("Action").unwrap_or_else(|| format!("{} {}", parts.method, parts.uri.path()));
        Ok(Self {
            service: signed_service(&parts.headers).unwrap_or_default(),
            method: parts.method,
            path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            headers: without_hop(parts.headers),
            body,
            action,
            params,
        })
    }

    pub fn is_changing(&self) -> bool {
        is_changing(&self.action)
    }
}

pub fn is_changing(action: &str) -> bool {
    !READING.iter().any(|prefix| action.starts_with(prefix))
}

/// From the scope of the signature: `Credential=<key>/<day>/<region>/<service>/aws4_request`.
fn signed_service(headers: &HeaderMap) -> Option<String> {
    let authorization = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let scope = authorization.split_once("Credential=")?.1.split(',').next()?;
    scope.split('/').nth(3).map(str::to_owned)
}

/// `Host` stays, since the signature covers it.
fn without_hop(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(header::CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_read_from_the_signature() {
        let mut headers = HeaderMap::new();
        let value = "AWS4-HMAC-SHA256 Credential=ASIA1/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0";
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        assert_eq!(signed_service(&headers).as_deref(), Some("iam"));
    }

    #[test]
    fn reading_is_not_changing() {
        assert!(!is_changing("AssumeRole") && !is_changing("DescribeSnapshots"));
        assert!(is_changing("ModifyInstanceAttribute") && is_changing("PutUserPolicy"));
    }
}
