#!/usr/bin/env python3
"""Holds the daemon's sources against the floors of the house: arrows run one way, down, and nowhere in a circle.

    layout.py                  check the repository; one line for each finding, exit code 1 if there is one
    layout.py --graph          also print each room with the rooms it uses
    layout.py --self-test      build small trees with one fault each, and see that each fault is found
    layout.py --alias calls=sfu,config::secret=secret
                               read a module as a part of another room: what a move would leave to be done

What is read: every `use` and every path that begins with `crate`, `super`, `self`, a child module or an imported module,
in code that is compiled outside of tests; also those that a serde attribute hides in a string. Not read: comments,
strings, `pub(in ...)`, whatever stands under `#[cfg(test)]`. Re-exports are followed to the file that defines the item.

Findings:
  arrow up        a room uses a room of a higher floor
  arrow sideways  a room uses another room of its own floor, and SIDEWAYS does not name the pair
  no floor        a room that FLOORS does not name, or a file that no `mod` leads to
  circle          files that use each other. `mod child` and `pub use child::Thing` alone do not make a parent use its
                  child; naming the child's item in the parent's code does.
  parent name     a child module names a struct, enum, union or trait that a file above it defines
  too long        a Rust file of more than LINES_MAX lines, or a median of src/ of MEDIAN_MAX or more
  no such file    a path in a `//!` comment, in a comment of Cargo.toml or in a Markdown file that leads nowhere
"""

import argparse
import bisect
import fnmatch
import functools
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

# The floors, from the roof down. A room is a top-level module of src/; it may use rooms of lower floors only.
FLOORS = [
    ("roof", ["main", "lib"]),
    ("composition root", ["app"]),
    ("who asks", ["http", "doctor"]),
    ("input and output, values of the file", ["media", "config"]),
    ("one slot, the SFU, what goes back, addresses", ["slot", "sfu", "feed", "net"]),
    ("protocol machines, the log", ["rtc", "rtmp", "journal"]),
    (
        "leaves",
        ["guest", "access", "utc", "secret", "systemd", "panics", "deadline", "within", "backoff", "log_once"],
    ),
    ("crates of ours", ["muxer"]),
]

# Rooms of one floor that may know each other, in this direction only, each with the reason.
SIDEWAYS: dict[tuple[str, str], str] = {}

# Crates of the workspace that are rooms of their own.
CRATES = {"guest_relay_muxer": "muxer"}
# How the binary calls the library.
LIBRARY = "guest_relay"
# Crates inside src/ that are not modules of the daemon.
NESTED_CRATES = ["src/rtc/srtp/transform"]

LINES_MAX = 1000
MEDIAN_MAX = 300

TYPES = {"struct", "enum", "union", "trait"}


# --- Text of a source file → tokens -----------------------------------------------------------------------------------

NOT_CODE = re.compile(
    r"""//[^\n]*
      | /\*
      | \b(?:b|c)?r(?P<hashes>\#*)"
      | \b[bc]?"(?:\\.|[^"\\])*" | "(?:\\.|[^"\\])*"
      | '(?:\\x[0-9a-fA-F]{2}|\\u\{[^}]*\}|\\.|[^\\'\n])'
    """,
    re.VERBOSE | re.DOTALL,
)
TOKEN = re.compile(r"r\#[A-Za-z_]\w*|[A-Za-z_]\w*|'[A-Za-z_]\w*|\d\w*|::|=>|->|\S")
PATH_IN_STRING = re.compile(r'"((?:crate|super|self)(?:::\w+)+)"')
WORD = re.compile(r"[A-Za-z_]\w*\Z")


