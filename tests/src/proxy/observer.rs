//! Whoever wants to look at the world at the moment at which a changing call comes, before it goes on.

use std::fmt::{Debug, Formatter};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use super::Call;

/// Looks, on the proxy's own runtime. The call waits for it.
pub type Observer = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The place of the observer, if there is one.
#[derive(Default)]
pub struct Observed(OnceLock<Observer>);

impl Observed {
    pub fn by(&self, observer: Observer) {
        assert!(self.0.set(observer).is_ok(), "the proxy is observed already");
    }

    pub async fn tell(&self, call: Call) {
        if let Some(observer) = self.0.get() {
            observer(call).await;
        }
    }
}

impl Debug for Observed {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", if self.0.get().is_some() { "observed" } else { "not observed" })
    }
}
