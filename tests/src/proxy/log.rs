//! Every call that passed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::aws_request::{AwsRequest, is_changing};

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its place among the proxy's calls, from 0
    pub seq: usize,
    /// When it came
    pub started: Instant,
    /// When it was answered, if it was
    pub finished: Option<Instant>,
    /// `ec2`, `iam`, `sts`
    pub service: String,
    /// Such as `DescribeInstances`
    pub action: String,
    /// Its parameters, flat as in the form: `Filter.1.Name`
    pub params: BTreeMap<String, String>,
    /// The answer's HTTP status
    pub status: Option<u16>,
    /// The answer's error code
    pub error: Option<String>,
}

impl Call {
    /// Whether it would change something: its action is no `Describe*`, `Get*`, `List*`, `AssumeRole*` and so on.
    pub fn is_changing(&self) -> bool {
        is_changing(&self.action)
    }

    /// Whether AWS did it.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status < 300)
    }

    /// How long it took.
    pub fn took(&self) -> Option<Duration> {
        Some(self.finished?.duration_since(self.started))
    }
}

#[derive(Debug, Default)]
pub struct Log(Mutex<Vec<Call>>);

impl Log {
    pub fn begin(&self, request: &AwsRequest) -> usize {
        let mut calls = self.0.lock().unwrap();
        let seq = calls.len();
        calls.push(Call {
            seq,
            started: Instant::now(),
            finished: None,
            service: request.service.clone(),
            action: request.action.clone(),
            params: request.params.clone(),
            status: None,
            error: None,
        });
        seq
    }

    pub fn finish(&self, seq: usize, status: u16, error: Option<String>) {
        let call = &mut self.0.lock().unwrap()[seq];
        call.finished = Some(Instant::now());
        call.status = Some(status);
        call.error = error;
    }

    pub fn call(&self, seq: usize) -> Call {
        self.0.lock().unwrap()[seq].clone()
    }

    pub fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().clone()
    }
}
