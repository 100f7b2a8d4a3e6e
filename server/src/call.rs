//! One request as its handler sees it.
//!
//! A handler gets one of these and the body, which only one of them reads. Absent on purpose: the
//! answer, which each handler returns.

use hyper::HeaderMap;
use hyper::http::request::Parts;

use crate::app::App;
use crate::auth::Grant;
use crate::route::Asked;
use crate::trace::RequestId;

/// What is asked, by whom, and of what.
pub(crate) struct Call<'r> {
    pub(crate) app: &'r App,
    pub(crate) asked: Asked<'r>,
    pub(crate) parts: &'r Parts,
    pub(crate) grant: Grant,
    pub(crate) id: &'r RequestId,
}

impl Call<'_> {
    pub(crate) fn query(&self) -> Option<&str> {
        self.parts.uri.query()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }
}
