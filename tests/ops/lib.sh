# Sourced by each check in this directory: its cases are counted here, and what it drives is installed.
set -uo pipefail
ops=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
children=()
trap 'for child in "${children[@]}"; do kill "$child" 2>/dev/null; done; rm -rf "$work"' EXIT

passed=0
failed=0

# check NAME COMMAND...: one case. What the command prints is shown if it fails.
check() {
  local name=$1
  shift
  if "$@" >"$work/output" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAIL %s\n' "$name"
    sed 's/^/  /' "$work/output"
  fi
}

# finish: the closing line, and its exit status.
finish() {
  printf '%s passed, %s failed\n' "$passed" "$failed"
  [ "$failed" -eq 0 ]
}

# need COMMAND PACKAGE: installs a Debian package unless its command is there.
need() {
  command -v "$1" >/dev/null && return
  local root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  echo "installing $2" >&2
  "${root[@]}" apt-get update -q >/dev/null &&
    DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -qy --no-install-recommends "$2" >/dev/null ||
    { echo "$2 cannot be installed" >&2; exit 1; }
}

# until_true SECONDS COMMAND...: tries every 0.2 s.
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}

# serve PROGRAM FLAGS...: starts a server with a store of its own; its id is then in `server`, the
# places where it listens in the file `places`.
serve() {
  local program=$1
  shift
  "$program" serve --data "$work/data" "$@" >"$work/places" 2>"$work/log" &
  server=$!
  children+=("$server")
  until_true 20 grep -q '^listening on ' "$work/places" ||
    { echo "the server does not start:"; cat "$work/log"; false; }
}

# place PREFIX: where the server listens, of several places the one that begins so.
place() { sed -n "s|^listening on \($1.*\)|\1|p" "$work/places" | head -n 1; }

# Requests to the server under test, with its token if it has one.
bearer=()
[ -n "${KV_API_TOKEN:-}" ] && bearer=(--header "Authorization: Bearer $KV_API_TOKEN")
ask() { curl --silent --show-error --fail --max-time 10 "${bearer[@]}" "$@"; }
