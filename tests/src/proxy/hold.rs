//! Holding one call, for tests that kill the controller in the middle of it.

use anyhow::Context;
use tokio::sync::oneshot;

use super::{Answer, Call};

/// Where a call is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// AWS does not know of it yet
    Before,
    /// AWS has done it, but the controller has no answer yet
    After,
}

/// A call that is, or will be, held. Dropping it closes the call's connection without an answer; before the call has come, it
/// lets it pass.
#[derive(Debug)]
pub struct HeldCall {
    reached: Option<oneshot::Receiver<Call>>,
    release: oneshot::Sender<()>,
}

impl HeldCall {
    /// Waits until the call is held.
    pub async fn reached(&mut self) -> Call {
        self.reached_in_time().await.expect("the proxy runs, forwarding did not fail, and the caller did not give up")
    }

    /// Waits until the call is held; None where its caller gave it up before that.
    pub async fn reached_in_time(&mut self) -> Option<Call> {
        self.reached.take().expect("reached once").await.ok()
    }

    /// Lets it go on as if nothing had been.
    pub fn release(self) {
        let _ = self.release.send(());
    }
}

/// The proxy's end.
#[derive(Debug)]
pub struct Hold {
    when: When,
    reached: oneshot::Sender<Call>,
    released: oneshot::Receiver<()>,
}

pub fn hold(when: When) -> (Hold, HeldCall) {
    let (tell_reached, reached) = oneshot::channel();
    let (release, released) = oneshot::channel();
    let held = HeldCall { reached: Some(reached), release };
    (Hold { when, reached: tell_reached, released }, held)
}

impl Hold {
    /// Whether nobody waits for the call any more.
    pub fn is_cancelled(&self) -> bool {
        self.reached.is_closed()
    }

    /// Forwards the call, waiting before or after.
    pub async fn around(self, call: Call, forward: impl Future<Output = anyhow::Result<Answer>>) -> anyhow::Result<Answer> {
        match self.when {
            When::Before => {
                self.wait(call).await?;
                forward.await
            }
            When::After => {
                let answer = forward.await?;
                self.wait(call).await?;
                Ok(answer)
            }
        }
    }

    async fn wait(self, call: Call) -> anyhow::Result<()> {
        let _ = self.reached.send(call);
        self.released.await.context("dropped while held")
    }
}
