// unstorage's cloudflare-kv-http driver.
import { createStorage } from "unstorage";
import driver from "unstorage/drivers/cloudflare-kv-http";
import { assert, check, finish } from "./lib/check.mjs";
import { account, origin, rest, token, withNamespace } from "./lib/server.mjs";

await withNamespace("unstorage", async (namespaceId) => {
  // The driver appends /client/v4 to `apiURL` itself.
  const options = { accountId: account, namespaceId, apiToken: token, apiURL: origin.origin };
  const storage = createStorage({ driver: driver(options) });

  await check("set and get a string", async () => {
    await storage.setItem("greeting", "hëllo");
    assert.equal(await storage.getItem("greeting"), "hëllo");
  });
  await check("set and get an object", async () => {
    await storage.setItem("deep:object", { a: [1, { b: null }] });
    assert.deepEqual(await storage.getItem("deep:object"), { a: [1, { b: null }] });
  });
  await check("raw bytes", async () => {
    const bytes = Buffer.from([1, 2, 3, 254, 255]);
    await storage.setItemRaw("raw", bytes);
    assert.deepEqual(Buffer.from(await storage.getItemRaw("raw")), bytes);
  });
  await check("missing item", async () => {
    assert.equal(await storage.getItem("missing"), null);
    assert.equal(await storage.hasItem("missing"), false);
  });
  await check("has and remove", async () => {
    await storage.setItem("temp", "v");
    assert.equal(await storage.hasItem("temp"), true);
    await storage.removeItem("temp");
    assert.equal(await storage.hasItem("temp"), false);
  });
  await check("ttl becomes an expiration", async () => {
    await storage.setItem("ttl", "v", { ttl: 300 });
    const [{ expiration }] = await rest("GET", `/${namespaceId}/keys?prefix=ttl`);
    assert.ok(Math.abs(expiration - Date.now() / 1000 - 300) < 30);
  });
  await check("keys across pages", async () => {
    const names = Array.from({ length: 1050 }, (_, i) => `many:${String(i).padStart(4, "0")}`);
    await rest("PUT", `/${namespaceId}/bulk`, names.map((key) => ({ key, value: "v" })));
    assert.deepEqual((await storage.getKeys("many")).sort(), names);
  });
  await check("a mounted base", async () => {
    const based = createStorage({ driver: driver({ ...options, base: "app" }) });
    await based.setItem("inner", "v");
    assert.deepEqual(await based.getKeys(), ["inner"]);
    assert.equal(await storage.getItem("app:inner"), "v");
  });
  await check("clear", async () => {
    await storage.clear();
    assert.deepEqual(await storage.getKeys(), []);
    assert.equal(await storage.getItem("greeting"), null);
  });
});
finish();
