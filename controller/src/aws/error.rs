//! Errors of AWS, classed where they are born. The class alone decides when to try again.

use std::fmt::{Display, Formatter};
use std::time::Duration;

use aws_sdk_ec2::error::SdkError;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// Our code where AWS gave no answer.
const NO_ANSWER: &str = "NoAnswer";

/// AWS failed on its side, after it may have begun.
const MAY_HAVE_HAPPENED: &[&str] =
    &["InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "ServiceFailure", "Unavailable"];

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Try again soon.
    Transient,
    /// AWS said no: a permission is missing. Try again slowly.
    Denied,
    /// The resource does not exist, as far as AWS shows.
    NotFound,
    /// The request cannot work as it is: the spec, or a quota, must change.
    Terminal,
    /// A call that AWS cannot recognise when repeated may have happened: look before repeating it.
    Unknown,
    /// What destroys waits for evidence: nothing was sent.
    Awaiting,
    /// We do not lead, or no longer hold what the call needs: nothing was sent.
    Fenced,
}

impl Class {
    /// The word used in conditions and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Transient => "AwsUnreachable",
            Self::Denied => "AccessDenied",
            Self::NotFound => "NotFound",
            Self::Terminal => "AwsRefused",
            Self::Unknown => "OutcomeUnknown",
            Self::Awaiting => "AwaitingEvidence",
            Self::Fenced => "NotLeading",
        }
    }

    /// When to try again.
    #[must_use]
    pub fn retry_after(self) -> Duration {
        Duration::from_secs(match self {
            Self::Transient | Self::Fenced => 1,
            Self::Unknown => 5,
            Self::NotFound | Self::Terminal | Self::Awaiting => 30,
            Self::Denied => 60,
        })
    }
}

/// One failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct AwsError {
    /// What kind of failure it was.
    pub class: Class,
    /// The operation, with its service: `ec2:DescribeInstances`.
    pub operation: String,
    /// AWS's error code, or ours where AWS gave no answer.
    pub code: String,
    /// AWS's message.
    pub message: String,
}

impl Display for AwsError {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { operation, code, message, .. } = self;
        match self.class {
            Class::Denied if operation == "sts:AssumeRole" => {
                write!(
                    f,
                    "AWS denied {operation} ({code}): grant it to the controller, and let the role trust it. {message}"
                )
            }
            Class::Denied => write!(f, "AWS denied {operation} ({code}): grant it to the role. {message}"),
            _ if code == NO_ANSWER => {
                write!(f, "{operation}: no answer: check the network, and spec.endpointUrl of the AwsAccount. {message}")
            }
            _ => write!(f, "{operation}: {code}: {message}"),
        }
    }
}

impl AwsError {
    /// From the SDK's error. `idempotent`: whether repeating the call is harmless, so that no answer is merely transient.
    pub fn from_sdk<E, R>(operation: &str, idempotent: bool, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        if let Some(refused) = assume_role_refused(error) {
            return Self::from_role(refused);
        }
        let code = error.meta().code();
        let class = match (code, error) {
            (Some(code), _) if !idempotent && MAY_HAVE_HAPPENED.contains(&code) => Class::Unknown,
            (Some(code), _) => class_of(code),
            (None, SdkError::ConstructionFailure(_)) => Class::Terminal,
            (None, SdkError::DispatchFailure(d)) if d.is_user() => Class::Terminal,
            (None, _) if idempotent => Class::Transient,
            (None, _) => Class::Unknown,
        };
        let message = error.meta().message().map_or_else(|| chain(error), str::to_owned);
        Self { class, operation: operation.into(), code: code.unwrap_or(NO_ANSWER).into(), message }
    }

    /// Whatever was to be called: the role could not be assumed, and that is what must be mended.
    fn from_role(refused: &AssumeRoleError) -> Self {
        let (code, message) = (refused.meta().code().unwrap_or(NO_ANSWER), refused.meta().message().unwrap_or_default());
        Self { class: class_of(code), operation: "sts:AssumeRole".into(), code: code.into(), message: message.into() }
    }