def mask(text: str) -> str:
    """The code with comments, strings and characters blanked, each byte at its place; a path in an attribute stays."""
    parts, at = [], 0
    while found := NOT_CODE.search(text, at):
        start, end = found.span()
        token = found.group()
        if token == "/*":
            depth = 0
            for mark in re.finditer(r"/\*|\*/", text[start:]):
                depth += 1 if mark.group() == "/*" else -1
                if depth == 0:
                    end = start + mark.end()
                    break
            else:
                end = len(text)
        elif found.group("hashes") is not None:
            close = text.find('"' + found.group("hashes"), end)
            end = len(text) if close < 0 else close + 1 + len(found.group("hashes"))
        parts.append(text[at:start])
        path = PATH_IN_STRING.fullmatch(token)
        attribute = text.rfind("#[", max(0, start - 300), start)
        if path and attribute >= 0 and "]" not in text[attribute:start]:
            parts.append(f" {path.group(1)} ")
        else:
            parts.append(re.sub(r"[^\n]", " ", text[start:end]))
        at = end
    parts.append(text[at:])
    return "".join(parts)


# --- Tokens → modules, names, paths -----------------------------------------------------------------------------------


@dataclass
class Use:
    """One name that a `use` brings into a module; `name` is None for `*`."""

    segments: list[str]
    name: str | None
    line: int
    public: bool
    local: bool  # inside a function


@dataclass
class CodePath:
    """One path in code."""

    segments: list[str]
    line: int


@dataclass
class Module:
    path: tuple[str, ...]
    file: str
    parent: "Module | None"
    children: dict[str, "Module"] = field(default_factory=dict)
    items: dict[str, str] = field(default_factory=dict)  # name → kind
    uses: list[Use] = field(default_factory=list)
    paths: list[CodePath] = field(default_factory=list)
    heads: set[str] = field(default_factory=set)  # names that code speaks of, outside of `use`

    def named(self, name: str) -> list[Use]:
        return [use for use in self.uses if use.name == name and not use.local]

    def globs(self) -> list[Use]:
        return [use for use in self.uses if use.name is None]


