//! (method, path) -> what is asked for: the table of contents of all surfaces.
//!
//! All share one port. A path under `/client/v4` belongs to the REST surface, one under `/v1` to the
//! native surface; a path of one segment is a key of the binding surface, and since that surface
//! encodes every slash of a key, the three cannot collide. The operator's paths are single segments
//! too: they are the operator's only when nothing else about a request says that it comes from a
//! Workers runtime, which marks every request for a key with `urlencoded`. Paths are split as they
//! came, before anything in them is decoded. Absent on purpose: parameters of each resource.

use std::sync::LazyLock;

use hyper::Method;
use matchit::Router;

/// What a token must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: whoever may connect may ask.
    Open,
    Read,
    Write,
}

/// One kind of request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) surface: Surface,
    pub(crate) method: &'static str,
    /// The path; braces stand for one segment, as it came.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    /// The operation's name, in metrics and logs.
    pub(crate) name: &'static str,
    pub(crate) operation: Operation,
}

/// Who a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    Binding,
    Rest,
    Native,
    Ops,
}

impl Surface {
    /// Its name in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Surface::Binding => "binding",
            Surface::Rest => "rest",
            Surface::Native => "native",
            Surface::Ops => "ops",
        }
    }
}

impl Line {
    /// Its place among [`lines`].
    pub(crate) fn place(&self) -> usize {
        match self.operation {
            Operation::Binding(operation) => operation as usize,
            Operation::Rest(operation) => BINDING.len() + operation as usize,
            Operation::Native(operation) => BINDING.len() + REST.len() + operation as usize,
            Operation::Ops(operation) => {
                BINDING.len() + REST.len() + NATIVE.len() + operation as usize
            }
        }
    }
}

/// A line of one surface's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Binding(Binding),
    Rest(Rest),
    Native(Native),
    Ops(Ops),
}

macro_rules! surface {
    (
        $(#[$doc:meta])*
        $surface:ident, $lines:ident, below $base:literal:
        $($method:ident $path:literal $operation:ident $access:ident $name:literal;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $surface { $($operation),* }

        const $lines: &[Line] = &[$(Line {
            surface: Surface::$surface,
            method: stringify!($method),
            path: concat!($base, $path),
            access: Access::$access,
            name: $name,
            operation: Operation::$surface($surface::$operation),
        }),*];
    };
}

surface! {
    /// The binding surface: what a Workers runtime sends. Its header names the namespace.
    Binding, BINDING, below "":
    GET    "/{key}"                      Get                Read   "get";
    PUT    "/{key}"                      Put                Write  "put";
    DELETE "/{key}"                      Delete             Write  "delete";
    GET    "/"                           List               Read   "list";
    POST   "/bulk/get"                   BulkGet            Read   "bulk_get";
    POST   "/bulk/delete"                BulkDelete         Write  "bulk_delete";
}

surface! {
    /// The REST surface: the v4 API as command line tools and SDKs speak it.
    Rest, REST, below "/client/v4/accounts/{account}/storage/kv/namespaces":
    GET    ""                            ListNamespaces     Read   "list_namespaces";
    POST   ""                            CreateNamespace    Write  "create_namespace";
    GET    "/{namespace}"                GetNamespace       Read   "get_namespace";
    PUT    "/{namespace}"                RenameNamespace    Write  "rename_namespace";
    DELETE "/{namespace}"                DeleteNamespace    Write  "delete_namespace";
    GET    "/{namespace}/keys"           ListKeys           Read   "list";
    GET    "/{namespace}/values/{key}"   GetValue           Read   "get";
    HEAD   "/{namespace}/values/{key}"   HeadValue          Read   "head";
    PUT    "/{namespace}/values/{key}"   PutValue           Write  "put";
    DELETE "/{namespace}/values/{key}"   DeleteValue        Write  "delete";
    GET    "/{namespace}/metadata/{key}" GetMetadata        Read   "get_metadata";
    PUT    "/{namespace}/bulk"           BulkPut            Write  "bulk_put";
    DELETE "/{namespace}/bulk"           BulkDeleteByDelete Write  "bulk_delete_by_delete";
    POST   "/{namespace}/bulk/get"       BulkGet            Read   "bulk_get";
    POST   "/{namespace}/bulk/delete"    BulkDelete         Write  "bulk_delete";
}

surface! {
    /// The native surface, for those who are not bound to another API's shapes.
    Native, NATIVE, below "/v1/namespaces":
    GET    ""                            ListNamespaces     Read   "list_namespaces";
    POST   ""                            CreateNamespace    Write  "create_namespace";
    GET    "/{namespace}"                GetNamespace       Read   "get_namespace";
    PATCH  "/{namespace}"                ChangeNamespace    Write  "change_namespace";
    DELETE "/{namespace}"                DeleteNamespace    Write  "delete_namespace";
    GET    "/{namespace}/keys"           ListKeys           Read   "list";
    GET    "/{namespace}/keys/{key}"     GetValue           Read   "get";
    HEAD   "/{namespace}/keys/{key}"     HeadValue          Read   "head";
    PUT    "/{namespace}/keys/{key}"     PutValue           Write  "put";
    PATCH  "/{namespace}/keys/{key}"     ChangeExpiry       Write  "change_expiry";
    DELETE "/{namespace}/keys/{key}"     DeleteValue        Write  "delete";
    POST   "/{namespace}/batch"          Batch              Write  "batch";
}

surface! {
    /// What an operator's tools ask.
    Ops, OPS, below "":
    GET    "/healthz"                    Health             Open   "healthz";
    HEAD   "/healthz"                    HeadHealth         Open   "head_healthz";
    GET    "/readyz"                     Ready              Open   "readyz";
    HEAD   "/readyz"                     HeadReady          Open   "head_readyz";
    GET    "/metrics"                    Metrics            Read   "metrics";
    GET    "/openapi.json"               OpenApi            Read   "openapi";
}

/// All lines of all surfaces.
pub(crate) fn lines() -> impl Iterator<Item = &'static Line> {
    [BINDING, REST, NATIVE, OPS].into_iter().flatten()
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route {
    Found(&'static Line),
    /// The resource is there and does not know the method.
    WrongMethod {
        surface: Surface,
        allow: &'static str,
    },
    /// No such path.
    Unknown {
        surface: Surface,
    },
}

impl Route {
    /// The operation's name in metrics and logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Route::Found(line) => line.name,
            Route::WrongMethod { .. } | Route::Unknown { .. } => "none",
        }
    }

    pub(crate) fn surface(&self) -> Surface {
        match self {
            Route::Found(line) => line.surface,
            Route::WrongMethod { surface, .. } | Route::Unknown { surface } => *surface,
        }
    }
}

/// A route, and the segments that fill its braces, as they came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'p> {
    pub(crate) route: Route,
    pub(crate) namespace: &'p str,
    pub(crate) key: &'p str,
}