    /// For reads where "not found" means that there is nothing.
    ///
    /// # Errors
    /// The error itself, where it is another.
    pub fn none_where_not_found<T: Default>(self) -> Result<T, Self> {
        if self.class == Class::NotFound { Ok(T::default()) } else { Err(self) }
    }

    /// Whether somebody else did the same meanwhile: no failure where the result is read back.
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        ["InvalidGroup.Duplicate", "InvalidPermission.Duplicate", "InvalidPermission.NotFound"].contains(&self.code.as_str())
    }

    /// Whether AWS may have done it all the same.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        self.code == NO_ANSWER || MAY_HAVE_HAPPENED.contains(&self.code.as_str())
    }

    /// Ours: it is not waited for any longer.
    #[must_use]
    pub fn silent(operation: &str, after: Duration) -> Self {
        let message = format!("waited for {} s", after.as_secs());
        Self { class: Class::Transient, operation: operation.into(), code: NO_ANSWER.into(), message }
    }

    /// Ours: nothing was sent.
    pub fn fenced(operation: &str, message: impl Into<String>) -> Self {
        Self { class: Class::Fenced, operation: operation.into(), code: "NotSent".into(), message: message.into() }
    }
}

impl From<super::batch::Lost> for AwsError {
    fn from(lost: super::batch::Lost) -> Self {
        Self { class: Class::Transient, operation: "read".into(), code: NO_ANSWER.into(), message: lost.to_string() }
    }
}

/// What STS said where it refused the role: the SDK hides that among the causes of some other call's failure.
fn assume_role_refused<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e AssumeRoleError> {
    let mut causes = std::iter::successors(Some(error), |e| e.source());
    causes.find_map(|e| e.downcast_ref::<AssumeRoleError>())
}

/// The error and what caused it, in one line: "dispatch failure" alone helps nobody.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>,
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html>
fn class_of(code: &str) -> Class {
    const DENIED: &[&str] =
        &["UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "AuthFailure", "OptInRequired"];
    const TRANSIENT: &[&str] = &[
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "RequestThrottledException",
        "ExpiredToken",
        "RequestExpired",
        "ExpiredTokenException",
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "ServiceUnavailable",
        "ServiceFailure",
        "Unavailable",
        "ConcurrentModification",
        "EntityTemporarilyUnmodifiable",
        "ConcurrentSnapshotLimitExceeded",
        "DependencyViolation",
        "ResourceContention",
        "DependencyThrottle",
        "ScalingActivityInProgress",
    ];
    match code {
        c if DENIED.contains(&c) => Class::Denied,
        c if TRANSIENT.contains(&c) => Class::Transient,
        c if c.contains("NotFound") || ["NoSuchEntity", "InvalidCommandId"].contains(&c) => Class::NotFound,
        _ => Class::Terminal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_class_that_decides_the_retry() {
        for (code, class) in [
            ("UnauthorizedOperation", Class::Denied),
            ("AccessDenied", Class::Denied),
            ("RequestLimitExceeded", Class::Transient),
            ("ConcurrentSnapshotLimitExceeded", Class::Transient),
            ("InvalidInstanceID.NotFound", Class::NotFound),
            ("NoSuchEntity", Class::NotFound),
            ("InvalidCommandId", Class::NotFound),
            ("InternalServerError", Class::Transient),
            ("LimitExceeded", Class::Terminal),
        ] {
            assert_eq!(class_of(code), class, "{code}");
        }
    }

    #[test]
    fn a_denied_call_names_the_permission_to_grant() {
        let error = AwsError {
            class: Class::Denied,
            operation: "iam:PutUserPolicy".into(),
            code: "AccessDenied".into(),
            message: "no".into(),
        };
        assert!(error.to_string().contains("grant it to the role") && error.to_string().contains("iam:PutUserPolicy"));
    }
}
