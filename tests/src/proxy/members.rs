//! Short pages of IAM, Auto Scaling and Elastic Load Balancing: the first is empty, and each after it has one member. The emulator
//! gives all at once, so they are cut out of that.

use std::ops::Range;

use hyper::body::Bytes;

use super::Answer;
use super::aws_request::AwsRequest;

const PAGE: &str = "firebreak-page-";

/// The parameter that asks for a page, and the element that names the next.
fn names(request: &AwsRequest) -> Option<(&'static str, &'static str)> {
    match (request.service.as_str(), request.action.as_str()) {
        ("iam", "ListServiceSpecificCredentials") => None, // the emulator pages them itself
        ("iam", action) if action.starts_with("List") => Some(("Marker", "Marker")),
        ("autoscaling", action) if action.starts_with("Describe") => Some(("NextToken", "NextToken")),
        ("elasticloadbalancing", "DescribeTargetGroups" | "DescribeLoadBalancers") => Some(("Marker", "NextMarker")),
        _ => None,
    }
}

/// The request for all that a paged one is a part of.
pub fn whole(request: &AwsRequest) -> Option<Bytes> {
    let (parameter, _) = names(request)?;
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", &request.action);
    form.extend_pairs(request.params.iter().filter(|(name, _)| *name != parameter));
    Some(form.finish().into())
}

/// The page that was asked for.
pub fn page(request: &AwsRequest, answer: Answer) -> Answer {
    let Some((parameter, element)) = names(request).filter(|_| answer.status.is_success()) else { return answer };
    let asked = request.params.get(parameter).and_then(|marker| marker.strip_prefix(PAGE));
    let number = asked.and_then(|number| number.parse().ok()).unwrap_or_default();
    let text = String::from_utf8_lossy(&answer.body);
    match cut(&text, number, element, request.service == "iam") {
        Some(page) => Answer { body: page.into(), ..answer },
        None => answer,
    }
}

/// None where there is no member at all.
fn cut(text: &str, number: usize, element: &str, is_iam: bool) -> Option<String> {
    let members = members(text);
    let (start, end) = (members.first()?.start, members.last()?.end);
    let shown = number.checked_sub(1).and_then(|index| members.get(index)).map_or("", |member| &text[member.clone()]);
    let more = number < members.len();
    let next = if more { format!("<{element}>{PAGE}{}</{element}>", number + 1) } else { String::new() };
    let truncated = if is_iam { format!("<IsTruncated>{more}</IsTruncated>") } else { String::new() };
    let without = |text: &str| text.replace("<IsTruncated>false</IsTruncated>", "");
    let (before, rest) = (without(&text[..start]), without(&text[end..]));
    let (inside, after) = rest.split_once("Result>")?;
    let (tail, closing) = inside.rsplit_once("</")?;
    Some(format!("{before}{shown}{tail}{truncated}{next}</{closing}Result>{after}"))
}

/// The members of the first list, not those within them.
fn members(text: &str) -> Vec<Range<usize>> {
    let (mut found, mut depth, mut begun, mut at) = (Vec::new(), 0_usize, 0, 0);
    while let Some(offset) = ["<member>", "</member>"].iter().filter_map(|tag| text[at..].find(tag)).min() {
        let tag = at + offset;
        let opens = text[tag..].starts_with("<member>");
        if opens && depth == 0 {
            if !found.is_empty() && !text[at..tag].trim().is_empty() {
                break; // another list
            }
            begun = tag;
        }
        depth = if opens { depth + 1 } else { depth.saturating_sub(1) };
        at = tag + if opens { "<member>".len() } else { "</member>".len() };
        if !opens && depth == 0 {
            found.push(begun..at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "<R><ListXResult><IsTruncated>false</IsTruncated><Xs><member><T><member>t</member></T></member>\n<member>2</member></Xs></ListXResult><Other><member>o</member></Other></R>";

    #[test]
    fn the_first_page_is_empty_and_the_others_have_one_member_each() {
        let page = |number| cut(ALL, number, "Marker", true).unwrap();
        let shown = |list: &str, end: &str| {
            format!("<R><ListXResult><Xs>{list}</Xs>{end}</ListXResult><Other><member>o</member></Other></R>")
        };
        let more = |n| format!("<IsTruncated>true</IsTruncated><Marker>firebreak-page-{n}</Marker>");
        assert_eq!(page(0), shown("", &more(1)));
        assert_eq!(page(1), shown("<member><T><member>t</member></T></member>", &more(2)));
        assert_eq!(page(2), shown("<member>2</member>", "<IsTruncated>false</IsTruncated>"));
        assert_eq!(cut("<R><ListXResult><Xs/></ListXResult></R>", 0, "Marker", true), None);
    }
}