class Source:
    """Reads one file into its module, and the files that its `mod` items name."""

    def __init__(self, tree: "Tree", file: str, module: Module):
        self.tree, self.file, self.module = tree, file, module
        self.text = (tree.root / file).read_text(encoding="utf-8")
        masked = mask(self.text)
        self.tokens, self.at = [], []
        for found in TOKEN.finditer(masked):
            self.tokens.append(found.group().removeprefix("r#"))
            self.at.append(found.start())
        self.breaks = [index for index, char in enumerate(self.text) if char == "\n"]

    def line(self, index: int) -> int:
        return bisect.bisect_left(self.breaks, self.at[index]) + 1

    def token(self, index: int) -> str:
        return self.tokens[index] if 0 <= index < len(self.tokens) else ""

    def closing(self, index: int) -> int:
        """The index of the bracket that closes the one at `index`."""
        depth = 0
        for i in range(index, len(self.tokens)):
            if self.tokens[i] in "([{":
                depth += 1
            elif self.tokens[i] in ")]}":
                depth -= 1
                if depth == 0:
                    return i
        return len(self.tokens) - 1

    def attributes(self, index: int) -> tuple[list[str], int]:
        """The outer attributes that begin at `index`, as their source text, and the index behind them."""
        found = []
        while self.token(index) == "#" and self.token(index + 1) == "[":
            end = self.closing(index + 1)
            found.append(self.text[self.at[index] : self.at[end] + 1])
            self.read_paths(index + 2, end)
            index = end + 1
        return found, index

    def after_visibility(self, index: int) -> int:
        if self.token(index) == "pub":
            index += 1
            if self.token(index) == "(" and self.token(index + 1) in ("crate", "super", "self", "in"):
                index = self.closing(index) + 1
        return index

    def skip_item(self, index: int) -> int:
        """The index behind the item, statement, field or match arm that begins at `index`."""
        start = self.after_visibility(index)
        is_item = self.token(start) in ITEM_WORDS
        i = start
        while i < len(self.tokens):
            token = self.tokens[i]
            if token == ";" or (token == "," and not is_item):
                return i + 1
            if token in "([{":
                i = self.closing(i)
                if token == "{" and self.token(i + 1) not in ("=>", ".", "?", ",", ";", "else"):
                    return i + 1
            elif token in ")]}":
                return i
            i += 1
        return i

    def read(self) -> None:
        i, modules = 0, []  # modules: (index of the closing brace, the module outside)
        braces = []  # closing braces of what is not a module
        while i < len(self.tokens):
            token = self.tokens[i]
            while braces and i >= braces[-1]:
                braces.pop()
            if modules and i == modules[-1][0]:
                self.module = modules.pop()[1]
                i += 1
                continue
            if token == "#" and self.token(i + 1) == "!" and self.token(i + 2) == "[":
                i = self.closing(i + 2) + 1
                continue
            attributes, i = self.attributes(i)
            test = any(TEST_ONLY.search(attribute) for attribute in attributes)
            start = self.after_visibility(i)
            token = self.token(start)
            if token == "mod" and WORD.match(self.token(start + 1)) and self.token(start + 2) in (";", "{"):
                name = self.token(start + 1)
                if self.token(start + 2) == ";":
                    self.tree.open(self, name, attributes, test)
                    i = start + 3
                elif test:
                    i = self.closing(start + 2) + 1
                else:
                    end = self.closing(start + 2)
                    modules.append((end, self.module))
                    child = Module((*self.module.path, name), self.file, self.module)
                    self.module.children[name] = child
                    self.tree.modules[child.path] = child
                    self.module = child
                    i = start + 3
                continue
            if test:
                i = self.skip_item(i)
                continue
            if token == "use" and self.token(start + 1) != "<":
                i = self.read_use(start + 1, [], self.token(i) == "pub", bool(braces)) + 1
                continue
            if token in KINDS and not braces and WORD.match(self.token(start + 1)):
                self.module.items.setdefault(self.token(start + 1), token)
            elif token == "macro_rules" and self.token(start + 1) == "!":
                self.module.items.setdefault(self.token(start + 2), "macro")
            if token == "{":
                braces.append(self.closing(start))
            i = self.read_path(start)

    def read_use(self, i: int, prefix: list[str], public: bool, local: bool) -> int:
        """Reads one tree of a `use` from `i`; returns the index of the token that ends it: `,`, `}` or `;`."""
        segments = list(prefix)
        at = i
        while i < len(self.tokens):
            token = self.tokens[i]
            if token == "{":
                i += 1
                while self.token(i) not in ("}", ""):
                    i = self.read_use(i, segments, public, local)
                    if self.token(i) == ",":
                        i += 1
                return i + 1
            if token == "*":
                self.module.uses.append(Use(segments, None, self.line(at), public, local))
                return i + 1
            if token == "as":
                name = self.token(i + 1)
                self.module.uses.append(Use(segments, name, self.line(at), public, local))
                return i + 2
            if token in (",", "}", ";"):
                if segments and segments != prefix:
                    self.module.uses.append(Use(segments, segments[-1], self.line(at), public, local))
                return i
            if WORD.match(token):
                if token == "self" and segments:
                    name = self.token(i + 2) if self.token(i + 1) == "as" else segments[-1]
                    self.module.uses.append(Use(segments, name, self.line(at), public, local))
                    return i + 3 if self.token(i + 1) == "as" else i + 1
                segments = [*segments, token]
            i += 1
        return i

    def read_paths(self, i: int, end: int) -> None:
        while i < end:
            i = self.read_path(i)

    def read_path(self, i: int) -> int:
        """Reads the path that begins at `i`, if one does; returns the index behind it."""
        token = self.token(i)
        if not WORD.match(token) or self.token(i - 1) in ("::", "."):
            return i + 1
        segments, at = [token], i
        while self.token(i + 1) == "::" and WORD.match(self.token(i + 2)):
            segments.append(self.tokens[i + 2])
            i += 2
        if len(segments) > 1:
            self.module.paths.append(CodePath(segments, self.line(at)))
        elif self.token(i - 1) not in KINDS:
            self.module.heads.add(token)
        return i + 1


