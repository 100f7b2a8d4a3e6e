//! What all requests of one server share.

use std::sync::Arc;

use crate::auth::Auth;
use crate::body::Uploads;
use crate::bridge::Bridge;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::phase::Phase;

/// The namespace of requests that name none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// The store behind its bridge, and the rules for whoever comes to it.
pub(crate) struct App {
    pub(crate) bridge: Bridge,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) auth: Auth,
    pub(crate) metrics: Metrics,
    pub(crate) phase: Phase,
    /// Log each request at the level `info`.
    pub(crate) access_log: bool,
    pub(crate) limits: Limits,
}
