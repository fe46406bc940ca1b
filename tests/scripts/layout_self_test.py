"""Shows that layout.py finds each kind of fault: trees with one fault each, and a clean one. Run by `layout.py --self-test`."""

import tempfile
from pathlib import Path

from layout import LINES_MAX, MEDIAN_MAX, Layout

CLEAN = {
    "Cargo.toml": '[package]\nname = "x#y" # app.rs\n# rtc/ice.rs is one file\n',
    "README.md": """See `src/rtc/mod.rs`, `src/rtc/{ice,peer}.rs:1`, src/*.rs, `tests/<name>/x.rs`
and https://a.example/src/no.rs.
""",
    "tests/a.rs": "//! A test.\n",
    "src/lib.rs": "//! The house: [`app`].\npub mod app;\npub mod rtc;\npub mod slot;\npub mod utc;\n",
    "src/main.rs": "//! The roof.\nuse guest_relay::{app, slot::Slot as S};\nfn main() { app::run(S) }\n",
    "src/app.rs": """//! The root, beside `rtc/ice.rs`.
use crate::{rtc::{self, peer::{Peer}}, slot::*};
pub fn run(slot: Slot) { let _ = rtc::FLOOR; Peer::make(); }
""",
    "src/slot/mod.rs": """//! A slot.
mod relay;
mod rates;
pub use relay::Relay;
use crate::rtc::peer::Peer;
pub struct Slot;
#[cfg(test)]
mod tests;
""",
    "src/slot/relay.rs": "//! A relay.\nuse super::rates::Rates;\npub struct Relay(Rates);\n",
    "src/slot/rates.rs": "//! Rates.\npub struct Rates;\n",
    "src/slot/tests.rs": "//! Tests.\nuse super::*;\nuse crate::app::run;\n",
    "src/rtc/mod.rs": """//! WebRTC.
pub mod ice;
pub mod peer;
pub const FLOOR: u8 = 0;
""",
    "src/rtc/ice.rs": """//! ICE.
/* use crate::app; /* nested */ use crate::app::run; */
pub struct Ice<'a>(&'a str);
// use crate::app::run;
/// [`crate::app::run`]
pub(in crate::rtc) fn text() -> &'static str { let _ = ('"', b'\\'', r#"crate::app::run "quoted""#); "crate::app::run" }
#[cfg(test)]
mod tests {
    use crate::app::run;
    #[test]
    fn a() { crate::slot::x() }
}
""",
    "src/rtc/peer.rs": """//! A peer.
use super::ice::Ice;
use guest_relay_muxer::TagKind;
pub struct Peer { #[cfg(test)] seen: crate::app::Seen, ice: u8 }
impl Peer {
    pub fn make() { match 1 { #[cfg(test)] Some { x } => { crate::app::run() } _ => {} } crate::utc::now() }
    #[cfg(test)]
    fn panic() -> crate::slot::Slot { todo() }
}
""",
    "src/utc.rs": "//! Time.\npub fn now() {}\n",
}