impl Asked<'_> {
    fn unknown(surface: Surface) -> Self {
        Asked { route: Route::Unknown { surface }, namespace: "", key: "" }
    }
}

/// Finds what is asked for. Never fails: what is unknown is a route too, of its surface.
/// `from_runtime` says that the request bears the marks of a Workers runtime.
pub(crate) fn route<'p>(method: &Method, path: &'p str, from_runtime: bool) -> Asked<'p> {
    let below = |base| path.strip_prefix(base).is_some_and(|rest: &str| rest.starts_with('/'));
    if below("/client/v4") || path == "/client/v4" {
        return resource(Surface::Rest, method, path);
    }
    if below("/v1") {
        return resource(Surface::Native, method, path);
    }
    if !from_runtime && OPS.iter().any(|line| line.path == path) {
        return resource(Surface::Ops, method, path);
    }
    binding(method, path)
}

fn binding<'p>(method: &Method, path: &'p str) -> Asked<'p> {
    let surface = Surface::Binding;
    let Some(key) = path.strip_prefix('/') else { return Asked::unknown(surface) };
    let found = |operation| Route::Found(binding_line(operation));
    let wrong = |allow| Route::WrongMethod { surface, allow };
    let route = match (method.as_str(), key) {
        ("POST", "bulk/get") => found(Binding::BulkGet),
        ("POST", "bulk/delete") => found(Binding::BulkDelete),
        (_, "bulk/get" | "bulk/delete") => wrong("POST"),
        (_, key) if key.contains('/') => Route::Unknown { surface },
        ("GET", "") => found(Binding::List),
        ("GET", _) => found(Binding::Get),
        ("PUT", _) => found(Binding::Put),
        ("DELETE", _) => found(Binding::Delete),
        (_, "") => wrong("GET"),
        (_, _) => wrong("GET, PUT, DELETE"),
    };
    let key = if key.contains('/') { "" } else { key };
    Asked { route, namespace: "", key }
}

/// The hot routes are found without a search.
fn binding_line(operation: Binding) -> &'static Line {
    &BINDING[operation as usize]
}

/// The methods of one path.
struct Resource {
    lines: Vec<&'static Line>,
    allow: String,
}

static RESOURCES: LazyLock<Router<Resource>> = LazyLock::new(|| {
    let mut router = Router::new();
    let lines: Vec<&'static Line> = [REST, NATIVE, OPS].into_iter().flatten().collect();
    for of_one_path in lines.chunk_by(|one, other| one.path == other.path) {
        let methods: Vec<&str> = of_one_path.iter().map(|line| line.method).collect();
        let resource = Resource { lines: of_one_path.to_vec(), allow: methods.join(", ") };
        router.insert(of_one_path[0].path, resource).expect("the paths of the table differ");
    }
    router
});

