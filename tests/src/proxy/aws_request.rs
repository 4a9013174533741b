//! A request to AWS, and what it asks for.

use std::collections::BTreeMap;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request};
use serde_json::Value;

/// Prefixes of the actions that change nothing.
const READING: [&str; 8] = ["Describe", "Get", "List", "AssumeRole", "Decode", "Simulate", "Lookup", "Head"];

/// A request of AWS's query protocol (EC2, IAM, STS, ELB, Auto Scaling), a form with `Action` and its parameters; or of its JSON
/// protocol (Systems Manager), which names the action in a header.
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
    /// Flat, also where the request is not: `InstanceIds.1`
    pub params: BTreeMap<String, String>,
}

impl AwsRequest {
    pub async fn read(request: Request<Incoming>) -> anyhow::Result<Self> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let (action, params) = match json_action(&parts.headers) {
            Some(action) => (Some(action), json_params(&body)?),
            None => query(&body),
        };
        let action = action.unwrap_or_else(|| format!("{} {}", parts.method, parts.uri.path()));
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

fn query(body: &[u8]) -> (Option<String>, BTreeMap<String, String>) {
    let mut params: BTreeMap<_, _> = form_urlencoded::parse(body).into_owned().collect();
    (params.remove("Action"), params)
}

/// `TerminateSession` of `X-Amz-Target: AmazonSSM.TerminateSession`.
fn json_action(headers: &HeaderMap) -> Option<String> {
    let target = headers.get("x-amz-target")?.to_str().ok()?;
    target.split_once('.').map(|(_, action)| action.to_owned())
}

fn json_params(body: &[u8]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut params = BTreeMap::new();
    flatten(&mut params, String::new(), serde_json::from_slice(body)?);
    Ok(params)
}

/// Places in a list count from 1, as in the query protocol.
fn flatten(params: &mut BTreeMap<String, String>, name: String, value: Value) {
    let beneath = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(fields) => fields.into_iter().for_each(|(key, value)| flatten(params, beneath(&key), value)),
        Value::Array(items) => (1..).zip(items).for_each(|(n, item)| flatten(params, beneath(&n.to_string()), item)),
        Value::String(text) => drop(params.insert(name, text)),
        other => drop(params.insert(name, other.to_string())),
    }
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
    fn a_json_request_has_its_action_in_a_header_and_flat_parameters() {
        let headers = HeaderMap::from_iter([("x-amz-target".parse().unwrap(), "AmazonSSM.CancelCommand".parse().unwrap())]);
        assert_eq!(json_action(&headers).as_deref(), Some("CancelCommand"));
        let params =
            json_params(br#"{"CommandId": "c-1", "InstanceIds": ["i-1", "i-2"], "Filters": [{"key": "Status"}], "Max": 5}"#);
        let expected = [
            ("CommandId", "c-1"),
            ("Filters.1.key", "Status"),
            ("InstanceIds.1", "i-1"),
            ("InstanceIds.2", "i-2"),
            ("Max", "5"),
        ];
        assert_eq!(params.unwrap(), expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn reading_is_not_changing() {
        assert!(!is_changing("AssumeRole") && !is_changing("DescribeSnapshots"));
        assert!(is_changing("ModifyInstanceAttribute") && is_changing("PutUserPolicy"));
    }
}
