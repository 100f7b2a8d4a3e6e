// The official TypeScript SDK.
import Cloudflare, { toFile } from "cloudflare";
import { assert, check, finish } from "./lib/check.mjs";
import { account, guarded, restUrl, token, uniqueTitle } from "./lib/server.mjs";

const client = new Cloudflare({ apiToken: token, baseURL: restUrl, maxRetries: 0 });
const { namespaces } = client.kv;
const inAccount = (params = {}) => ({ account_id: account, ...params });
const title = uniqueTitle("sdk");
let id;
const inNamespace = (params = {}) => ({ account_id: account, namespace_id: id, ...params });
const put = (key, params) => namespaces.values.update(key, inNamespace(params));
const bytes = async (key) => Buffer.from(await (await namespaces.values.get(key, inNamespace())).arrayBuffer());
const hasCode = (status, code) => (error) => error.status === status && error.errors[0].code === code;

async function collect(pages) {
  const items = [];
  for await (const item of pages) {
    items.push(item);
    if (items.length > 20_000) throw new Error("paging never ended");
  }
  return items;
}

await check("namespace create, get, rename, list", async () => {
  const created = await namespaces.create(inAccount({ title }));
  id = created.id;
  assert.match(id, /^[0-9a-f]{32}$/);
  assert.equal(created.title, title);
  const renamed = await namespaces.update(id, inAccount({ title: `${title}-b` }));
  assert.deepEqual([renamed.id, renamed.title], [id, `${title}-b`]);
  assert.equal((await namespaces.get(id, inAccount())).title, `${title}-b`);
  const all = await collect(namespaces.list(inAccount({ per_page: 5, order: "title", direction: "asc" })));
  assert.equal(all.filter((namespace) => namespace.id === id).length, 1);
});
await check("namespace pages", async () => {
  const made = [];
  for (let i = 0; i < 7; i++) made.push(await namespaces.create(inAccount({ title: `${title}-page-${i}` })));
  try {
    const down = await collect(namespaces.list(inAccount({ per_page: 3, order: "title", direction: "desc" })));
    const ours = down.map((namespace) => namespace.title).filter((name) => name.startsWith(`${title}-page-`));
    assert.deepEqual(ours, made.map((namespace) => namespace.title).reverse());
  } finally {
    for (const namespace of made) await namespaces.delete(namespace.id, inAccount());
  }
});
await check("namespace errors carry the documented codes", async () => {
  await assert.rejects(namespaces.create(inAccount({ title: `${title}-b` })), hasCode(400, 10014));
  await assert.rejects(namespaces.get("f".repeat(32), inAccount()), hasCode(404, 10013));
});
const stranger = new Cloudflare({ apiToken: "wrong", baseURL: restUrl, maxRetries: 0 });
if (guarded) {
  await check("a bad token is refused", () =>
    assert.rejects(
      stranger.kv.namespaces.get(id, inAccount()).asResponse(),
      (error) => (error.status === 401 || error.status === 403) && error.errors[0].code === 10000,
    ));
} else {
  await check("any token does where none is asked for", async () => {
    assert.equal((await stranger.kv.namespaces.get(id, inAccount())).id, id);
  });
}
await check("value as text", async () => {
  await put("a/b c%é:+?#", { value: "tëxt" });
  assert.equal((await bytes("a/b c%é:+?#")).toString(), "tëxt");
});
await check("value as bytes, with metadata", async () => {
  const content = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  await put("bytes", { value: await toFile(content), metadata: JSON.stringify({ kind: "bin" }) });
  assert.deepEqual(await bytes("bytes"), content);
  assert.deepEqual(await namespaces.metadata.get("bytes", inNamespace()), { kind: "bin" });
});
await check("value headers", async () => {
  const expiration = Math.floor(Date.now() / 1000) + 900;
  await put("dated", { value: "v", expiration });
  const response = await namespaces.values.get("dated", inNamespace());
  assert.equal(response.headers.get("expiration"), String(expiration));
  assert.equal(response.headers.get("content-type"), "application/octet-stream");
  assert.equal(await namespaces.metadata.get("dated", inNamespace()), null);
});
await check("a missing key is 10009", async () => {
  await assert.rejects(namespaces.values.get("missing", inNamespace()).asResponse(), hasCode(404, 10009));
  await assert.rejects(namespaces.metadata.get("missing", inNamespace()), hasCode(404, 10009));
  await namespaces.values.delete("missing", inNamespace());
});
await check("value delete", async () => {
  await namespaces.values.delete("bytes", inNamespace());
  await assert.rejects(namespaces.values.get("bytes", inNamespace()).asResponse(), hasCode(404, 10009));
});
await check("bulk update, get and delete", async () => {
  const body = [
    { key: "bulk:text", value: "t", metadata: { a: 1 } },
    { key: "bulk:json", value: '{"j":1}', expiration_ttl: 600 },
    { key: "bulk:b64", value: Buffer.from("decoded").toString("base64"), base64: true },
  ];
  const keys = [...body.map(({ key }) => key), "bulk:none"];
  const written = await namespaces.bulkUpdate(id, inAccount({ body }));
  assert.deepEqual([written.successful_key_count, written.unsuccessful_keys], [3, []]);
  const plain = await namespaces.bulkGet(id, inAccount({ keys }));
  assert.deepEqual(plain.values, { "bulk:text": "t", "bulk:json": '{"j":1}', "bulk:b64": "decoded", "bulk:none": null });
  const typed = await namespaces.bulkGet(id, inAccount({ keys: ["bulk:json"], type: "json" }));
  assert.deepEqual(typed.values, { "bulk:json": { j: 1 } });
  const full = await namespaces.bulkGet(id, inAccount({ keys, withMetadata: true }));
  assert.deepEqual(full.values["bulk:text"], { value: "t", metadata: { a: 1 } });
  assert.equal(full.values["bulk:json"].metadata, null);
  assert.equal(full.values["bulk:none"], null);
  const deleted = await namespaces.bulkDelete(id, inAccount({ body: keys }));
  assert.equal(deleted.successful_key_count, 4);
  assert.deepEqual((await namespaces.bulkGet(id, inAccount({ keys: ["bulk:text"] }))).values, { "bulk:text": null });
});
await check("bulk get takes at most 100 keys", async () => {
  const keys = Array.from({ length: 101 }, (_, i) => `k${i}`);
  await assert.rejects(namespaces.bulkGet(id, inAccount({ keys })), (error) => error.status === 400);
});
await check("bulk update takes at most 10,000 pairs", async () => {
  const body = Array.from({ length: 10_001 }, (_, i) => ({ key: `over:${i}`, value: "v" }));
  await assert.rejects(namespaces.bulkUpdate(id, inAccount({ body })), (error) => error.status === 400 || error.status === 413);
  const [none] = await collect(namespaces.keys.list(id, inAccount({ prefix: "over:" })));
  assert.equal(none, undefined, "a refused bulk write must not write");
});
await check("keys are paged in order with a cursor", async () => {
  const names = Array.from({ length: 1234 }, (_, i) => `list:${String(i).padStart(5, "0")}`);
  await namespaces.bulkUpdate(id, inAccount({ body: names.map((key) => ({ key, value: "v" })) }));
  const first = await namespaces.keys.list(id, inAccount({ prefix: "list:", limit: 10 }));
  assert.equal(first.result.length, 10);
  assert.equal(first.result_info.count, 10);
  assert.ok(first.result_info.cursor);
  for (const limit of [100, 1000]) {
    const all = await collect(namespaces.keys.list(id, inAccount({ prefix: "list:", limit })));
    assert.deepEqual(all.map(({ name }) => name), names);
  }
  const last = await namespaces.keys.list(id, inAccount({ prefix: "list:0123" }));
  assert.equal(last.result_info.cursor, "");
  await assert.rejects(namespaces.keys.list(id, inAccount({ limit: 1001 })), (error) => error.status === 400);
});
await check("namespace delete", async () => {
  await namespaces.delete(id, inAccount());
  await assert.rejects(namespaces.get(id, inAccount()), hasCode(404, 10013));
  await assert.rejects(namespaces.values.get("dated", inNamespace()).asResponse(), hasCode(404, 10013));
});
finish();
