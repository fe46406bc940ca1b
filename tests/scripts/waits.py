#!/usr/bin/env python3
"""Finds loops and waits in tests that have no end.

    waits.py [FILE...]

Without files: all test code that git knows, which is tests/it, tests/*/tests, files named tests.rs or *_tests.rs or in a
directory tests, and a file's own module of tests. The status is 1 when there is one.

A loop has an end when its text names one: a deadline or patience (loadgen::patience), `until`, a comparison with `now`, an
`assert!` with `<`. Draining (`while let Some(..)`, `while !x.is_empty()`, `while x.front()..`) ends by itself unless it blocks. Endless iterators
count as loops, a `recv()` without a timeout as a wait. What is bounded otherwise says why in a comment in front of it:
`// bounded: reason`.
"""

import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent

LOOP = re.compile(r"\s*(?:'\w+: )?(?:loop|while)\b")
DRAINS = re.compile(
    r"\s*while (?:let (?:Some|Ok)|!?[\w.]+\.is_empty\(\) \{|[\w.]+\.front\(\)\.is_some_and"
    r"|[\w.]+(?:poll_\w+|try_recv)\(.*\)\.is_(?:some|ok)\(\) \{\})"
)
BLOCKS = re.compile(r"\b(?:recv|recv_from|recv_timeout|accept|connect|connect_timeout|incoming)\(")
ENDS = re.compile(
    r"(?i)\b(?:\w*deadline|until|patience|limit)\b|\bnow\b[^=;\n]* <=? | <=? (?:self\.)?now\b|\bassert!\([^;]*<|elapsed\(\) <"
)
ENDLESS = re.compile(r"\(\d+\.\.\)|\b(?:repeat_with|iter::repeat|successors)\(|\.cycle\(\)")
ENDS_ITERATOR = re.compile(r"\.zip\(|\.take\(|\.take_while\(|zip\(")
WAIT = re.compile(r"\.recv\(\)(?!\.await)")
INLINE_TESTS = re.compile(r"^#\[cfg\(test\)\]\n(?:#\[.*\]\n)*mod \w+ \{", re.MULTILINE)
EXCUSE = re.compile(r"// bounded: \w")


def block(lines, start):
    """The text from a line to where its braces are closed again."""
    depth, text = 0, []
    for line in lines[start:]:
        text.append(line)
        code = re.sub(r'b?"(?:\\.|[^"\\])*"|b?\'(?:\\.|[^\'\\])\'|//.*', "", line)
        depth += code.count("{") - code.count("}")
        if depth <= 0 and "}" in code:
            break
    return "\n".join(text)


def is_excused(lines, number):
    """A comment on the line or directly in front of it."""
    if EXCUSE.search(lines[number]):
        return True
    while number > 0 and lines[number - 1].strip().startswith("//"):
        number -= 1
        if EXCUSE.search(lines[number]):
            return True
    return False


def check(file, text, whole):
    lines = text.splitlines()
    module = INLINE_TESTS.search(text)
    first = 0 if whole else text[: module.start()].count("\n") if module else len(lines)
    for number in range(first, len(lines)):
        line = lines[number]
        code = line.split("//")[0]
        if LOOP.match(code):
            body = block(lines, number)
            condition = body.split("{")[0]
            drains = DRAINS.match(code) and not BLOCKS.search(condition)
            complaint = None if drains or ENDS.search(re.sub(r"//.*", "", body)) else "a loop without a deadline"
        elif ENDLESS.search(code):
            statement = "\n".join(lines[max(0, number - 2) : number + 3])
            complaint = None if ENDS_ITERATOR.search(statement) else "an iterator without an end"
        elif WAIT.search(code):
            complaint = "a wait without a deadline"
        else:
            continue
        if complaint and not is_excused(lines, number):
            yield f"{file}:{number + 1}: {complaint}: {line.strip()}"


def is_test(path):
    parts = path.split("/")
    below_tests = len(parts) > 2 and parts[0] == "tests" and (parts[1] == "it" or parts[2] == "tests")
    return below_tests or "tests" in parts[1:-1] or parts[-1] == "tests.rs" or parts[-1].endswith("_tests.rs")


def main():
    named = sys.argv[1:]
    files = named or subprocess.check_output(["git", "ls-files", "*.rs"], cwd=TOP, text=True).split()
    found = []
    for file in files:
        path = file if named else TOP / file
        found += check(file, Path(path).read_text(encoding="utf-8"), bool(named) or is_test(file))
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