KINDS = TYPES | {"type", "fn", "const", "static"}
ITEM_WORDS = KINDS | {"impl", "mod", "use", "extern", "let", "async", "unsafe", "macro_rules"}
TEST_ONLY = re.compile(r"^#\[(?:cfg\((?:test|all\((?:[^()]*,\s*)?test\b.*)\)|test)\]", re.DOTALL)
PATH_ATTRIBUTE = re.compile(r'^#\[path\s*=\s*"([^"]+)"')
TEST_FILE = re.compile(r"\A(?:\s|//[^\n]*\n)*#!\[cfg\(test\)\]")


@dataclass
class Target:
    """Where a path leads: the file, the module, and the item in it, if it is one."""

    module: Module | None  # None: another crate
    kind: str  # "mod", "crate", an item's keyword, or "" when not known
    name: str
    trace: list[Module]  # modules that the path names on its way
    crate: str = ""


class Tree:
    """All modules of one crate, beginning with its root file."""

    def __init__(self, root: Path, file: str):
        self.root = root
        self.modules: dict[tuple[str, ...], Module] = {}
        self.test_files: set[str] = set()
        self.missing: list[tuple[str, int, str]] = []
        self.library: Tree | None = None  # what the binary's crate calls by LIBRARY
        self.top = Module((), file, None)
        self.modules[()] = self.top
        Source(self, file, self.top).read()

    def open(self, source: Source, name: str, attributes: list[str], test: bool) -> None:
        """Reads the file of `mod name;`."""
        parent = source.module
        here = Path(source.file)
        given = [found.group(1) for found in map(PATH_ATTRIBUTE.match, attributes) if found]
        inline = parent.path[len(self.path_of_file(source.file)) :]
        folder = here.parent if here.stem in ("mod", "lib", "main") else here.parent / here.stem
        folder = folder.joinpath(*inline)
        if given:
            candidates = [here.parent / given[0]]
        else:
            candidates = [folder / f"{name}.rs", folder / name / "mod.rs"]
        file = next((str(path) for path in candidates if (self.root / path).is_file()), None)
        if file is None:
            self.missing.append((source.file, 1, f"mod {name} has no file"))
            return
        if test or TEST_FILE.match((self.root / file).read_text(encoding="utf-8")):
            self.test_files.add(file)
            self.test_files.update(
                str(path.relative_to(self.root))
                for path in (self.root / file).with_suffix("").rglob("*.rs")
            )
            return
        child = Module((*parent.path, name), file, parent)
        parent.children[name] = child
        self.modules[child.path] = child
        Source(self, file, child).read()

    def path_of_file(self, file: str) -> tuple[str, ...]:
        return min((module.path for module in self.modules.values() if module.file == file), key=len, default=())

    def lookup(self, module: Module, name: str, last: bool, seen: set) -> Target | None:
        """What `name` is in `module`: a child, an item, something imported. None: nothing that is known."""
        key = (module.path, name, id(self))
        if key in seen:
            return None
        seen = seen | {key}
        if name in module.children:
            return Target(module.children[name], "mod", "", [])
        if name in module.items:
            return Target(module, module.items[name], name, [])
        for use in module.named(name):
            found = self.resolve(module, use.segments, seen)
            if found:
                return found
        for use in module.globs():
            origin = self.resolve(module, use.segments, seen)
            if origin and origin.kind == "mod" and origin.module is not module:
                found = self.lookup(origin.module, name, last, seen)
                if found:
                    return found
        return None

    def resolve(self, module: Module, segments: list[str], seen: set = frozenset()) -> Target | None:
        """Follows a path from `module`. None: not a path of this crate nor of one that is a room."""
        tree, current, rest, trace = self, module, list(segments), []
        if rest[0] == LIBRARY and self.library:
            tree, current, rest = self.library, self.library.top, rest[1:]
        elif rest[0] == "crate":
            current, rest = self.top, rest[1:]
        elif rest[0] in ("self", "super"):
            while rest and rest[0] in ("self", "super"):
                current = current if rest[0] == "self" else current.parent or current
                rest = rest[1:]
            trace.append(current)
        else:
            first = self.lookup(current, rest[0], len(rest) == 1, seen)
            if first is None:
                return Target(None, "crate", rest[-1], [], CRATES[rest[0]]) if rest[0] in CRATES else None
            if first.kind != "mod":
                return first
            current, rest = first.module, rest[1:]
            trace += [*first.trace, current]
        while rest:
            found = tree.lookup(current, rest[0], len(rest) == 1, seen)
            if found is None:
                return Target(current, "", rest[0], trace)
            found = Target(found.module, found.kind, found.name, [*trace, *found.trace], found.crate)
            if found.kind != "mod":
                return found
            current, rest = found.module, rest[1:]
            trace.append(current)
        return Target(current, "mod", "", trace)


