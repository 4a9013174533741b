//! Short pages, as AWS may give them: fewer results than were asked for, and now and then none although there are more.

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::Answer;
use super::aws_request::AwsRequest;

/// So many results are on a page: the fewest that EC2 lets a caller ask for.
const RESULTS: &str = "5";
/// Leads from the empty first page to the next.
const TOKEN: &str = "after-the-empty-page";

/// The empty page with which a read of EC2 that pages begins.
pub fn first(request: &AwsRequest) -> Option<Answer> {
    if !pages(request) || request.params.contains_key("NextToken") {
        return None;
    }
    let action = &request.action;
    let body = format!(
        "<?xml version=\"1.0\"?><{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
         <requestId>proxy</requestId><nextToken>{TOKEN}</nextToken></{action}Response>"
    );
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/xml"))]);
    Some(Answer { status: StatusCode::OK, headers, body: body.into() })
}

/// The request for a short page in the place of a long one.
pub fn shortened(request: &AwsRequest) -> Bytes {
    if !pages(request) {
        return request.body.clone();
    }
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", &request.action);
    for (name, value) in request.params.iter().filter(|(_, value)| *value != TOKEN) {
        form.append_pair(name, if name == "MaxResults" { RESULTS } else { value });
    }
    form.finish().into()
}

fn pages(request: &AwsRequest) -> bool {
    request.service == "ec2" && request.params.contains_key("MaxResults")
}
