"""Ask TensorRT-RTX's parser for every operator of ONNX, and write what it takes: convkit/targets/trt_operators.json.

    PYTHONPATH=tests .venv/bin/python -m preflight.measure_operators

Whether it knows an operator at all, it says itself. The rest is asked with the models of one node that onnx publishes
for its backend tests, in a process of their own, since some might end it. A case counts as taken where the parser takes
it as it is, or with the inputs that are no data (shapes, axes, counts) made constants. Needs no GPU.
"""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

TABLE = Path(__file__).parents[2] / "convkit" / "targets" / "trt_operators.json"


class Case(NamedTuple):
    """One model of one node, with values for its inputs."""

    name: str
    operator: str
    model: bytes
    values: tuple[Any, ...]


class Verdict(NamedTuple):
    """What came of one case."""

    taken: bool
    plugin: bool
    constants: tuple[int, ...]
    crashed: bool = False


class Operator(msgspec.Struct):
    """What was found of one operator."""

    known: bool = False
    taken: int = 0
    tried: int = 0
    crashed: int = 0
    plugin: bool = False
    constants: set[int] = set()
    types: dict[str, bool] = {}


def cases() -> Iterator[Case]:
    """Yield onnx's cases of one node of its own operators."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        published = list(collect_testcases())
    for case in published:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].domain in ("", "ai.onnx") and not case.model.functions:
            yield Case(case.name, nodes[0].op_type, case.model.SerializeToString(), tuple(case.data_sets[0][0]))


def judge(case: Case) -> Verdict:
    """Parse a case as it is; where that fails, with its later inputs as constants, and find out which must be."""
    import numpy as np

    taken, plugin = parse(case.model)
    given = [
        index for index, value in enumerate(case.values) if isinstance(value, np.ndarray) and value.dtype != object
    ]
    later = [index for index in given if index > 0]
    if taken or not later:
        return Verdict(taken, plugin, ())
    if not parse(with_constants(case, later))[0]:
        return Verdict(False, plugin, ())
    needed = [i for i in later if not parse(with_constants(case, [index for index in later if index != i]))[0]]
    return Verdict(True, plugin, tuple(needed))


def with_constants(case: Case, which: list[int]) -> bytes:
    """Return the case's model with some of its inputs as initializers."""
    import numpy as np
    import onnx

    model = onnx.ModelProto.FromString(case.model)
    names = [value.name for value in model.graph.input]
    gone = {names[index] for index in which}
    kept = [value for value in model.graph.input if value.name not in gone]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for index in which:
        array = np.ascontiguousarray(case.values[index]).reshape(np.shape(case.values[index]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, names[index]))
    return model.SerializeToString()


def parse(model: bytes) -> tuple[bool, bool]:
    """Return whether the parser takes a model, and whether it looked for a plugin."""
    from convkit.targets.trt_api import open_api

    parser = (network := open_api("tensorrt-rtx").network()).parser
    taken = bool(parser.parse(model))
    said = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    del parser, network
    return taken, any("plugin" in text.lower() for text in said)


def answer(pipe: Connection) -> None:
    """Judge the cases that come through a pipe; what ends this process ends no other."""
    while (case := pipe.recv()) is not None:
        pipe.send(judge(case))


class Judge:
    """A process that judges cases, and another one after each that ended it."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("spawn")
        self.start()

    def start(self) -> None:
        self.pipe, theirs = self.context.Pipe()
        self.process = self.context.Process(target=answer, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, case: Case) -> Verdict:
        self.pipe.send(case)
        try:
            if self.pipe.poll(60):
                verdict: Verdict = self.pipe.recv()
                return verdict
        except (EOFError, ConnectionError):
            pass
        self.process.kill()
        self.process.join()
        self.start()
        return Verdict(False, False, (), crashed=True)


def type_of(case: Case) -> str:
    """Return the element type of a case's first input, by ONNX's name."""
    import onnx

    model = onnx.ModelProto.FromString(case.model)
    first = model.graph.input[0].type if model.graph.input else None
    if first is None or first.WhichOneof("value") != "tensor_type":
        return "NONE"
    return str(onnx.TensorProto.DataType.Name(first.tensor_type.elem_type))


def main() -> None:
    """Measure, and write the table."""
    import onnx

    from convkit.targets.trt_api import open_api

    judging = Judge()
    found: dict[str, Operator] = defaultdict(lambda: Operator(constants=set(), types={}))
    parser = (network := open_api("tensorrt-rtx").network()).parser
    for schema in onnx.defs.get_all_schemas():
        if not schema.domain:
            found[schema.name].known = bool(parser.supports_operator(schema.name))
    del parser, network
    for case in cases():
        verdict = judging.ask(case)
        one = found[case.operator]
        one.tried += 1
        one.taken += verdict.taken
        one.crashed += verdict.crashed
        one.plugin |= verdict.plugin and not verdict.taken
        one.constants |= set(verdict.constants)
        kind = type_of(case)
        one.types[kind] = one.types.get(kind, False) or verdict.taken
        if verdict.crashed:
            print("crashed:", case.name, file=sys.stderr)
    judging.pipe.send(None)
    write(found, version=open_api("tensorrt-rtx").version, onnx_version=onnx.__version__)


def write(found: dict[str, Operator], *, version: str, onnx_version: str) -> None:
    """Write the table, a line for each operator."""
    head = {
        "measured": f"TensorRT-RTX {version}: its parser on the one-node models of onnx {onnx_version}'s backend tests",
        "by": "tests/preflight/measure_operators.py",
    }
    lines = []
    for name, one in sorted(found.items()):
        entry: dict[str, Any] = {"known": one.known, "taken": one.taken, "tried": one.tried}
        if one.crashed:
            entry["crashed"] = one.crashed
        if one.taken < one.tried and one.plugin:
            entry["plugin"] = True
        if one.constants:
            entry["constants"] = sorted(one.constants)
        if one.taken and (refused := sorted(kind for kind, taken in one.types.items() if not taken)):
            entry["refused_types"] = refused
        lines.append(f'    "{name}": {msgspec.json.encode(entry).decode()}')
    body = ",\n".join(lines)
    texts = "".join(f'  "{key}": {msgspec.json.encode(value).decode()},\n' for key, value in head.items())
    TABLE.write_text("{\n" + texts + '  "operators": {\n' + body + "\n  }\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
