//! The engine inside a program: write, read, list, expire. Run it with
//! `cargo run --package kvast --example embedded`.

use std::time::Duration;

use kvast::{Db, Error, ListOptions, PutOptions};

fn main() -> Result<(), Error> {
    let db = Db::open("example-data")?;
    let users = db.namespace("users")?; // created if absent

    users.put("42", "Ada")?;
    let session =
        PutOptions::new().expires_in(Duration::from_secs(1800)).metadata("{\"admin\":true}");
    users.put_with("43", "Grace", session)?;

    if let Some(value) = users.get("42")? {
        // The bytes lie in the mapped segment: nothing was copied.
        println!("{}", String::from_utf8_lossy(&value));
    }

    for listed in users.list(&ListOptions::new().prefix("4").limit(100))?.iter() {
        println!("{} expires at {:?}", String::from_utf8_lossy(listed.key), listed.expires_at);
    }

    let mut batch = db.batch(); // all of it or nothing, after a crash too
    batch.put(&users, "44", "Edsger")?;
    batch.delete(&users, "43")?;
    batch.commit()?;

    db.close()
}