# --- Modules → arrows -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrow:
    """One file uses another one."""

    source: str
    line: int
    target: str
    name: str  # of the item or module, for the reader
    rooms: tuple[str, ...]  # the rooms that the path names or leads to


@dataclass(frozen=True)
class Finding:
    kind: str
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


class Layout:
    def __init__(self, root: Path, aliases: dict[str, str], lines_max: int = LINES_MAX):
        self.root, self.aliases, self.lines_max = root, aliases, lines_max
        self.findings: list[Finding] = []
        self.arrows: set[Arrow] = set()
        self.parent_names: dict[tuple[str, str, str], list[tuple[int, str]]] = {}  # child, parent, type → where
        self.lengths: dict[str, int] = {}
        self.files = tracked(root)
        library = Tree(root, "src/lib.rs")
        self.trees = [library]
        if (root / "src/main.rs").is_file():
            binary = Tree(root, "src/main.rs")
            binary.library = library
            self.trees.append(binary)

    def add(self, kind: str, file: str, line: int, text: str) -> None:
        finding = Finding(kind, file, line, text)
        if finding not in self.findings:
            self.findings.append(finding)

    def check(self) -> None:
        for tree in self.trees:
            for module in tree.modules.values():
                self.read_module(tree, module)
        self.check_rooms()
        self.check_arrows()
        self.check_circles()
        self.check_parent_names()
        self.check_lengths()
        self.check_paths()

    def room(self, module: Module) -> str:
        """The room that a module is in; the roof is called by its file."""
        full = "::".join(module.path)
        for prefix in sorted(self.aliases, key=len, reverse=True):
            if full == prefix or full.startswith(prefix + "::"):
                return self.aliases[prefix]
        return module.path[0] if module.path else Path(module.file).stem

    def read_module(self, tree: Tree, module: Module) -> None:
        spoken_through = {path.segments[0] for path in module.paths}
        for use in module.uses:
            target = tree.resolve(module, use.segments)
            if target is None:
                continue
            if target.module and is_below(target.module, module) and use.public:
                # A re-export makes the name the parent's own: it is an arrow if the parent's code uses it.
                if use.name not in module.heads | spoken_through:
                    continue
            elif target.kind == "mod" and use.name in spoken_through:
                # The paths that begin with it say which files of the module are used.
                self.add_arrow(tree, module, target, use.line, rooms_only=True)
                continue
            if use.name is None and target.kind == "mod":
                self.read_glob(tree, module, target, use)
                continue
            self.add_arrow(tree, module, target, use.line)
        imported = {use.name for use in module.uses}
        for path in module.paths:
            first = path.segments[0]
            known = first in ("crate", "super", "self", LIBRARY) or first in CRATES
            if not known and first not in module.children and first not in imported:
                continue
            target = tree.resolve(module, path.segments)
            if target and (known or first in module.children or self.leads_through_module(tree, module, first)):
                self.add_arrow(tree, module, target, path.line)

    @staticmethod
    def leads_through_module(tree: Tree, module: Module, name: str) -> bool:
        """An imported type is an arrow where it is imported; an imported module is one where a path goes through it."""
        target = tree.lookup(module, name, False, set())
        return target is not None and target.kind == "mod"

    def read_glob(self, tree: Tree, module: Module, origin: Target, use: Use) -> None:
        """`use x::*`: the arrows are those of the names that the code speaks of."""
        heads = module.heads | {path.segments[0] for path in module.paths}
        hit = False
        for name in sorted(heads - set(module.items) - set(module.children)):
            found = tree.lookup(origin.module, name, True, set())
            if found and found.module:
                hit = True
                self.add_arrow(tree, module, found, use.line)
        self.add_arrow(tree, module, origin, use.line, rooms_only=hit)

    def add_arrow(self, tree: Tree, module: Module, target: Target, line: int, rooms_only: bool = False) -> None:
        passed = [step for step in target.trace if step.path]
        rooms = [self.room(passed[0])] if passed else []
        if target.crate:
            rooms.append(target.crate)
        elif target.module and target.module.path:
            rooms.append(self.room(target.module))
        target_file = target.module.file if target.module and not rooms_only else ""
        name = target.name or "::".join(target.module.path if target.module else ())
        rooms = tuple(dict.fromkeys(rooms))
        self.arrows.add(Arrow(module.file, line, target_file, name, rooms))
        if target.module is None or target.kind not in TYPES or target.module.file == module.file:
            return
        if target.module.path and is_below(module, target.module):
            self.parent_names.setdefault((module.file, target.module.file, target.name), []).append((line, target.kind))

    def rooms(self) -> dict[str, str]:
        """Each room with a file of it."""
        found = {}
        for tree in self.trees:
            for module in sorted(tree.modules.values(), key=lambda module: module.path):
                found.setdefault(self.room(module), module.file)
        return found

    def room_of_file(self, file: str) -> str:
        return self.file_rooms[file]

    @functools.cached_property
    def file_rooms(self) -> dict[str, str]:
        found = {}
        for tree in self.trees:
            for module in sorted(tree.modules.values(), key=lambda module: len(module.path)):
                found.setdefault(module.file, self.room(module))
        return found

    def check_rooms(self) -> None:
        for room, file in self.rooms().items():
            if floor_of(room) is None:
                self.add("no floor", file, 1, f"the room {room} has no floor in tests/scripts/layout.py")
        reached = set(self.file_rooms)
        for tree in self.trees:
            reached |= tree.test_files
            for file, line, text in tree.missing:
                self.add("no floor", file, line, text)
        for file in self.files:
            if file.startswith("src/") and file.endswith(".rs") and file not in reached:
                if not any(file.startswith(nested + "/") for nested in NESTED_CRATES):
                    self.add("no floor", file, 1, "no `mod` leads to this file")

    def check_arrows(self) -> None:
        for arrow in sorted(self.arrows, key=lambda arrow: (arrow.source, arrow.line, arrow.name)):
            here = self.file_rooms[arrow.source]
            for there in arrow.rooms:
                above, below = floor_of(here), floor_of(there)
                if here == there or above is None or below is None or below > above or (here, there) in SIDEWAYS:
                    continue
                kind = "arrow up" if below < above else "arrow sideways"
                reason = f"floor {above} → {below}" if below < above else f"both on floor {above}"
                self.add(
                    kind, arrow.source, arrow.line, f"{label(here)} may not use {label(there)} ({reason}): {arrow.name}"
                )

    def check_circles(self) -> None:
        edges: dict[str, dict[str, list[Arrow]]] = defaultdict(lambda: defaultdict(list))
        for arrow in self.arrows:
            if arrow.target and arrow.target != arrow.source:
                edges[arrow.source][arrow.target].append(arrow)
        for circle in components({file: set(targets) for file, targets in edges.items()}):
            inside = sorted(circle)
            details = []
            for source in inside:
                for target in sorted(set(edges[source]) & circle):
                    arrows = sorted(edges[source][target], key=lambda arrow: (arrow.line, arrow.name))
                    names = ", ".join(dict.fromkeys(arrow.name for arrow in arrows))
                    details.append(f"\n    {source}:{arrows[0].line}: uses {target}: {names}")
            arrows = [arrow for target in circle for arrow in edges[inside[0]].get(target, ())]
            first = min(arrow.line for arrow in arrows)
            text = f"circle of {len(inside)} files: {', '.join(inside)}"
            self.add("circle", inside[0], first, text + "".join(details))

    def check_parent_names(self) -> None:
        for (child, parent, name), places in self.parent_names.items():
            line, kind = min(places)
            self.add("parent name", child, line, f"names {name}, the {kind} that {parent} above it defines")

    def check_lengths(self) -> None:
        for file in self.files:
            if not file.endswith(".rs"):
                continue
            lines = (self.root / file).read_bytes().count(b"\n")
            if lines > self.lines_max:
                text = f"{lines} lines, more than {self.lines_max}: it is more than one thing"
                self.add("too long", file, self.lines_max, text)
            if file.startswith("src/"):
                self.lengths[file] = lines
        if self.lengths and self.median() >= MEDIAN_MAX:
            self.add("too long", "src", 1, f"the median of src/ is {self.median()} lines, not below {MEDIAN_MAX}")

    def median(self) -> int:
        return int(statistics.median(self.lengths.values()))

    # --- Paths that comments and documents name ---

    def check_paths(self) -> None:
        for file in self.files:
            path = Path(file)
            if path.suffix == ".rs":
                lines = self.comments(file, re.compile(r"^\s*//!(.*)"))
            elif path.name == "Cargo.toml":
                lines = self.comments(file, re.compile(r"^(?:[^\"#]|\"[^\"]*\")*#(.*)"))
            elif path.suffix == ".md" and path.name != "CHANGELOG.md":  # which may name what was
                lines = self.comments(file, re.compile(r"(.*)"))
            else:
                continue
            for number, text in lines:
                for token in named_paths(text, path.name == "Cargo.toml"):
                    if not self.exists(path, token):
                        self.add("no such file", file, number, f"names {token}, which does not exist")

    def comments(self, file: str, pattern: re.Pattern) -> list[tuple[int, str]]:
        text = (self.root / file).read_text(encoding="utf-8")
        found = ((number, pattern.match(line)) for number, line in enumerate(text.splitlines(), 1))
        return [(number, match.group(1)) for number, match in found if match]

    def exists(self, file: Path, token: str) -> bool:
        """Whether `token` is a path from the file's folder, one above it, or the sources of one of these."""
        for name in braces_expanded(token):
            bases = [base / sub for base in file.parents for sub in ("", "src")]
            if not any(self.is_there(base / name) for base in bases):
                return False
        return True

    def is_there(self, path: Path) -> bool:
        if "*" in str(path):
            return any(fnmatch.fnmatch(file, str(path)) for file in self.files)
        return (self.root / path).exists()


