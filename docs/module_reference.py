"""Writes docs/modules.md from the documentation of the collection's modules and plugins.

    python docs/module_reference.py            writes it
    python docs/module_reference.py --check    says whether it is current (code 1 when not)

It reads what ansible-doc tells, so fragments are resolved as for users. Markup such as O(name) becomes code.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "modules.md"
KINDS = {"module": "Modules", "inventory": "Inventory", "callback": "Callback", "filter": "Filters"}
HEAD = """# Modules and plugins of swarm.cluster

Written by `docs/module_reference.py` from the modules' own documentation; do not edit it. `ansible-doc` shows the same
on a terminal. All modules need nothing but Python on hosts and support `--check` and `--diff`.
"""


def told(kind: str) -> dict[str, Any]:
    """What ansible-doc tells of all plugins of a kind in the collection."""
    program = str(Path(sys.executable).with_name("ansible-doc"))
    listed = subprocess.run(
        [program, "-t", kind, "--list", "--json", "swarm.cluster"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = sorted(json.loads(listed.stdout))
    if not names:
        return {}
    done = subprocess.run([program, "-t", kind, "--json", *names], cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(sorted(json.loads(done.stdout).items()))


def plain(text: str | list[str]) -> str:
    """Sentences without Ansible's markup, on one line."""
    text = " ".join(text) if isinstance(text, list) else text
    text = re.sub(r"\b[OVCER]V?\((?:ignore:)?([^)]*)\)", r"`\1`", text)
    text = re.sub(r"\bM\(swarm\.cluster\.([^)]*)\)", r"[`\1`](#\1)", text)
    text = re.sub(r"\b[MP]\(([^)#]*)[^)]*\)", r"`\1`", text)
    return " ".join(text.replace("|", "\\|").split())


def option_rows(options: dict[str, Any], prefix: str = "") -> list[str]:
    """A row for each option, suboptions below it. Required ones come first."""
    rows = []
    for name, option in sorted(options.items(), key=lambda item: (not item[1].get("required"), item[0])):
        kind = option.get("type", "str") + (f" of {option['elements']}" if option.get("elements") else "")
        notes = [plain(option["description"])]
        if option.get("choices"):
            notes.append("One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + ".")
        if option.get("required"):
            notes.append("**Required.**")
        elif option.get("default") not in (None, [], {}, ""):
            default = option["default"]
            notes.append(f"Default `{str(default).lower() if isinstance(default, bool) else default}`.")
        rows.append(f"| `{prefix}{name}` | {kind} | {' '.join(notes)} |")
        rows += option_rows(option.get("suboptions") or {}, f"{prefix}{name}.")
    return rows


def returned_value(entry: dict[str, Any]) -> bool:
    """True for filters, which return a value instead of keys."""
    return "_value" in (entry.get("return") or {})


def section(name: str, entry: dict[str, Any]) -> list[str]:
    """One module or plugin."""
    doc, short = entry["doc"], name.removeprefix("swarm.cluster.")
    lines = [f"### {short}", "", plain(doc["short_description"]) + ".", ""]
    lines += [f"- {plain(text)}" for text in doc["description"]]
    if doc.get("options"):
        lines += ["", "| Option | Type | Meaning |", "| --- | --- | --- |", *option_rows(doc["options"])]
    examples = (entry.get("examples") or "").strip()
    if examples and not returned_value(entry):
        lines += ["", "```yaml", examples, "```"]
    returned = entry.get("return") or {}
    if returned and not returned_value(entry):
        parts = [f"`{key}` ({plain(value['description']).rstrip('.')})" for key, value in returned.items()]
        lines += ["", f"Returns {', '.join(parts)}."]
    return [*lines, ""]


def reference() -> str:
    """The whole page."""
    lines = [HEAD]
    found = {kind: told(kind) for kind in KINDS}
    for kind, title in KINDS.items():
        names = [name.removeprefix("swarm.cluster.") for name in found[kind]]
        lines.append(f"- {title}: " + ", ".join(f"[`{name}`](#{name})" for name in names))
    for kind, title in KINDS.items():
        lines += ["", f"## {title}", ""]
        for name, entry in found[kind].items():
            lines += section(name, entry)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def main() -> int:
    text = reference()
    if sys.argv[1:] == ["--check"]:
        return 0 if TARGET.exists() and TARGET.read_text() == text else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
