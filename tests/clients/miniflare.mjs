// Miniflare with a remote KV binding, used from Node the way local dev tools use it: pointed straight
// at the server, and through a relay.
import { convertV4MiniflareOptions, Miniflare } from "miniflare";
import { assert, check, finish } from "./lib/check.mjs";
import { startRelay } from "./lib/mf-relay.mjs";
import { guarded, origin, rest, token, withNamespace } from "./lib/server.mjs";

/** Runs `use` with a Miniflare whose KV binding is called `name` and lies at `url`. */
async function withMiniflare(name, url, use) {
  const mf = new Miniflare(
    convertV4MiniflareOptions({
      modules: true,
      script: `export default { async fetch(request, env) {
        const key = new URL(request.url).searchParams.get("key");
        return Response.json(await env[${JSON.stringify(name)}].getWithMetadata(key));
      } }`,
      compatibilityDate: "2026-11-01",
      kvNamespaces: { [name]: { id: "of-no-matter", remoteProxyConnectionString: new URL(url) } },
    }),
  );
  try {
    await use(await mf.getKVNamespace(name), mf);
  } finally {
    await mf.dispose();
  }
}

/** The URL to give to Miniflare, which can set no header of its own. */
const direct = (settings) => `${origin.origin}/?${new URLSearchParams(settings)}`;

async function everyCall(way, kv, mf) {
  const prefix = `${way}/`;
  await check(`${way}: text, metadata and expiration from Node`, async () => {
    const expiration = Math.floor(Date.now() / 1000) + 900;
    await kv.put(`${prefix}user 1 %`, "käse", { metadata: { role: "ädmin" }, expiration });
    const { value, metadata } = await kv.getWithMetadata(`${prefix}user 1 %`);
    assert.deepEqual({ value, metadata }, { value: "käse", metadata: { role: "ädmin" } });
    const { keys } = await kv.list({ prefix });
    assert.deepEqual(keys, [{ name: `${prefix}user 1 %`, expiration, metadata: { role: "ädmin" } }]);
  });
  await check(`${way}: a list without options`, async () => {
    assert.ok((await kv.list()).keys.some(({ name }) => name === `${prefix}user 1 %`));
  });
  await check(`${way}: binary values`, async () => {
    await kv.put("bytes", Uint8Array.from([0, 255, 10, 13]).buffer);
    assert.deepEqual([...new Uint8Array(await kv.get("bytes", "arrayBuffer"))], [0, 255, 10, 13]);
  });
  await check(`${way}: a stream of 1 MiB`, async () => {
    await kv.put("stream", new Blob([new Uint8Array(1 << 20).fill(7)]).stream());
    const got = Buffer.from(await kv.get("stream", "arrayBuffer"));
    assert.equal(got.length, 1 << 20);
    assert.ok(got.every((byte) => byte === 7));
  });
  await check(`${way}: the worker sees what Node wrote`, async () => {
    await kv.put("shared", "from node", { metadata: "m" });
    const response = await mf.dispatchFetch("http://localhost/?key=shared");
    const { value, metadata } = await response.json();
    assert.deepEqual({ value, metadata }, { value: "from node", metadata: "m" });
  });
  await check(`${way}: bulk get`, async () => {
    await kv.put("b1", "1");
    assert.deepEqual([...(await kv.get(["b1", "b2"]))], [["b1", "1"], ["b2", null]]);
  });
  await check(`${way}: delete`, async () => {
    await kv.delete("b1");
    assert.equal(await kv.get("b1"), null);
  });
  await check(`${way}: error text arrives`, async () => {
    await assert.rejects(kv.put("short", "v", { expirationTtl: 1 }), /400 Invalid expiration_ttl of 1/);
  });
}

await withNamespace("miniflare", async (namespace) => {
  const { title } = await rest("GET", `/${namespace}`);
  // The token goes into the URL, and is left out where the server asks for none.
  const access = guarded ? { token } : {};

  await withMiniflare(namespace, direct(access), (kv, mf) => everyCall("named by id", kv, mf));
  await withMiniflare(title, direct(access), (kv, mf) => everyCall("named by title", kv, mf));
  await withMiniflare("KV", direct({ namespace, ...access }), (kv, mf) => everyCall("namespace in the URL", kv, mf));

  const relay = await startRelay(namespace);
  await withMiniflare("KV", `http://127.0.0.1:${relay.address().port}`, (kv, mf) => everyCall("relay", kv, mf));
  relay.close();

  await check("a binding whose namespace does not exist is an error, not an empty store", () =>
    withMiniflare("f".repeat(32), direct(access), (kv) =>
      assert.rejects(kv.get("k"), /KV GET failed: 40[0-3]/)));
  if (guarded) {
    await check("a bad token is an error, not an empty store", () =>
      withMiniflare(namespace, direct({ token: "wrong" }), (kv) =>
        assert.rejects(kv.get("k"), /KV GET failed: 40[13]/)));
  }
});
finish();