fn resource<'p>(surface: Surface, method: &Method, path: &'p str) -> Asked<'p> {
    // One slash at the end names the same collection. Behind a key it would be a part of the key that
    // was not encoded, so it is not taken off there.
    let without_slash = || path.strip_suffix('/').and_then(|path| RESOURCES.at(path).ok());
    let is_collection = |matched: &matchit::Match<'_, '_, _>| matched.params.get("key").is_none();
    let matched = RESOURCES.at(path).ok().or_else(|| without_slash().filter(is_collection));
    let Some(matched) = matched else { return Asked::unknown(surface) };
    let resource = matched.value;
    let line = resource.lines.iter().find(|line| line.method == method.as_str());
    let route = match line {
        Some(line) => Route::Found(line),
        None => Route::WrongMethod { surface, allow: &resource.allow },
    };
    let segment = |name| matched.params.get(name).unwrap_or("");
    Asked { route, namespace: segment("namespace"), key: segment("key") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, path: &'static str) -> Asked<'static> {
        route(&method.parse().expect("a method"), path, false)
    }

    fn operation(method: &str, path: &'static str) -> Option<Operation> {
        match asked(method, path).route {
            Route::Found(line) => Some(line.operation),
            _ => None,
        }
    }

    #[test]
    fn a_single_segment_is_a_key_however_it_looks() {
        for key in ["bulk", "client", "v1", "bulk%2Fget", "client%2Fv4%2Fx", "favicon.ico", ".."] {
            let path: &'static str = format!("/{key}").leak();
            for (method, expected) in
                [("GET", Binding::Get), ("PUT", Binding::Put), ("DELETE", Binding::Delete)]
            {
                assert_eq!(operation(method, path), Some(Operation::Binding(expected)), "{path}");
                assert_eq!(asked(method, path).key, key);
            }
            assert!(matches!(asked("HEAD", path).route, Route::WrongMethod { .. }));
        }
    }

    #[test]
    fn an_operators_path_is_a_key_when_a_runtime_asks_for_it() {
        assert_eq!(operation("GET", "/healthz"), Some(Operation::Ops(Ops::Health)));
        let from_runtime = route(&Method::GET, "/healthz", true);
        assert_eq!(from_runtime.route.surface(), Surface::Binding);
        assert_eq!(from_runtime.key, "healthz");
    }

    #[test]
    fn the_root_lists_and_bulk_paths_take_posts() {
        let binding = |operation| Some(Operation::Binding(operation));
        assert_eq!(operation("GET", "/"), binding(Binding::List));
        assert_eq!(operation("PUT", "/"), binding(Binding::Put));
        assert_eq!(operation("POST", "/bulk/get"), binding(Binding::BulkGet));
        assert_eq!(operation("POST", "/bulk/delete"), binding(Binding::BulkDelete));
        assert!(matches!(
            asked("GET", "/bulk/get").route,
            Route::WrongMethod { surface: Surface::Binding, allow: "POST" }
        ));
        for path in ["/a/b", "//", "/a/", "/client/v3/x", "*", "/bulk/get/", "/v10/x"] {
            let route = asked("GET", path).route;
            assert!(matches!(route, Route::Unknown { surface: Surface::Binding }), "{path}");
        }
    }

    #[test]
    fn each_line_of_the_table_is_found_by_its_own_path() {
        for line in lines() {
            let path = line.path.replace("{account}", "a").replace("{namespace}", "0f");
            let path: &'static str = path.replace("{key}", "k%2F1").leak();
            let found = asked(line.method, path);
            assert!(
                matches!(found.route, Route::Found(it) if it.operation == line.operation),
                "{line:?}"
            );
            assert_eq!(found.key.is_empty(), !line.path.contains("{key}"), "{path}");
            assert_eq!(found.namespace.is_empty(), !line.path.contains("{namespace}"), "{path}");
        }
    }

    #[test]
    fn a_slash_at_the_end_is_nothing_behind_a_collection_and_never_lost_behind_a_key() {
        for (path, operation) in [
            ("/v1/namespaces/", Operation::Native(Native::ListNamespaces)),
            ("/v1/namespaces/n/keys/", Operation::Native(Native::ListKeys)),
            ("/client/v4/accounts/a/storage/kv/namespaces/n/", Operation::Rest(Rest::GetNamespace)),
        ] {
            let found = asked("GET", path).route;
            assert!(matches!(found, Route::Found(line) if line.operation == operation), "{path}");
        }
        for path in [
            "/v1/namespaces//",
            "/v1/namespaces/n/keys/k/",
            "/client/v4/accounts/a/storage/kv/namespaces/n/values/k/",
        ] {
            assert!(matches!(asked("GET", path).route, Route::Unknown { .. }), "{path}");
        }
    }

    #[test]
    fn unknown_paths_and_methods_are_told_by_the_surface_they_are_on() {
        for path in [
            "/client/v4",
            "/client/v4/",
            "/client/v4/user/tokens/verify",
            "/client/v4/accounts//storage/kv/namespaces",
            "/client/v4/accounts/a/storage/kv/namespacesx",
            "/client/v4/accounts/a/storage/kv/namespaces/0f/nonsense",
        ] {
            let route = asked("GET", path).route;
            assert!(matches!(route, Route::Unknown { surface: Surface::Rest }), "{path}");
        }
        let route = asked("GET", "/v1/nonsense").route;
        assert!(matches!(route, Route::Unknown { surface: Surface::Native }));
        let route = asked("PATCH", "/client/v4/accounts/a/storage/kv/namespaces/0f/").route;
        assert!(matches!(route, Route::WrongMethod { allow: "GET, PUT, DELETE", .. }));
    }
}
