"""Prints an OpenAPI document with only the paths that have a certain parameter, which is filled in.

    narrow.py DOCUMENT NAME=VALUE...
"""

import json
import sys


def resolved(parameter, document):
    """The parameter itself, if this is a reference to it."""
    found = parameter
    if "$ref" in parameter:
        found = document
        for step in parameter["$ref"].removeprefix("#/").split("/"):
            found = found[step]
    return found


def fill(document, name, value):
    def others(part):
        kept = [p for p in part["parameters"] if resolved(p, document)["name"] != name]
        return part | {"parameters": kept}

    paths = {}
    for path, item in document["paths"].items():
        if f"{{{name}}}" not in path:
            continue
        item = {
            key: others(part) if isinstance(part, dict) and "parameters" in part else part
            for key, part in item.items()
        }
        paths[path.replace(f"{{{name}}}", value)] = others(item) if "parameters" in item else item
    return document | {"paths": paths}


document = json.load(open(sys.argv[1], encoding="utf-8"))
for filled in sys.argv[2:]:
    document = fill(document, *filled.split("=", 1))
json.dump(document, sys.stdout)
