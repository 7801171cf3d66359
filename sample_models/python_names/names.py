"""Which names the modules of Python's standard library use and which they define: what the recommender learns from."""

import ast
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sample_models.standard_library import PACKAGES, library, sources

RAREST, MOST_FREQUENT = 0.04, 0.6
"""A name counts where this share of the modules at least, and at most, has it."""
MODULE_FEATURES, NAME_FEATURES = 6, 3
FEATURES = MODULE_FEATURES + NAME_FEATURES


class Module(NamedTuple):
    """What a module uses (reads) and defines (assigns, or has as a function, class or parameter), and how it looks."""

    package: str
    used: frozenset[str]
    defined: frozenset[str]
    features: tuple[float, ...]


class Pairs(NamedTuple):
    """A row for each pair of a module and a name.

    `module`, `package` and `name` [n, 1], int64: indices. `features` [n, 9], float32: six of the
    module and three of the name, of mean 0 and variance 1, none beyond 3. `uses` and `defines` [n],
    int64: 1 where the module does.
    """

    module: NDArray[np.int64]
    package: NDArray[np.int64]
    name: NDArray[np.int64]
    features: NDArray[np.float32]
    uses: NDArray[np.int64]
    defines: NDArray[np.int64]

    def rows(self, chosen: NDArray[np.int64] | slice) -> "Pairs":
        return Pairs(*(array[chosen] for array in self))

    @property
    def inputs(self) -> dict[str, NDArray[np.generic]]:
        return {"module": self.module, "package": self.package, "name": self.name, "features": self.features}


def read(path: Path) -> Module:
    """Read a module."""
    text = path.read_text(encoding="utf-8")
    used, defined = set(), set()
    kinds: Counter[type[ast.AST]] = Counter()
    for node in ast.walk(ast.parse(text)):
        kinds[type(node)] += 1
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                defined.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                defined.add(name)
    lines = [line for line in text.splitlines() if line.strip()]
    number = max(len(lines), 1)
    features = (
        float(np.log1p(len(lines))),
        sum(line.lstrip().startswith("#") for line in lines) / number,
        sum(len(line) - len(line.lstrip()) for line in lines) / number,
        kinds[ast.FunctionDef] / number,
        kinds[ast.ClassDef] / number,
        (kinds[ast.Import] + kinds[ast.ImportFrom]) / number,
    )
    parent = path.relative_to(library()).parts[0]
    return Module(parent if parent in PACKAGES else "", frozenset(used), frozenset(defined), features)


def all_pairs() -> Pairs:
    """Every pair where the module uses or defines the name, and as many others; shuffled, always the same."""
    modules = [module for module in map(read, sources()) if module.used]
    spread = Counter(name for module in modules for name in module.used | module.defined)
    names = sorted(n for n, count in spread.items() if RAREST <= count / len(modules) <= MOST_FREQUENT)
    uses = np.array([[name in module.used for name in names] for module in modules])
    defines = np.array([[name in module.defined for name in names] for module in modules])

    rng = np.random.default_rng(0)
    there, absent = np.flatnonzero(uses | defines), np.flatnonzero(~(uses | defines))
    cells = rng.permutation(np.concatenate([there, rng.choice(absent, len(there), replace=False)]))
    rows, columns = np.divmod(cells, len(names))
    packages = np.array([(*PACKAGES, "").index(module.package) for module in modules])
    of_modules = _standardized([module.features for module in modules])
    of_names = _standardized([(len(name), name.count("_"), name[0].isupper()) for name in names])
    return Pairs(
        module=rows[:, None],
        package=packages[rows][:, None],
        name=columns[:, None],
        features=np.concatenate([of_modules[rows], of_names[columns]], axis=1),
        uses=uses[rows, columns].astype(np.int64),
        defines=defines[rows, columns].astype(np.int64),
    )


def _standardized(features: list[tuple[float, ...]]) -> NDArray[np.float32]:
    array = np.array(features, np.float64)
    return ((array - array.mean(axis=0)) / array.std(axis=0)).clip(-3, 3).astype(np.float32)