CANDIDATE = re.compile(r"(?<![\w./:@~$<>-])[\w.-]+(?:/[\w.*{},-]+)+/?|(?<![\w./:@~$<>-])[\w-]+\.rs\b")
FOLDERS = ("src", "tests", "cross", "static", "muxer")


def named_paths(text: str, bare_names: bool) -> list[str]:
    """What looks like a path of the repository. `bare_names`: a file name without a folder counts too."""
    found = []
    for match in CANDIDATE.finditer(text):
        token = match.group().rstrip(".,-{}") if match.group().count("{") != match.group().count("}") else match.group()
        token = token.rstrip(".,-")
        after = text[match.end() : match.end() + 1]
        if after in ("<", "$", "…", ":") and text[match.end() : match.end() + 2] != ": ":
            # A name goes on that only a person can fill in, or a line follows: what stands before it must exist.
            token = token if re.match(r":\d", text[match.end() :]) else token.rpartition("/")[0]
        if not token or "//" in token or token.startswith("."):
            continue
        folder = token.split("/")[0]
        if "/" in token and folder in FOLDERS:
            found.append(token)
        elif token.endswith(".rs") and ("/" in token or bare_names):
            found.append(token)
    return found


def braces_expanded(token: str) -> list[str]:
    match = re.search(r"\{([^{}]*)\}", token)
    if not match:
        return [token]
    return [
        name
        for part in match.group(1).split(",")
        for name in braces_expanded(token[: match.start()] + part + token[match.end() :])
    ]


