# Sourced by .ci/run: servers under test, started and stopped as an operator does it.

kvast=$(realpath -m "${CARGO_TARGET_DIR:-target}")/release/kvast

# with_server COMMAND...: runs it with the origin of a new server as its last argument. Whatever
# happened, the server then has to end with status 0.
with_server() {
  local status url="" waited=0
  dir=${server_dir:-$(mktemp -d)}
  "$kvast" serve --data "$dir/data" --listen 127.0.0.1:0 >"$dir/out" &
  server=$!
  # A step is a process of its own, and takes its server with it.
  trap 'kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT
  while [ -z "$url" ] && [ "$waited" -lt 100 ]; do
    sleep 0.1
    waited=$((waited + 1))
    url=$(sed -n 's/^listening on //p' "$dir/out")
  done
  [ -n "$url" ] || { echo "the server does not listen"; return 1; }
  "$@" "$url"
  status=$?
  kill "$server"
  wait "$server" || { echo "the server ended with status $?"; status=1; }
  return "$status"
}

# with_guarded_server COMMAND...: the same with a server that wants a token, which is in KV_API_TOKEN.
with_guarded_server() {
  local server_dir
  server_dir=$(mktemp -d)
  KV_API_TOKEN=$("$kvast" token create --data "$server_dir/data") || return 1
  export KV_API_TOKEN
  with_server "$@"
}
