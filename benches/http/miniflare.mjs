// Miniflare's own KV behind a Worker that takes the requests of this bench. The first argument is the
// directory that Miniflare is installed in. Says where it listens, and runs until it is killed.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const installed = createRequire(pathToFileURL(`${process.argv[2]}/package.json`));
const { convertV4MiniflareOptions, Miniflare } = await import(pathToFileURL(installed.resolve("miniflare")));
const mf = new Miniflare(
  convertV4MiniflareOptions({
    modules: true,
    script: `export default { async fetch(request, { KV }) {
      const url = new URL(request.url);
      const key = url.pathname.slice(1);
      if (request.method === "PUT") {
        await KV.put(key, await request.arrayBuffer());
        return new Response();
      }
      if (request.method === "POST") {
        const { keys } = await request.json();
        return new Response(JSON.stringify(Object.fromEntries(await KV.get(keys))));
      }
      if (key === "") {
        const { searchParams } = url;
        const limit = Number(searchParams.get("key_count_limit"));
        return new Response(JSON.stringify(await KV.list({ prefix: searchParams.get("prefix"), limit })));
      }
      const value = await KV.get(key, "arrayBuffer");
      return value === null ? new Response("Not Found", { status: 404 }) : new Response(value);
    } }`,
    compatibilityDate: "2026-11-01",
    kvNamespaces: ["KV"],
    port: 0,
  }),
);
const url = await mf.ready;
console.log(`listening on http://127.0.0.1:${url.port}`);
