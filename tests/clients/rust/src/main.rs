//! The `cloudflare` crate. It is stricter than the other clients: an empty result must be `null`,
//! and a value must come as exactly `application/octet-stream`. It panics when a value read fails
//! (the error is JSON), so a missing key is looked for through its metadata.

use std::env;
use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use cloudflare::endpoints::workerskv::create_namespace::{CreateNamespace, CreateNamespaceParams};
use cloudflare::endpoints::workerskv::delete_bulk::DeleteBulk;
use cloudflare::endpoints::workerskv::delete_key::DeleteKey;
use cloudflare::endpoints::workerskv::get_namespace::GetNamespace;
use cloudflare::endpoints::workerskv::list_namespace_keys::{
    ListNamespaceKeys, ListNamespaceKeysParams,
};
use cloudflare::endpoints::workerskv::read_key::ReadKey;
use cloudflare::endpoints::workerskv::read_key_metadata::ReadKeyMetadata;
use cloudflare::endpoints::workerskv::remove_namespace::RemoveNamespace;
use cloudflare::endpoints::workerskv::write_bulk::{KeyValuePair, WriteBulk};
use cloudflare::endpoints::workerskv::write_key::{
    WriteKey, WriteKeyBody, WriteKeyBodyMetadata, WriteKeyParams,
};
use cloudflare::framework::Environment;
use cloudflare::framework::auth::Credentials;
use cloudflare::framework::client::ClientConfig;
use cloudflare::framework::client::blocking_api::HttpApiClient;
use cloudflare::framework::response::ApiFailure;
use serde_json::json;

