//! (method, path) -> what is asked for: the table of contents of both surfaces.
//!
//! Both share one port. A path under `/client/v4` belongs to the REST surface; a path of one
//! segment is a key of the binding surface, and since that surface encodes every slash of a key,
//! the two cannot collide. Paths are split as they came, before anything in them is decoded.
//! Absent on purpose: methods and parameters of each resource beyond what chooses it.

use hyper::Method;

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'p> {
    Binding(Binding<'p>),
    Rest(Rest<'p>),
}

/// The binding surface: what a Workers runtime sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Binding<'p> {
    /// `GET /{key}`, the segment as it came.
    Get(&'p str),
    /// `PUT /{key}`
    Put(&'p str),
    /// `DELETE /{key}`
    Delete(&'p str),
    /// `GET /`
    List,
    /// `POST /bulk/get`
    BulkGet,
    /// `POST /bulk/delete`
    BulkDelete,
    /// The resource is there and does not know the method.
    WrongMethod { allow: &'static str },
    /// No such path.
    Unknown,
}

/// The REST surface, below `/client/v4`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rest<'p> {
    /// `GET ../namespaces`
    ListNamespaces,
    /// `POST ../namespaces`
    CreateNamespace,
    /// `GET ../namespaces/{id}`
    GetNamespace(&'p str),
    /// `PUT ../namespaces/{id}`
    RenameNamespace(&'p str),
    /// `DELETE ../namespaces/{id}`
    DeleteNamespace(&'p str),
    /// Keys, values, metadata and bulk of a namespace.
    NotServedYet,
    /// The resource is there and does not know the method.
    WrongMethod { allow: &'static str },
    /// No such path.
    Unknown,
}

/// Finds what is asked for. Never fails: what is unknown is a route too, of its surface.
pub(crate) fn route<'p>(method: &Method, path: &'p str) -> Route<'p> {
    match path.strip_prefix("/client/v4") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Route::Rest(v4(method, rest)),
        _ => Route::Binding(binding(method, path)),
    }
}

fn binding<'p>(method: &Method, path: &'p str) -> Binding<'p> {
    match (method.as_str(), path.strip_prefix('/')) {
        ("POST", Some("bulk/get")) => Binding::BulkGet,
        ("POST", Some("bulk/delete")) => Binding::BulkDelete,
        (_, Some("bulk/get" | "bulk/delete")) => Binding::WrongMethod { allow: "POST" },
        (_, Some(key)) if key.contains('/') => Binding::Unknown,
        ("GET", Some("")) => Binding::List,
        ("GET", Some(key)) => Binding::Get(key),
        ("PUT", Some(key)) => Binding::Put(key),
        ("DELETE", Some(key)) => Binding::Delete(key),
        (_, Some("")) => Binding::WrongMethod { allow: "GET" },
        (_, Some(_)) => Binding::WrongMethod { allow: "GET, PUT, DELETE" },
        (_, None) => Binding::Unknown,
    }
}

fn v4<'p>(method: &Method, path: &'p str) -> Rest<'p> {
    let Some(below) = below_namespaces(path) else { return Rest::Unknown };
    match (method.as_str(), below.split_once('/')) {
        (_, Some((_, what))) => below_one_namespace(what),
        ("GET", None) if below.is_empty() => Rest::ListNamespaces,
        ("POST", None) if below.is_empty() => Rest::CreateNamespace,
        (_, None) if below.is_empty() => Rest::WrongMethod { allow: "GET, POST" },
        ("GET", None) => Rest::GetNamespace(below),
        ("PUT", None) => Rest::RenameNamespace(below),
        ("DELETE", None) => Rest::DeleteNamespace(below),
        (_, None) => Rest::WrongMethod { allow: "GET, PUT, DELETE" },
    }
}

/// What follows `/accounts/{account}/storage/kv/namespaces`; any account will do.
fn below_namespaces(path: &str) -> Option<&str> {
    let (account, below) = path.strip_prefix("/accounts/")?.split_once('/')?;
    let below = below.strip_prefix("storage/kv/namespaces")?;
    let known = !account.is_empty() && (below.is_empty() || below.starts_with('/'));
    known.then(|| below.strip_prefix('/').unwrap_or(below))
}

fn below_one_namespace<'p>(what: &str) -> Rest<'p> {
    match what.split('/').next() {
        Some("keys" | "values" | "metadata" | "bulk") => Rest::NotServedYet,
        _ => Rest::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(method: &str, path: &'static str) -> Binding<'static> {
        match route(&method.parse().expect("a method"), path) {
            Route::Binding(found) => found,
            Route::Rest(_) => panic!("{path} went to the REST surface"),
        }
    }

    fn rest(method: &str, path: &'static str) -> Rest<'static> {
        match route(&method.parse().expect("a method"), path) {
            Route::Rest(found) => found,
            Route::Binding(_) => panic!("{path} went to the binding surface"),
        }
    }

    #[test]
    fn a_single_segment_is_a_key_however_it_looks() {
        for key in ["bulk", "client", "bulk%2Fget", "client%2Fv4%2Fx", "favicon.ico", "..", "%2F"] {
            let path: &'static str = format!("/{key}").leak();
            assert_eq!(binding("GET", path), Binding::Get(key));
            assert_eq!(binding("PUT", path), Binding::Put(key));
            assert_eq!(binding("DELETE", path), Binding::Delete(key));
            assert!(matches!(binding("HEAD", path), Binding::WrongMethod { .. }));
        }
    }

    #[test]
    fn the_root_lists_and_bulk_paths_take_posts() {
        assert_eq!(binding("GET", "/"), Binding::List);
        assert_eq!(binding("PUT", "/"), Binding::Put(""));
        assert_eq!(binding("POST", "/bulk/get"), Binding::BulkGet);
        assert_eq!(binding("POST", "/bulk/delete"), Binding::BulkDelete);
        assert_eq!(binding("GET", "/bulk/get"), Binding::WrongMethod { allow: "POST" });
        for path in ["/a/b", "//", "/a/", "/client/v3/x", "*", "/bulk/get/"] {
            assert_eq!(binding("GET", path), Binding::Unknown, "{path}");
        }
    }

    #[test]
    fn the_rest_surface_knows_namespaces_and_what_is_below_them() {
        const BASE: &str = "/client/v4/accounts/a/storage/kv/namespaces";
        assert_eq!(rest("GET", BASE), Rest::ListNamespaces);
        assert_eq!(rest("POST", BASE), Rest::CreateNamespace);
        assert_eq!(
            rest("GET", "/client/v4/accounts/a/storage/kv/namespaces/"),
            Rest::ListNamespaces
        );
        let one = "/client/v4/accounts/a/storage/kv/namespaces/0f";
        assert_eq!(rest("GET", one), Rest::GetNamespace("0f"));
        assert_eq!(rest("PUT", one), Rest::RenameNamespace("0f"));
        assert_eq!(rest("DELETE", one), Rest::DeleteNamespace("0f"));
        assert!(matches!(rest("PATCH", one), Rest::WrongMethod { .. }));
        assert_eq!(
            rest("GET", "/client/v4/accounts/a/storage/kv/namespaces/0f/values/k"),
            Rest::NotServedYet
        );
        for path in [
            "/client/v4",
            "/client/v4/",
            "/client/v4/user/tokens/verify",
            "/client/v4/accounts//storage/kv/namespaces",
            "/client/v4/accounts/a/storage/kv/namespacesx",
            "/client/v4/accounts/a/storage/kv/namespaces/0f/nonsense",
        ] {
            assert_eq!(rest("GET", path), Rest::Unknown, "{path}");
        }
    }
}
