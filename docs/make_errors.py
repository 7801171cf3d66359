"""Write errors.md, the list of convkit's stable codes, from its source.

    python docs/make_errors.py

Nothing of convkit is run: its modules are parsed, and what is raised, warned of or found there is read off. A code that
this script cannot place stops it, so that the list stays whole.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from convkit import errors

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "errors.md"

CODE = re.compile(r"[a-z0-9]+(-[a-z0-9…]+)*\.[a-z0-9…]+(-[a-z0-9…]+)*")
RAISED_AS = {"fail": "MetadataError", "_Slip": "MetadataError", "Finding": "InputError"}
"""Functions and structures that carry a code to where the error is raised, and the class that is raised there."""
WARNING = "warning"
REMARK = "remark"
TOLD_AS = {"warn": WARNING, "Warned": WARNING, "Remark": REMARK, "_remark": REMARK, "Fault": REMARK}
"""Functions and structures that tell of something and raise nothing."""

HEAD = """\
# Codes

Every error has a stable, dotted code for scripts: `error.code` of `--json`. Messages may change, codes do not. `…`
stands for what the message names: a file and its line, a tensor, a node. With each message comes a hint that says what
to do.

Written from the source by `make docs`.
"""

STATUSES = {
    "ConvkitError": "1: a bug in convkit",
    "UsageError": "2: usage",
    "InputError": "3: input refused",
    "MetadataError": "3: input refused (config.txt)",
    "TrustError": "3: input refused (trust)",
    "StepError": "4: a step failed",
    "CheckError": "5: a check failed",
    "MissingError": "6: something is missing here",
    "InterruptedRunError": "130: interrupted",
    "TerminatedRunError": "143: terminated",
    REMARK: "Remarks of `convkit check`",
    WARNING: "Warnings (the exit status stays as it is)",
}

Found = tuple[str, str, str]
"""An error's class (or `WARNING`, or `REMARK`), its code, its message."""


def found_in(tree: ast.Module) -> Iterator[Found]:
    """Go through the codes of one module.

    Raises:
        ValueError: a code is given to something that is no known kind of error or warning.
    """
    defaults = _default_codes(tree)
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            texts = _assigned(function)
            for call in _calls(function):
                kind = _name(call)
                for code in _codes_of(call, kind) or defaults.get(kind, []):
                    yield _class_of(kind, code), code, _message(call, kind, texts)


def _default_codes(tree: ast.Module) -> dict[str, list[str]]:
    """Return the codes that structures have where none is given."""
    return {
        kind.name: _codes(field.value)
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef) and kind.name in RAISED_AS
        for field in kind.body
        if isinstance(field, ast.AnnAssign) and field.value and ast.unparse(field.target) == "code"
    }


def _calls(function: ast.FunctionDef) -> Iterator[ast.Call]:
    """Go through a function's own calls; those of functions inside it are theirs."""
    inner = {
        id(n) for d in ast.walk(function) if isinstance(d, ast.FunctionDef) and d is not function for n in ast.walk(d)
    }
    return (node for node in ast.walk(function) if isinstance(node, ast.Call) and id(node) not in inner)


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _codes_of(call: ast.Call, kind: str) -> list[str]:
    if kind == "warn":
        return _codes(call.args[0])
    if kind == "_Slip":
        return _codes(call.args[3]) if len(call.args) > 3 else []
    return [code for keyword in call.keywords if keyword.arg == "code" for code in _codes(keyword.value)]


def _codes(value: ast.expr) -> list[str]:
    if isinstance(value, ast.IfExp):
        return [*_codes(value.body), *_codes(value.orelse)]
    if isinstance(value, ast.BoolOp):
        return [code for part in value.values for code in _codes(part)]
    text = _text(value, {})
    return [text] if CODE.fullmatch(text) else []


def _class_of(kind: str, code: str) -> str:
    if kind in TOLD_AS:
        return TOLD_AS[kind]
    name = RAISED_AS.get(kind, kind)
    if name not in STATUSES or not hasattr(errors, name):
        raise ValueError(f"{code} is given to {kind}(): tell RAISED_AS or TOLD_AS what becomes of it")
    return name


def _message(call: ast.Call, kind: str, texts: dict[str, str]) -> str:
    named = [keyword.value for keyword in call.keywords if keyword.arg == "message"]
    place = 1 if kind in ("warn", "_Slip") else 0
    value = named[0] if named else call.args[place] if len(call.args) > place else None
    return " ".join(_text(value, texts).split()) if value else ""


def _assigned(function: ast.FunctionDef) -> dict[str, str]:
    """Return the texts that a function gives to its variables."""
    return {
        target.id: _text(node.value, {})
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _text(value: ast.expr, texts: dict[str, str]) -> str:
    """Return an expression's text, with … for what is only known when it runs."""
    match value:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part, texts) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, texts) + _text(right, texts)
        case ast.IfExp(body=body):
            return _text(body, texts)
        case ast.Name(id=name):
            return texts.get(name, "…")
        case _:
            return "…"


def page() -> str:
    """Return the text of errors.md."""
    messages: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for module in sorted((ROOT / "convkit").rglob("*.py")):
        for kind, code, message in found_in(ast.parse(module.read_text(encoding="utf-8"))):
            known = messages[kind][code]
            if message not in known:
                known.append(message)
    lines = [HEAD]
    for kind, title in STATUSES.items():
        if messages[kind]:
            lines += [f"## {title}", "", "| code | message |", "|---|---|"]
            lines += [
                f"| `{code}` | {'<br>'.join(map(_cell, said))} |" for code, said in sorted(messages[kind].items())
            ]
            lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return re.sub(r"…[…\s]*…", "…", text).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stderr.write(f"{PAGE.relative_to(ROOT)}: {page().count('| `')} codes\n")