# Each case: what is put in the place of a clean file, and where exactly the finding has to stand.
FAULTS = {
    "a circle put in by hand between two files": (
        {"src/rtc/ice.rs": "//! ICE.\nuse super::peer::Peer;\npub struct Ice;\npub fn f(_: Peer) {}\n"},
        [("circle", "src/rtc/ice.rs", 2, "src/rtc/ice.rs, src/rtc/peer.rs")],
    ),
    "a circle through inline paths of sibling modules": (
        {
            "src/slot/relay.rs": "//! A relay.\nuse super::rates;\npub struct Relay;\npub fn f() { rates::g() }\n",
            "src/slot/rates.rs": "//! Rates.\npub fn g() {\n    super::relay::f()\n}\n",
        },
        [("circle", "src/slot/rates.rs", 3, "circle of 2 files: src/slot/rates.rs, src/slot/relay.rs")],
    ),
    "a circle of a parent that uses its child and a child that uses its parent's function": (
        {
            "src/slot/mod.rs": CLEAN["src/slot/mod.rs"] + "pub fn f(_: Relay) {}\n",
            "src/slot/relay.rs": "//! A relay.\npub struct Relay;\nfn g() { super::f(Relay) }\n",
        },
        [("circle", "src/slot/mod.rs", 4, "src/slot/mod.rs, src/slot/relay.rs")],
    ),
    "a circle of three files, one arrow of it in a re-export that is followed": (
        {
            "src/slot/mod.rs": CLEAN["src/slot/mod.rs"] + "mod wait;\n",
            "src/slot/rates.rs": "//! Rates.\nuse super::wait::W;\npub struct Rates(W);\n",
            "src/slot/wait.rs": "//! Wait.\npub struct W(Box<super::Relay>);\n",
        },
        [("circle", "src/slot/rates.rs", 2, "circle of 3 files: src/slot/rates.rs, src/slot/relay.rs, src/slot/wait.rs")],
    ),
    "an arrow up by use": (
        {"src/rtc/ice.rs": "//! ICE.\nuse std::{fmt};\nuse crate::{utc, app::{run as r, *}};\npub struct Ice;\n"},
        [
            ("arrow up", "src/rtc/ice.rs", 3, "src/rtc may not use src/app (floor 5 → 1): run"),
            ("arrow up", "src/rtc/ice.rs", 3, "src/rtc may not use src/app (floor 5 → 1): app"),
        ],
    ),
    "an arrow up by use for documentation only": (
        {"src/rtc/ice.rs": "//! ICE.\n#[cfg(doc)]\nuse crate::slot::Slot;\npub struct Ice;\n"},
        [("arrow up", "src/rtc/ice.rs", 3, "src/rtc may not use src/slot (floor 5 → 4): Slot")],
    ),
    "an arrow up by an inline path": (
        {"src/rtc/ice.rs": "//! ICE.\npub struct Ice;\nfn f() { let x = 'x'; crate::app::run(x) }\n"},
        [("arrow up", "src/rtc/ice.rs", 3, "src/rtc may not use src/app (floor 5 → 1): run")],
    ),
    "an arrow up by super::super::": (
        {"src/rtc/ice.rs": "//! ICE.\npub struct Ice;\nfn f() {\n    super::super::slot::Slot\n}\n"},
        [("arrow up", "src/rtc/ice.rs", 4, "src/rtc may not use src/slot (floor 5 → 4): Slot")],
    ),
    "an arrow up in an attribute's string": (
        {"src/rtc/ice.rs": '//! ICE.\npub struct Ice {\n    #[serde(with = "crate::slot::text")]\n    x: u8,\n}\n'},
        [("arrow up", "src/rtc/ice.rs", 3, "src/rtc may not use src/slot (floor 5 → 4): text")],
    ),
    "an arrow up behind code that is for tests only": (
        {"src/rtc/ice.rs": "//! ICE.\npub struct Ice { #[cfg(test)] x: u8, y: crate::app::Y }\n"},
        [("arrow up", "src/rtc/ice.rs", 2, "src/rtc may not use src/app (floor 5 → 1): Y")],
    ),
    "an arrow up out of code that is for anything but tests": (
        {"src/rtc/ice.rs": "//! ICE.\n#[cfg(not(test))]\nfn f() { crate::app::run() }\npub struct Ice;\n"},
        [("arrow up", "src/rtc/ice.rs", 3, "src/rtc may not use src/app (floor 5 → 1): run")],
    ),
    "an arrow sideways": (
        {
            "src/lib.rs": CLEAN["src/lib.rs"] + "mod journal;\n",
            "src/journal.rs": "//! Log.\nuse crate::rtc::FLOOR;\n",
        },
        [("arrow sideways", "src/journal.rs", 2, "src/journal may not use src/rtc (both on floor 5): FLOOR")],
    ),
    "a room without a floor": (
        {"src/lib.rs": CLEAN["src/lib.rs"] + "mod cellar;\n", "src/cellar.rs": "//! Below.\n"},
        [("no floor", "src/cellar.rs", 1, "the room cellar has no floor")],
    ),
    "a file that no mod leads to": (
        {"src/rtc/lost.rs": "//! Nobody's.\n"},
        [("no floor", "src/rtc/lost.rs", 1, "no `mod` leads to this file")],
    ),
    "a child that names its parent's type by use": (
        {"src/slot/relay.rs": "//! A relay.\nuse super::{rates::Rates, Slot};\npub struct Relay(Rates);\n"},
        [("parent name", "src/slot/relay.rs", 2, "names Slot, the struct that src/slot/mod.rs above it defines")],
    ),
    "a child that names its parent's type by impl": (
        {"src/slot/relay.rs": "//! A relay.\npub struct Relay;\nimpl super::Slot {}\n"},
        [("parent name", "src/slot/relay.rs", 3, "names Slot, the struct that src/slot/mod.rs above it defines")],
    ),
    "a child that names its parent's type by *": (
        {"src/slot/relay.rs": "//! A relay.\nuse super::*;\npub struct Relay;\nimpl Slot {}\n"},
        [("parent name", "src/slot/relay.rs", 2, "names Slot, the struct that src/slot/mod.rs above it defines")],
    ),
    "a child that names its parent's type from the crate's root": (
        {"src/slot/relay.rs": "//! A relay.\nuse crate::slot;\npub struct Relay;\nfn f(_: slot::Slot) {}\n"},
        [("parent name", "src/slot/relay.rs", 4, "names Slot, the struct that src/slot/mod.rs above it defines")],
    ),
    "a file that is too long": (
        {"tests/a.rs": "//! A test.\n" + "\n" * LINES_MAX},
        [("too long", "tests/a.rs", LINES_MAX, f"{LINES_MAX + 1} lines, more than {LINES_MAX}")],
    ),
    "a median that is too high": (
        {file: CLEAN[file] + "\n" * MEDIAN_MAX for file in CLEAN if file.startswith("src/")},
        [("too long", "src", 1, "the median of src/ is")],
    ),
    "a path in a comment that leads nowhere": (
        {"src/utc.rs": "//! Time, for `rtc/nowhere.rs`.\npub fn now() {}\n"},
        [("no such file", "src/utc.rs", 1, "names rtc/nowhere.rs")],
    ),
    "a path in Cargo.toml and one in a document that lead nowhere": (
        {
            "Cargo.toml": '[package]\nname = "x#y" # config.rs\n',
            "README.md": "\nSee `src/rtc/{ice,no}.rs` or tests/no.sh.\n",
        },
        [
            ("no such file", "Cargo.toml", 2, "names config.rs"),
            ("no such file", "README.md", 2, "names src/rtc/{ice,no}.rs"),
            ("no such file", "README.md", 2, "names tests/no.sh"),
        ],
    ),
}


def self_test() -> int:
    failed = 0
    cases = {"a clean tree": ({}, []), **FAULTS}
    for name, (changed, expected) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for file, text in {**CLEAN, **changed}.items():
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_text(text, encoding="utf-8")
            layout = Layout(root, {})
            layout.check()
        found = sorted(layout.findings, key=lambda f: (f.file, f.line, f.text))
        # Each fault has to be found at its place, and nothing else; an arrow up may close a circle.
        missed = [
            case
            for case in expected
            if not any((f.kind, f.file, f.line) == case[:3] and case[3] in f.text for f in found)
        ]
        strays = [
            f
            for f in found
            if not any((f.kind, f.file, f.line) == case[:3] and case[3] in f.text for case in expected)
            and not (f.kind == "circle" and any(case[0] == "arrow up" for case in expected))
        ]
        for kind, file, line, text in missed:
            print(f"self-test: {name}: not found: {file}:{line}: {text} ({kind})")
        for finding in strays:
            print(f"self-test: {name}: found without reason: {finding} ({finding.kind})")
        failed += bool(missed or strays)
    print(f"layout self-test: {len(cases) - failed} of {len(cases)} cases as expected")
    return 1 if failed else 0
