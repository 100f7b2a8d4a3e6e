// Runs inside workerd: what a manual of Workers KV shows its readers, section by section, written
// the way an application would write it.
import assert from "node:assert/strict";

const collect = async (stream) => new Response(stream).text();

const cases = {
  async "write a pair, read it, read one that is not there"({ kv }) {
    await kv.put("first-key", "This is the value for the key");
    assert.equal(await kv.get("first-key"), "This is the value for the key");
    assert.equal(await kv.get("no-such-key"), null);
  },
  async "the four types of a read"({ kv }) {
    await kv.put("typed", '{"price":12.5,"tags":["a","b"]}');
    assert.equal(await kv.get("typed", "text"), '{"price":12.5,"tags":["a","b"]}');
    assert.deepEqual(await kv.get("typed", "json"), { price: 12.5, tags: ["a", "b"] });
    assert.equal((await kv.get("typed", "arrayBuffer")).byteLength, 31);
    assert.equal(await collect(await kv.get("typed", "stream")), '{"price":12.5,"tags":["a","b"]}');
  },
  async "a request's body is stored as it streams in, and streams out again"({ kv }) {
    const request = new Request("https://app/", { method: "POST", body: "x".repeat(300_000) });
    await kv.put("upload", request.body);
    const response = new Response(await kv.get("upload", "stream"));
    assert.equal((await response.text()).length, 300_000);
  },
  async "all options of a put at once"({ kv }) {
    const expiration = Math.floor(Date.now() / 1000) + 7200;
    await kv.put("options", "v", { expiration, metadata: { owner: "ops", tries: 3 } });
    const { keys } = await kv.list({ prefix: "options" });
    assert.deepEqual(keys, [{ name: "options", expiration, metadata: { owner: "ops", tries: 3 } }]);
    await kv.put("options", "w", { expirationTtl: 3600 });
    const later = (await kv.list({ prefix: "options" })).keys[0];
    assert.ok(later.expiration < expiration && later.metadata === undefined);
  },
  async "metadata beside the value, with the cache's status"({ kv }) {
    await kv.put("page", "<h1>", { metadata: { contentType: "text/html" } });
    const { value, metadata, cacheStatus } = await kv.getWithMetadata("page", { cacheTtl: 60 });
    assert.equal(value, "<h1>");
    assert.equal(metadata.contentType, "text/html");
    assert.ok(cacheStatus === null || typeof cacheStatus === "string");
  },
  async "metadata in place of a value, read from the list alone"({ kv }) {
    for (const user of ["ada", "grace", "edsger"]) {
      await kv.put(`member:${user}`, "", { metadata: { name: user, active: user !== "grace" } });
    }
    const { keys } = await kv.list({ prefix: "member:" });
    const active = keys.filter(({ metadata }) => metadata.active).map(({ metadata }) => metadata.name);
    assert.deepEqual(active, ["ada", "edsger"]);
  },
  async "paging until the list is complete"({ kv }) {
    await Promise.all(Array.from({ length: 45 }, (_, i) => kv.put(`row:${1000 + i}`, "v")));
    const names = [];
    let options = { prefix: "row:", limit: 20 };
    for (;;) {
      const page = await kv.list(options);
      names.push(...page.keys.map(({ name }) => name));
      if (page.list_complete) break;
      options = { ...options, cursor: page.cursor };
    }
    assert.deepEqual(names, Array.from({ length: 45 }, (_, i) => `row:${1000 + i}`));
  },
  async "several keys in one read"({ kv }) {
    await kv.put("multi:a", '{"n":1}', { metadata: "first" });
    await kv.put("multi:b", '{"n":2}');
    const values = await kv.get(["multi:a", "multi:b", "multi:c"], "json");
    assert.deepEqual([values.get("multi:a"), values.get("multi:b"), values.get("multi:c")], [{ n: 1 }, { n: 2 }, null]);
    const both = await kv.getWithMetadata(["multi:a", "multi:b"]);
    assert.deepEqual(both.get("multi:a"), { value: '{"n":1}', metadata: "first" });
    assert.deepEqual(both.get("multi:b"), { value: '{"n":2}', metadata: null });
  },
  async "pattern: configuration of a site"({ kv }) {
    await kv.put("config:example.com", JSON.stringify({ origin: "https://a", beta: false }));
    await kv.put("config:example.org", JSON.stringify({ origin: "https://b", beta: true }));
    const configOf = (host) => kv.get(`config:${host}`, { type: "json", cacheTtl: 300 });
    assert.equal((await configOf("example.org")).beta, true);
    assert.equal(await configOf("example.net"), null);
  },
  async "pattern: preferences of a user, changed and removed"({ kv }) {
    const key = "preferences:user/42";
    const read = async () => ({ theme: "light", ...(await kv.get(key, "json")) });
    assert.deepEqual(await read(), { theme: "light" });
    await kv.put(key, JSON.stringify({ ...(await read()), theme: "dark", language: "sv" }));
    assert.deepEqual(await read(), { theme: "dark", language: "sv" });
    await kv.delete(key);
    assert.deepEqual(await read(), { theme: "light" });
  },
  async "pattern: a cache in front of something slow"({ kv }) {
    let fetched = 0;
    const slow = async () => `rendered ${++fetched}`;
    const cached = async (key) => {
      const hit = await kv.get(key);
      if (hit !== null) return hit;
      const fresh = await slow();
      await kv.put(key, fresh, { expirationTtl: 60, metadata: { at: Date.now() } });
      return fresh;
    };
    assert.equal(await cached("cache:/index"), "rendered 1");
    assert.equal(await cached("cache:/index"), "rendered 1");
    assert.equal(fetched, 1);
    const { expiration } = (await kv.list({ prefix: "cache:/index" })).keys[0];
    assert.ok(Math.abs(expiration - Date.now() / 1000 - 60) < 5);
  },
  async "pattern: feature flags, all in one list"({ kv }) {
    await kv.put("flag:checkout", "on", { metadata: { share: 0.25 } });
    await kv.put("flag:search", "off", { metadata: { share: 0 } });
    const flags = Object.fromEntries(
      (await kv.list({ prefix: "flag:" })).keys.map(({ name, metadata }) => [name.slice(5), metadata.share]),
    );
    assert.deepEqual(flags, { checkout: 0.25, search: 0 });
    assert.equal(await kv.get("flag:checkout"), "on");
  },
  async "pattern: a session that ends with logging out"({ kv }) {
    const id = crypto.randomUUID();
    await kv.put(`session:${id}`, JSON.stringify({ user: 7 }), { expirationTtl: 1800 });
    assert.equal((await kv.get(`session:${id}`, "json")).user, 7);
    await kv.delete(`session:${id}`);
    assert.equal(await kv.get(`session:${id}`, "json"), null);
    assert.deepEqual((await kv.list({ prefix: "session:" })).keys, []);
  },
  async "errors say what to change"({ kv }) {
    const refused = async (promise) => promise.then(() => assert.fail("it was accepted"), (error) => error.message);
    assert.match(await refused(kv.put("k", "v", { expirationTtl: 30 })), /at least 60/);
    assert.match(await refused(kv.get("k", { cacheTtl: 1 })), /at least 30/);
    assert.match(await refused(kv.list({ limit: 5000 })), /key_count_limit of 5000/);
    assert.match(await refused(kv.put("k", "v", { metadata: "m".repeat(2000) })), /exceeds limit of 1024/);
  },
};

export default {
  async fetch(_request, env) {
    const results = [];
    for (const [name, run] of Object.entries(cases)) {
      try {
        await run({ kv: env.KV });
        results.push({ name });
      } catch (error) {
        results.push({ name, error: `${error.name}: ${error.message}` });
      }
    }
    return Response.json(results);
  },
};
