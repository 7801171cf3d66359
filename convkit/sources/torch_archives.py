"""What loading a TorchScript file or a ``.pt2`` would call, read from the archive's own text: nothing is run.

TorchScript's own language can write files (``torch.save``, ``from_file``) and make objects of C++ classes that do.
A ``.pt2`` holds its graph as JSON, whose targets and expressions torch turns into Python objects and code; its sample
inputs, and weights marked ``use_pickle``, are pickles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from zipfile import ZipFile, ZipInfo

_LARGEST_TEXT = 1 << 28
_PLAIN_NAMESPACES = frozenset(
    ("aten", "prim", "prims", "quantized", "quantized_decomposed", "higher_order", "torchvision")
)
_WRITES_OR_READS_FILES = frozenset(("save", "from_file", "load"))
_SCRIPT_CALL = re.compile(r"\bops\.(\w+)\.(\w+)|\btorch\.(\w+)\(")
_SCRIPT_CLASS = re.compile(r"torch\.classes\.(\w+)\.(\w+)")
_OWN_NAMES = ("__torch__.", "torch.jit._pickle.")
_PLAIN_CLASSES = frozenset(("quantized", "xnnpack", "sparse"))
_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.([A-Za-z0-9]\w*|_[A-Za-z0-9]\w*)(\.\w+)?")
_PLAIN_TARGET = re.compile(r"_operator\.[a-z]+_?|math\.[a-z0-9_]+|torch\._?sym_[a-z]+")
_CALLERS = frozenset(("_operator.call", "_operator.attrgetter", "_operator.itemgetter", "_operator.methodcaller"))
_EXPRESSION = re.compile(r"(?:[A-Za-z]\w*|[0-9]+(?:\.[0-9]*)?|[-+*/%(),<>=!&|~ ])*")
_NAMED_SYMBOL = re.compile(r"Symbol\('\w+'")
_CALLED = re.compile(r"(\w+)\(")
_PLAIN_FUNCTION = re.compile(
    r"Symbol|Integer|Rational|Float|Mul|Add|Pow|Mod|Max|Min|Abs|floor|ceiling|sqrt|Eq|Ne|Gt|Ge|Lt|Le|And|Or|Not|FloorDiv"
    r"|CeilDiv|CleanDiv|PythonMod|ModularIndexing|Where|IntTrueDiv|FloatTrueDiv|PowByNatural|TruncTo(Int|Float)"
    r"|(Floor|Ceil|Round)ToInt|RoundDecimal|ToFloat|LShift|RShift|Identity|(Strict)?(Greater|Less)Than|(Une|E)quality"
)
"""What torch writes into the expressions of sizes, which sympy evaluates as Python when they are read."""
_TEXTS = (".json", "version", "byteorder", "archive_format", "serialization_id")
_RAW = re.compile(r"(^|/)data/(weights/weight|constants/tensor)_\d+$")
_NATIVE = re.compile(r"aotinductor|\.so$|\.cubin$|\.ptx$")


def foreign_in_script(archive: ZipFile, names_of: Callable[[ZipInfo], set[str]]) -> set[str]:
    """Return what a TorchScript archive calls that is no arithmetic on tensors.

    Args:
        archive: the file.
        names_of: returns the ``module.name`` of every global of a pickled member.
    """
    found: set[str] = set()
    for member in archive.infolist():
        if member.filename.endswith(".py"):
            text = _text(archive, member)
            for namespace, operator, function in _SCRIPT_CALL.findall(text):
                if (namespace and namespace not in _PLAIN_NAMESPACES) or (
                    operator or function
                ) in _WRITES_OR_READS_FILES:
                    found.add(f"torch.ops.{namespace or 'aten'}.{operator or function}")
            found |= _classes(text)
        elif member.filename.endswith(".pkl"):
            names = names_of(member)
            found |= {name for text in names for name in _classes(text.replace(":", "."))}
            found |= {name for name in names if not name.startswith(_OWN_NAMES)}
    return found


def _classes(text: str) -> set[str]:
    return {
        f"torch.classes.{space}.{name}" for space, name in _SCRIPT_CLASS.findall(text) if space not in _PLAIN_CLASSES
    }


def foreign_in_program(archive: ZipFile, names_of: Callable[[ZipInfo], set[str]]) -> set[str]:
    """Return what loading and running a ``.pt2`` calls that is no arithmetic on tensors; arguments as above.

    Every member that is neither text nor the bare numbers of a tensor is taken for a pickle.
    """
    pickled = set()
    found: set[str] = set()
    for member in archive.infolist():
        if member.filename.endswith(".json"):
            for node in _nodes(_parsed(archive, member)):
                pickled |= _said_to_be_pickled(node)
                found |= _foreign_in_node(node)
    for member in archive.infolist():
        name = member.filename
        if _NATIVE.search(name):
            found.add(f"native code in {name}")
        elif name.endswith(_TEXTS) or member.is_dir() or member.file_size == 0:
            continue
        elif not _RAW.search(name) or name.rpartition("/")[2] in pickled:
            found |= names_of(member)
    return found


def _said_to_be_pickled(node: dict[str, Any]) -> set[str]:
    return {str(node["path_name"]).rpartition("/")[2]} if node.get("use_pickle") and "path_name" in node else set()


def _foreign_in_node(node: dict[str, Any]) -> set[str]:
    found = set()
    target = node.get("target")
    if isinstance(target, str) and "inputs" in node and "outputs" in node and not _is_plain_target(target):
        found.add(target)
    expressions = [node["expr_str"]] if "expr_str" in node else []
    ranges = node.get("range_constraints")
    expressions += list(ranges) if isinstance(ranges, dict) else []
    found |= {f"the expression {text}"[:80] for text in expressions if not _is_plain_expression(str(text))}
    texts = [*node, *(value for value in node.values() if isinstance(value, str))]
    if any("default_factory_module" in text for text in texts):
        found.add("a default factory")
    return found


def _is_plain_target(target: str) -> bool:
    operator = _OPERATOR.fullmatch(target)
    if operator is not None:
        return operator[1] in _PLAIN_NAMESPACES and operator[2] not in _WRITES_OR_READS_FILES
    return bool(_PLAIN_TARGET.fullmatch(target)) and target not in _CALLERS


def _is_plain_expression(text: str) -> bool:
    bare = _NAMED_SYMBOL.sub("Symbol(", text)
    plain = all(_PLAIN_FUNCTION.fullmatch(name) for name in _CALLED.findall(bare))
    return plain and "__" not in text and bool(_EXPRESSION.fullmatch(bare))


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _parsed(archive: ZipFile, member: ZipInfo) -> Any:
    try:
        return json.loads(_text(archive, member))
    except RecursionError as error:
        raise ValueError(f"its member {member.filename} is nested too deeply") from error


def _text(archive: ZipFile, member: ZipInfo) -> str:
    if member.file_size > _LARGEST_TEXT:
        raise ValueError(f"its member {member.filename} unpacks to more than {_LARGEST_TEXT >> 20} MiB")
    return archive.read(member).decode("utf-8", errors="replace")