type Outcome = Result<(), String>;
type Case = (&'static str, fn(&Suite) -> Outcome);

fn setting(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

fn same<T: PartialEq + Debug>(actual: T, expected: T) -> Outcome {
    if actual == expected { Ok(()) } else { Err(format!("{actual:?} instead of {expected:?}")) }
}

struct Suite {
    client: HttpApiClient,
    account: String,
    namespace: String,
}

impl Suite {
    fn put(&self, key: &str, params: WriteKeyParams, body: WriteKeyBody) -> Outcome {
        let request = WriteKey {
            account_identifier: &self.account,
            namespace_identifier: &self.namespace,
            key,
            params,
            body,
        };
        self.client.request(&request).map(drop).map_err(text)
    }

    fn get(&self, key: &str) -> Result<Vec<u8>, String> {
        let request = ReadKey {
            account_identifier: &self.account,
            namespace_identifier: &self.namespace,
            key,
        };
        self.client.request(&request).map_err(text)
    }

    fn metadata(&self, key: &str) -> Result<Option<serde_json::Value>, ApiFailure> {
        let request = ReadKeyMetadata {
            account_identifier: &self.account,
            namespace_identifier: &self.namespace,
            key,
        };
        self.client.request(&request).map(|reply| reply.result)
    }

    fn is_missing(&self, key: &str) -> Outcome {
        match self.metadata(key) {
            Err(ApiFailure::Error(status, errors)) => {
                same((status.as_u16(), errors.errors[0].code), (404, 10009))
            }
            other => Err(format!("{other:?}")),
        }
    }

    fn delete(&self, key: &str) -> Outcome {
        let request = DeleteKey {
            account_identifier: &self.account,
            namespace_identifier: &self.namespace,
            key,
        };
        self.client.request(&request).map(drop).map_err(text)
    }

    fn namespace_get(&self) -> Outcome {
        let request = GetNamespace {
            account_identifier: &self.account,
            namespace_identifier: &self.namespace,
        };
        let namespace = self.client.request(&request).map_err(text)?.result;
        same(namespace.id, self.namespace.clone())
    }

    fn raw_value(&self) -> Outcome {
        let value: Vec<u8> = (0..=255).collect();
        self.put("raw/1 %é", WriteKeyParams::default(), WriteKeyBody::Value(value.clone()))?;
        same(self.get("raw/1 %é")?, value)?;
        same(self.metadata("raw/1 %é").map_err(text)?, None)
    }

    fn value_with_metadata(&self) -> Outcome {
        let metadata = json!({"a": [1, "é"]});
        let body = WriteKeyBody::Metadata(WriteKeyBodyMetadata {
            value: b"\x00\xff".to_vec(),
            metadata: metadata.clone(),
        });
        let params = WriteKeyParams { expiration: None, expiration_ttl: Some(600) };
        self.put("meta", params, body)?;
        same(self.get("meta")?, b"\x00\xff".to_vec())?;
        same(self.metadata("meta").map_err(text)?, Some(metadata))
    }

    fn delete_key(&self) -> Outcome {
        self.delete("meta")?;
        self.delete("meta")?;
        self.is_missing("meta")
    }

    fn bulk_and_list(&self) -> Outcome {
        let keys: Vec<String> = (0..25).map(|i| format!("list:{i:02}")).collect();
        let pairs = keys.iter().map(|key| KeyValuePair {
            key: key.clone(),
            value: "v".into(),
            expiration: None,
            expiration_ttl: Some(600),
            base64: None,
        });
        let written = self.client.request(&WriteBulk {
            account_identifier: &self.account,
            namespace_identifier: &self.namespace,
            bulk_key_value_pairs: pairs.collect(),
        });
        same(written.map_err(text)?.result.successful_key_count, Some(25))?;

        let mut listed = Vec::new();
        let mut cursor = None;
        loop {
            let params =
                ListNamespaceKeysParams { limit: Some(10), cursor, prefix: Some("list:".into()) };
            let reply = self.client.request(&ListNamespaceKeys {
                account_identifier: &self.account,
                namespace_identifier: &self.namespace,
                params,
            });
            let reply = reply.map_err(text)?;
            listed.extend(reply.result.into_iter().map(|key| key.name));
            let next = reply.result_info.and_then(|info| Some(info["cursor"].as_str()?.to_owned()));
            cursor = next.filter(|cursor| !cursor.is_empty());
            if cursor.is_none() || listed.len() > keys.len() {
                break;
            }
        }
        same(&listed, &keys)?;

        let deleted = self.client.request(&DeleteBulk {
            account_identifier: &self.account,
            namespace_identifier: &self.namespace,
            bulk_keys: keys,
        });
        same(deleted.map_err(text)?.result.successful_key_count, Some(25))
    }
}

fn text(failure: ApiFailure) -> String {
    format!("{failure:?}")
}

fn main() {
    let base = format!("{}{}/", setting("KV_URL").trim_end_matches('/'), setting("KV_REST_PATH"));
    let credentials = Credentials::UserAuthToken { token: setting("KV_API_TOKEN") };
    let client =
        HttpApiClient::new(credentials, ClientConfig::default(), Environment::Custom(base))
            .expect("the client can be made");
    let account = setting("KV_ACCOUNT_ID");
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let created = client.request(&CreateNamespace {
        account_identifier: &account,
        params: CreateNamespaceParams { title: format!("clients-rust-{nanos}") },
    });
    let namespace = match created {
        Ok(reply) => reply.result.id,
        Err(failure) => {
            println!("FAIL namespace create\n  {}\n0 passed, 1 failed", text(failure));
            std::process::exit(1);
        }
    };
    let suite = Suite { client, account, namespace };

    let cases: [Case; 5] = [
        ("namespace get", Suite::namespace_get),
        ("raw value", Suite::raw_value),
        ("value with metadata", Suite::value_with_metadata),
        ("delete key", Suite::delete_key),
        ("bulk write, list and delete", Suite::bulk_and_list),
    ];
    let mut outcomes: Vec<(&str, Outcome)> =
        cases.iter().map(|(name, run)| (*name, run(&suite))).collect();
    let removed = suite.client.request(&RemoveNamespace {
        account_identifier: &suite.account,
        namespace_identifier: &suite.namespace,
    });
    outcomes.push(("namespace remove", removed.map(drop).map_err(text)));

    let failed = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
    for (name, outcome) in &outcomes {
        if let Err(reason) = outcome {
            println!("FAIL {name}\n  {reason}");
        }
    }
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    std::process::exit(i32::from(failed > 0));
}
