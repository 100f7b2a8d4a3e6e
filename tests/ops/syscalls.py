"""Fails if a system call in a trace of strace is one that a unit's filter forbids.

    syscalls.py UNIT TRACE...
"""

import re
import subprocess
import sys


def members(name):
    """The calls of a set such as `@system-service`; of a call, itself."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name],
        check=True, capture_output=True, text=True,
    ).stdout.split("\n")[1:]
    names = [line.strip() for line in listed if line.strip() and not line.strip().startswith("#")]
    return set().union(*map(members, names))


def allowed(unit):
    """The unit's lines in turn: a list allows, one that begins with `~` forbids again."""
    calls = members("@default")
    for line in open(unit, encoding="utf-8"):
        if not line.startswith("SystemCallFilter="):
            continue
        value = line.split("=", 1)[1].strip()
        named = set().union(*map(members, value.removeprefix("~").split()))
        calls = calls - named if value.startswith("~") else calls | named
    return calls


unit, *traces = sys.argv[1:]
made = {
    call
    for trace in traces
    for call in re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)", open(trace, encoding="utf-8").read(), re.M)
}
made -= {"exited", "killed"}
forbidden = sorted(made - allowed(unit))
if forbidden or "fdatasync" not in made:
    sys.exit(f"{unit} forbids {forbidden} of {len(made)} system calls that were made")
print(f"{len(made)} system calls, all allowed")
