//! The description of all surfaces that `/openapi.json` serves: OpenAPI 3.1, written by hand.
//!
//! It is held to the truth by tests: here to the table of routes, both ways, and in
//! `tests/openapi.rs` to the answers of a running server.

/// The document.
pub(crate) const DOCUMENT: &str = include_str!("../openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value as Json;

    use super::DOCUMENT;
    use crate::problem::Trouble;
    use crate::route::{Access, lines};

    fn document() -> Json {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    fn resolve<'d>(document: &'d Json, reference: &str) -> Option<&'d Json> {
        document.pointer(reference.strip_prefix('#')?)
    }

    fn operations(document: &Json) -> impl Iterator<Item = (&str, &str, &Json)> {
        let paths = document["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            let methods = methods.filter(|(method, _)| *method != "parameters");
            methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
    }

    #[test]
    fn it_has_each_route_of_the_table_and_no_other() {
        let document = document();
        let described: BTreeSet<(String, String)> = operations(&document)
            .map(|(path, method, _)| (path.to_owned(), method.to_uppercase()))
            .collect();
        let served: BTreeSet<(String, String)> =
            lines().map(|line| (line.path.to_owned(), line.method.to_owned())).collect();
        assert_eq!(described, served);
    }

    #[test]
    fn it_says_which_routes_need_no_token() {
        let document = document();
        for line in lines() {
            let operation = &document["paths"][line.path][line.method.to_lowercase()];
            let is_open = operation["security"] == serde_json::json!([]);
            assert_eq!(is_open, line.access == Access::Open, "{line:?}");
            assert_eq!(operation["responses"].get("401").is_none(), is_open, "{line:?}");
        }
    }

    #[test]
    fn every_parameter_of_a_path_is_described() {
        let document = document();
        for (path, method, operation) in operations(&document) {
            let shared = document["paths"][path]["parameters"].as_array();
            let own = operation["parameters"].as_array();
            let described: BTreeSet<&str> = [shared, own]
                .into_iter()
                .flatten()
                .flatten()
                .map(|parameter| match parameter["$ref"].as_str() {
                    Some(reference) => resolve(&document, reference).unwrap(),
                    None => parameter,
                })
                .filter(|parameter| parameter["in"] == "path")
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            let in_path: BTreeSet<&str> = path
                .split('/')
                .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            assert_eq!(described, in_path, "{method} {path}");
        }
    }

    #[test]
    fn names_of_operations_differ() {
        let document = document();
        let names: Vec<&str> =
            operations(&document).filter_map(|(_, _, one)| one["operationId"].as_str()).collect();
        assert_eq!(names.len(), operations(&document).count());
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_component_is_used() {
        fn collect<'d>(json: &'d Json, references: &mut BTreeSet<&'d str>) {
            match json {
                Json::Object(members) => {
                    references.extend(members.get("$ref").and_then(Json::as_str));
                    members.values().for_each(|member| collect(member, references));
                }
                Json::Array(items) => items.iter().for_each(|item| collect(item, references)),
                _ => {}
            }
        }
        let document = document();
        let mut references = BTreeSet::new();
        collect(&document, &mut references);
        for reference in &references {
            assert!(resolve(&document, reference).is_some(), "{reference}");
        }
        for (kind, components) in document["components"].as_object().unwrap() {
            for name in components.as_object().unwrap().keys() {
                let reference = format!("#/components/{kind}/{name}");
                let is_used = references.contains(reference.as_str()) || kind == "securitySchemes";
                assert!(is_used, "{reference}");
            }
        }
    }

    #[test]
    fn it_knows_every_code_of_a_problem_and_the_version_that_is_served() {
        let document = document();
        let codes = document.pointer("/components/schemas/Problem/properties/code/enum").unwrap();
        let codes: BTreeSet<&str> =
            codes.as_array().unwrap().iter().filter_map(Json::as_str).collect();
        for trouble in Trouble::ALL {
            assert!(codes.contains(trouble.word()), "{trouble:?}");
        }
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
