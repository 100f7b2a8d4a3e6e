// Miniflare with a remote KV binding, used from Node the way local dev tools use it.
import { convertV4MiniflareOptions, Miniflare } from "miniflare";
import { assert, check, finish } from "./lib/check.mjs";
import { startRelay } from "./lib/mf-relay.mjs";
import { withNamespace } from "./lib/server.mjs";

await withNamespace("miniflare", async (namespace) => {
  const relay = await startRelay(namespace);
  const mf = new Miniflare(
    convertV4MiniflareOptions({
      modules: true,
      script: `export default { async fetch(request, env) {
        return Response.json(await env.KV.getWithMetadata(new URL(request.url).searchParams.get("key")));
      } }`,
      compatibilityDate: "2026-11-01",
      kvNamespaces: {
        KV: {
          id: namespace,
          remoteProxyConnectionString: new URL(`http://127.0.0.1:${relay.address().port}`),
        },
      },
    }),
  );
  try {
    const kv = await mf.getKVNamespace("KV");
    await check("text, metadata and expiration from Node", async () => {
      const expiration = Math.floor(Date.now() / 1000) + 900;
      await kv.put("user/1 %", "käse", { metadata: { role: "admin" }, expiration });
      const { value, metadata } = await kv.getWithMetadata("user/1 %");
      assert.deepEqual({ value, metadata }, { value: "käse", metadata: { role: "admin" } });
      const { keys } = await kv.list({ prefix: "user/" });
      assert.deepEqual(keys, [{ name: "user/1 %", expiration, metadata: { role: "admin" } }]);
    });
    await check("binary values", async () => {
      await kv.put("bytes", Uint8Array.from([0, 255, 10, 13]).buffer);
      assert.deepEqual([...new Uint8Array(await kv.get("bytes", "arrayBuffer"))], [0, 255, 10, 13]);
    });
    await check("the worker sees what Node wrote", async () => {
      await kv.put("shared", "from node", { metadata: "m" });
      const response = await mf.dispatchFetch("http://localhost/?key=shared");
      const { value, metadata } = await response.json();
      assert.deepEqual({ value, metadata }, { value: "from node", metadata: "m" });
    });
    await check("bulk get", async () => {
      await kv.put("b1", "1");
      assert.deepEqual([...(await kv.get(["b1", "b2"]))], [["b1", "1"], ["b2", null]]);
    });
    await check("delete", async () => {
      await kv.delete("b1");
      assert.equal(await kv.get("b1"), null);
    });
    await check("error text survives the relay", async () => {
      await assert.rejects(kv.put("short", "v", { expirationTtl: 1 }), /400 Invalid expiration_ttl of 1/);
    });
  } finally {
    await mf.dispose();
    relay.close();
  }
});
finish();
