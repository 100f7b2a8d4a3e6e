// Keyv with its Cloudflare KV adapter in REST mode.
import KeyvCloudflareKV from "@keyv/cloudflare-kv";
import Keyv from "keyv";
import { assert, check, finish } from "./lib/check.mjs";
import { account, rest, restUrl, token, withNamespace } from "./lib/server.mjs";

await withNamespace("keyv", async (namespaceId) => {
  const store = new KeyvCloudflareKV({
    mode: "rest",
    accountId: account,
    namespaceId,
    apiToken: token,
    url: restUrl,
  });
  const keyv = new Keyv({ store });
  keyv.on("error", (error) => console.log(`keyv: ${error.message}`));

  await check("set and get", async () => {
    await keyv.set("user", { name: "Zoë", tags: [1, 2] });
    assert.deepEqual(await keyv.get("user"), { name: "Zoë", tags: [1, 2] });
  });
  await check("missing key", async () => {
    assert.equal(await keyv.get("missing"), undefined);
  });
  await check("ttl", async () => {
    await keyv.set("ttl", "v", 120_000);
    assert.equal(await keyv.get("ttl"), "v");
    const keys = await rest("GET", `/${namespaceId}/keys`);
    const { expiration } = keys.find(({ name }) => name.endsWith("ttl"));
    assert.ok(Math.abs(expiration - Date.now() / 1000 - 120) < 30);
  });
  await check("many at once", async () => {
    await keyv.setMany([{ key: "m1", value: "one" }, { key: "m2", value: "two" }]);
    assert.deepEqual(await keyv.getMany(["m1", "none", "m2"]), ["one", undefined, "two"]);
  });
  await check("delete and clear", async () => {
    await keyv.delete("user");
    assert.equal(await keyv.get("user"), undefined);
    await keyv.clear();
    assert.deepEqual(await rest("GET", `/${namespaceId}/keys`), []);
  });
});
finish();
