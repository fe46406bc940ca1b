#!/usr/bin/env python3
"""Finds each test that tests/RULES.md and CONTRIBUTING.md name: crate, modules and name, as the source files have them; and
each function that stands beside its file (`src/media.rs` `MediaLoop::join`).

    rules.py [TABLE...]

Says which names lead to no test and where a test of that name is instead; the status is 1 then. It reads the modules' files
as rustc does (`mod name;`, `#[path]`, `mod name {`) and relies on rustfmt's layout. An inline `mod tests` is left out of a
test's path, a file of that name is not.
"""

import re
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
# First part of a name: the files from which its crates' modules are reached.
CRATES = {
    "muxer": ["muxer/src/lib.rs", "muxer/tests/golden.rs"],
    "guest_relay": ["src/lib.rs", "src/main.rs"],
    "it": ["tests/it/main.rs"],
    "ingest": ["tests/ingest/src/lib.rs", "tests/ingest/tests/rules.rs"],
    "loadgen": ["tests/loadgen/src/lib.rs", "tests/loadgen/tests/loopback.rs", "tests/loadgen/tests/virtual_time.rs"],
    "netsim": ["tests/netsim/src/lib.rs", "tests/netsim/tests/short.rs"],
    "sfu_sim": ["tests/sfu-sim/src/lib.rs", "tests/sfu-sim/tests/it/main.rs"],
}

BESIDE_ITS_FILE = re.compile(r"`([a-z_/]+\.rs)` `(?:(\w+)::)?(\w+)`")
NAME = re.compile(r"`([a-z0-9_]+(?:::[A-Za-z0-9_]+)+)`")
ATTRIBUTE_PATH = re.compile(r'#\[path = "([^"]+)"\]')
MODULE = re.compile(r"(?:pub(?:\([^)]*\))? )?mod ([a-z0-9_]+)( \{|;)$")
FUNCTION = re.compile(r"(?:pub(?:\([^)]*\))? )?(?:async )?fn ([a-z0-9_]+)\(")


def tests_of(file, prefix, children, found):
    """Adds the tests of a file and of the modules below it; `children` is where files of its modules are."""
    inline = []  # of modules that are open here: indent, name
    path, is_test = None, False
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if text == "}" and inline and inline[-1][0] == indent:
            inline.pop()
        elif text == "#[test]":
            is_test = True
        elif given := ATTRIBUTE_PATH.match(text):
            path = given.group(1)
        elif module := MODULE.match(text):
            name, rest = module.groups()
            if rest == " {":
                inline.append((indent, name))
            else:
                within = children.joinpath(*(name for _, name in inline))
                places = [file.parent / path] if path else [within / f"{name}.rs", within / name / "mod.rs"]
                place = next((place for place in places if place.is_file()), None)
                if place is None:
                    sys.exit(f"{file.relative_to(TOP)}: mod {name} has no file")
                below = place.parent if path or place.name == "mod.rs" else within / name
                tests_of(place, prefix + [name for _, name in inline] + [name], below, found)
            path = None
        elif function := FUNCTION.match(text):
            if is_test:
                modules = prefix + [name for _, name in inline if name != "tests"]
                found.setdefault("::".join([*modules, function.group(1)]), []).append(file.relative_to(TOP))
            path, is_test = None, False


def has_function(file, of_type, name):
    """Whether the file has the function, of the type where one is named."""
    if not file.is_file():
        return False
    text = file.read_text(encoding="utf-8")
    is_of_type = of_type is None or re.search(rf"^impl\b[^{{]*\b{of_type}\b", text, re.MULTILINE)
    return bool(is_of_type and re.search(rf"\bfn {name}\b", text))


def main():
    tables = [Path(name) for name in sys.argv[1:]] or [TOP / "tests/RULES.md", TOP / "CONTRIBUTING.md"]
    found = {}
    for crate, roots in CRATES.items():
        for root in roots:
            tests_of(TOP / root, [crate], (TOP / root).parent, found)
    by_name = {}
    for test in found:
        by_name.setdefault(test.rsplit("::", 1)[1], []).append(test)
    failed = False
    rows = [(table, *row) for table in tables for row in enumerate(table.read_text(encoding="utf-8").splitlines(), 1)]
    for table, number, line in rows:
        for test in NAME.findall(BESIDE_ITS_FILE.sub("", line)):
            if test not in found:
                failed = True
                others = by_name.get(test.rsplit("::", 1)[1], [])
                instead = f", but {' and '.join(others)}" if others else ""
                print(f"{table.name}:{number}: there is no test {test}{instead}")
        for file, of_type, name in BESIDE_ITS_FILE.findall(line):
            if not has_function(TOP / file, of_type or None, name):
                failed = True
                print(f"{table.name}:{number}: there is no function {name} in {file}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
