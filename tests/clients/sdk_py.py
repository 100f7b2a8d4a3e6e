"""The official Python SDK."""

import itertools
import json
import os
import sys
import time

import cloudflare

ACCOUNT = os.environ["KV_ACCOUNT_ID"]
BASE_URL = os.environ["KV_URL"].rstrip("/") + os.environ["KV_REST_PATH"]
client = cloudflare.Cloudflare(
    api_token=os.environ["KV_API_TOKEN"], base_url=BASE_URL, max_retries=0
)
kv = client.kv.namespaces
TITLE = f"clients-sdk-py-{time.time_ns()}"
CASES = []


def case(fn):
    CASES.append(fn)
    return fn


def fails(status, code, call):
    try:
        call()
    except cloudflare.APIStatusError as error:
        got = (error.status_code, error.body["errors"][0]["code"])
        assert got == (status, code), f"{got} instead of {(status, code)}"
        return
    raise AssertionError("the call succeeded")


class Namespace:
    """The namespace under test; `at` holds the two ids most calls take."""

    id = ""

    @property
    def at(self):
        return {"account_id": ACCOUNT, "namespace_id": self.id}


ns = Namespace()


@case
def namespace_create_get_rename():
    ns.id = kv.create(account_id=ACCOUNT, title=TITLE).id
    assert kv.update(ns.id, account_id=ACCOUNT, title=TITLE + "-b").title == TITLE + "-b"
    assert kv.get(ns.id, account_id=ACCOUNT).title == TITLE + "-b"
    fails(400, 10014, lambda: kv.create(account_id=ACCOUNT, title=TITLE + "-b"))
    fails(404, 10013, lambda: kv.get("f" * 32, account_id=ACCOUNT))


@case
def namespace_list_pages():
    pages = itertools.islice(kv.list(account_id=ACCOUNT, per_page=5), 20_000)
    found = [n for n in pages if n.id == ns.id]
    assert len(found) == 1


@case
def value_with_metadata_and_ttl():
    kv.values.update(
        "k/1 %é", value="välue".encode(), metadata={"a": [1, "é"]}, expiration_ttl=600, **ns.at
    )
    response = kv.values.get("k/1 %é", **ns.at)
    assert response.read() == "välue".encode()
    assert abs(int(response.headers["expiration"]) - time.time() - 600) < 30
    assert kv.metadata.get("k/1 %é", **ns.at) == {"a": [1, "é"]}


@case
def value_of_every_byte():
    content = bytes(range(256))
    kv.values.update("bytes", value=content, **ns.at)
    assert kv.values.get("bytes", **ns.at).read() == content
    assert kv.metadata.get("bytes", **ns.at) is None


@case
def value_of_25_mib():
    content = b"x" * (25 * 1024 * 1024)
    kv.values.update("big", value=content, **ns.at)
    assert kv.values.get("big", **ns.at).read() == content
    try:
        kv.values.update("big", value=content + b"x", **ns.at)
        raise AssertionError("a larger value was taken")
    except cloudflare.APIStatusError as error:
        assert error.status_code in (400, 413), error
    kv.values.delete("big", **ns.at)


@case
def missing_key():
    fails(404, 10009, lambda: kv.values.get("missing", **ns.at))
    fails(404, 10009, lambda: kv.metadata.get("missing", **ns.at))
    kv.values.delete("missing", **ns.at)


@case
def bulk_update_get_delete():
    body = [
        {"key": "b:1", "value": "one", "metadata": {"n": 1}},
        {"key": "b:2", "value": json.dumps({"two": 2})},
        {"key": "b:3", "value": "dGhyZWU=", "base64": True},
    ]
    written = kv.bulk_update(ns.id, account_id=ACCOUNT, body=body)
    assert (written.successful_key_count, written.unsuccessful_keys) == (3, [])
    got = kv.bulk_get(ns.id, account_id=ACCOUNT, keys=["b:1", "b:3", "b:none"])
    assert got.values == {"b:1": "one", "b:3": "three", "b:none": None}, got
    got = kv.bulk_get(ns.id, account_id=ACCOUNT, keys=["b:2"], type="json", with_metadata=True)
    assert got.values["b:2"].value == {"two": 2}, got
    assert got.values["b:2"].metadata is None, got
    deleted = kv.bulk_delete(ns.id, account_id=ACCOUNT, body=["b:1", "b:2", "b:3"])
    assert deleted.successful_key_count == 3


@case
def list_pages():
    names = [f"l:{i:04}" for i in range(1100)]
    kv.bulk_update(ns.id, account_id=ACCOUNT, body=[{"key": n, "value": n} for n in names])
    for limit in (100, 1000):
        pages = kv.keys.list(ns.id, account_id=ACCOUNT, prefix="l:", limit=limit)
        assert [k.name for k in itertools.islice(pages, 20_000)] == names


@case
def namespace_delete():
    kv.delete(ns.id, account_id=ACCOUNT)
    fails(404, 10013, lambda: kv.get(ns.id, account_id=ACCOUNT))


failed = 0
for run in CASES:
    try:
        run()
    except Exception as error:  # every failure is a result, none ends the suite
        failed += 1
        print(f"FAIL {run.__name__}\n  {type(error).__name__}: {error}")
print(f"{len(CASES) - failed} passed, {failed} failed")
sys.exit(1 if failed else 0)