def is_below(module: Module, above: Module) -> bool:
    return len(module.path) > len(above.path) and module.path[: len(above.path)] == above.path


def floor_of(room: str) -> int | None:
    return next((number for number, (_, rooms) in enumerate(FLOORS) if room in rooms), None)


def label(room: str) -> str:
    return room if room in CRATES.values() else f"src/{room}"


def components(edges: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one node (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = set()
            while node not in component:
                component.add(stack.pop())
            if len(component) > 1:
                found.append(component)

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def tracked(root: Path) -> list[str]:
    """The files of the repository that are there, or of a tree that is none."""
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "-z"]
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    else:
        names = [str(path.relative_to(root)) for path in root.rglob("*")]
    return sorted(name for name in names if name and (root / name).is_file())


# --- Output -----------------------------------------------------------------------------------------------------------


def print_floors() -> None:
    print("floors (a room uses lower floors only):")
    for number, (what, rooms) in enumerate(FLOORS):
        print(f"  {number}  {' '.join(rooms):<40} {what}")
    for (source, target), reason in SIDEWAYS.items():
        print(f"     {source} may use {target}: {reason}")


def print_graph(layout: Layout) -> None:
    arrows = defaultdict(set)
    for arrow in layout.arrows:
        here = layout.file_rooms[arrow.source]
        arrows[here].update(there for there in arrow.rooms if there != here)
    rooms = layout.rooms()
    count = sum(len(targets) for targets in arrows.values())
    print(f"rooms: {len(rooms)}, arrows: {count}")
    for room in sorted(rooms, key=lambda room: (floor_of(room) is None, floor_of(room), room)):
        order = sorted(arrows[room], key=lambda room: (floor_of(room) is None, floor_of(room), room))
        print(f"  {room} → {' '.join(order) or '(nothing)'}")


KIND_ORDER = ["no floor", "arrow up", "arrow sideways", "circle", "parent name", "too long", "no such file"]


def print_findings(layout: Layout) -> None:
    for finding in sorted(layout.findings, key=lambda f: (KIND_ORDER.index(f.kind), f.file, f.line, f.text)):
        print(finding)
    count = {kind: sum(finding.kind == kind for finding in layout.findings) for kind in KIND_ORDER}
    longest = max(layout.lengths, key=layout.lengths.get)
    lengths = f"median {layout.median()} lines, longest {longest} ({layout.lengths[longest]})"
    print(f"src/: {len(layout.lengths)} files, {lengths}")
    print(
        f"layout: {count['circle']} circles, {count['arrow up']} arrows up, {count['arrow sideways']} sideways, "
        f"{count['parent name']} parent names, {count['too long']} files over {layout.lines_max} lines, "
        f"{count['no floor']} without a floor, {count['no such file']} paths that lead nowhere"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", action="store_true", help="print rooms and arrows")
    parser.add_argument("--self-test", action="store_true", help="see that each kind of fault is found")
    parser.add_argument("--alias", default="", metavar="MODULE=ROOM,...", help="read a module as a part of another room")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2], help="the repository")
    arguments = parser.parse_args()
    if arguments.self_test:
        sys.dont_write_bytecode = True
        from layout_self_test import self_test

        return self_test()
    aliases = dict(pair.split("=", 1) for pair in arguments.alias.split(",") if pair)
    layout = Layout(arguments.root, aliases)
    layout.check()
    print_floors()
    if arguments.graph:
        print_graph(layout)
    print_findings(layout)
    return 1 if layout.findings else 0


if __name__ == "__main__":
    sys.exit(main())
