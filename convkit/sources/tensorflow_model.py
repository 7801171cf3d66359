"""A SavedModel in memory: its graph, its weights in a session, and the tensors that it offers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from convkit.errors import InputError, StepError
from convkit.pipeline.allowance import cores
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.patience import one_run
from convkit.spec.tensor import DType

if TYPE_CHECKING:
    import numpy as np

_SERVE = "serve"
_DEFAULT_SIGNATURE = "serving_default"
_NO_ENDS = ("Placeholder", "Const", "VarHandleOp", "VariableV2", "NoOp", "RestoreV2")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


class GraphTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that the model takes or gives."""

    key: str
    """Its name in the signature; for a tensor outside any signature the graph's name without ``:0``."""
    tensor: str
    """Its name in the graph, such as ``input_1:0``."""
    type_name: str
    """TensorFlow's word for its element type."""
    dims: tuple[int, ...] | None
    """-1 where dynamic; None where not even the rank is known."""
    origin: str
    """The operation that computes it, behind function calls and identities, such as ``model/dense_1/Softmax``."""

    @property
    def dtype(self) -> DType | None:
        """Return convkit's type for it, None where convkit has none (complex, variant)."""
        return next((dtype for dtype in DType if dtype.value == self.type_name), None)

    def __str__(self) -> str:
        shape = "of unknown rank" if self.dims is None else f"[{', '.join(map(str, self.dims))}]"
        return f"{self.key} ({self.tensor}) {self.type_name}{shape}"


class SavedModel:
    """A loaded SavedModel: `graph`, the `session` that holds its weights, and what its signature takes and gives.

    Tensors are in the order of their keys, numbers within keys by value. `signature` is None where the model has none;
    `inputs` are then the graph's placeholders and there are no `outputs`.
    """

    def __init__(self, folder: Path, signature: str | None) -> None:
        tf1 = tensorflow().compat.v1
        tags, is_tf1 = _meta_graph(folder)
        self.is_tf1 = is_tf1
        """Written by TensorFlow 1, whose tensors lie open in the graph instead of in functions."""
        self.graph = tf1.Graph()
        self.session = tf1.Session(graph=self.graph, config=_session_config(tf1))
        with self.graph.as_default():
            try:
                meta_graph = tf1.saved_model.load(self.session, tags, str(folder), clear_devices=True)
            except (tensorflow().errors.OpError, OSError, RuntimeError, ValueError) as error:
                refuse_unloadable(folder, error)
        self._origins = _Origins(self.graph.as_graph_def())
        self.signature = _chosen(meta_graph, signature, folder)
        if self.signature is None:
            self.inputs = self.placeholders()
            self.outputs: tuple[GraphTensor, ...] = ()
        else:
            definition = meta_graph.signature_def[self.signature]
            self.inputs = self._offered("input", definition.inputs)
            self.outputs = self._offered("output", definition.outputs)

    def tensor(self, name: str) -> GraphTensor | None:
        """Return the graph's tensor called `name`, with or without ``:0``; None where there is none."""
        try:
            found = self.graph.get_tensor_by_name(name if re.search(r":\d+$", name) else f"{name}:0")
        except (KeyError, ValueError):
            return None
        return self._described(found.name.removesuffix(":0"), found)

    def placeholders(self) -> tuple[GraphTensor, ...]:
        """Return the graph's placeholders, which a signature may name or not."""
        found = [op.outputs[0] for op in self.graph.get_operations() if op.type == "Placeholder"]
        return tuple(self._described(tensor.op.name, tensor) for tensor in found)

    def ends(self, most: int = 8) -> tuple[GraphTensor, ...]:
        """Return tensors that no operation reads, which may well be the graph's outputs; the last `most` of them."""
        operations = self.graph.get_operations()
        found = [out for op in operations for out in op.outputs if not out.consumers() and op.type not in _NO_ENDS]
        return tuple(self._described(tensor.op.name, tensor) for tensor in found[-most:])

    def run(self, outputs: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Compute the tensors `outputs` from arrays under the graph's names; strings are ``U`` arrays on both sides."""
        import numpy as np

        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        with one_run(f"the model on the inputs {shapes}"):
            found = self.session.run(list(outputs), {name: as_fed(array) for name, array in feed.items()})
        return [_text(np.asarray(array)) for array in found]

    def _offered(self, side: str, infos: Mapping[str, Any]) -> tuple[GraphTensor, ...]:
        for key, info in infos.items():
            if info.WhichOneof("encoding") != "name":
                raise InputError(
                    f"the {side} '{key}' of signature '{self.signature}' is a sparse or ragged tensor, not a plain one",
                    hint="export a signature that takes and gives plain tensors (tf.sparse.to_dense inside the model)",
                    code="model.not-a-tensor",
                )
        keys = sorted(infos, key=_by_number)
        return tuple(self._described(key, self.graph.get_tensor_by_name(infos[key].name)) for key in keys)

    def _described(self, key: str, tensor: Any) -> GraphTensor:
        rank = tensor.shape.rank
        return GraphTensor(
            key=key,
            tensor=tensor.name,
            type_name=tensor.dtype.base_dtype.name,
            dims=None if rank is None else tuple(-1 if dim is None else dim for dim in tensor.shape.as_list()),
            origin=self._origins.of(tensor.name),
        )


_loaded: dict[tuple[str, str, str | None], SavedModel] = {}


def load_saved_model(source: Artifact, folder: str, signature: str | None) -> SavedModel:
    """Load the SavedModel in `folder` of `source`; the last one loaded is kept for the process's further steps.

    Raises:
        InputError: the files are no SavedModel, damaged, or without the wanted signature.
        StepError: the graph has operations that this TensorFlow does not know.
    """
    key = (source.digest, folder, signature)
    if key not in _loaded:
        for other in _loaded.values():
            other.session.close()
        _loaded.clear()
        _loaded[key] = SavedModel(Path(source.path, folder), signature)
    return _loaded[key]


def tensorflow() -> Any:
    """Import TensorFlow, kept to the CPU and to errors in what it prints."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    return tf


def as_fed(array: np.ndarray) -> np.ndarray:
    """Return an array as TensorFlow takes it: strings as objects in UTF-8."""
    import numpy as np

    return np.char.encode(array, "utf-8").astype(object) if array.dtype.kind == "U" else array


def _text(array: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.char.decode(array.astype("S"), "utf-8") if array.dtype == object else array


def _session_config(tf1: Any) -> Any:
    return tf1.ConfigProto(
        device_count={"GPU": 0},
        allow_soft_placement=True,  # operations that TensorFlow 1 pinned to a GPU
        intra_op_parallelism_threads=cores(),
        inter_op_parallelism_threads=cores(),
    )


def _by_number(key: str) -> list[tuple[int, str]]:
    return [(int(part or -1), text) for text, part in re.findall(r"(\D*)(\d*)", key)]


def _meta_graph(folder: Path) -> tuple[list[str], bool]:
    """Return the tags of the meta graph to load, and whether TensorFlow 1 wrote it."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel as SavedModelProto

    path = folder / "saved_model.pb"
    try:
        proto = SavedModelProto.FromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise InputError(
            f"{path} cannot be read as a SavedModel: {' '.join(str(error).split())}",
            hint="export the model again, with model.export(folder) or tf.saved_model.save(model, folder)",
            code="source.unreadable",
        ) from error
    by_tags = {tuple(graph.meta_info_def.tags): graph for graph in proto.meta_graphs}
    chosen = (_SERVE,) if (_SERVE,) in by_tags else next(iter(by_tags), None) if len(by_tags) == 1 else None
    if chosen is None:
        found = ", ".join("+".join(tags) or "(none)" for tags in sorted(by_tags)) or "no graph at all"
        raise InputError(
            f"{path} has no graph with the tag '{_SERVE}'; it has: {found}",
            hint="export a SavedModel for serving; a frozen GraphDef is not a SavedModel",
            code="source.no-serving-graph",
        )
    return list(chosen), not by_tags[chosen].object_graph_def.nodes


def refuse_unloadable(folder: Path, error: Exception) -> NoReturn:
    """Raise what TensorFlow's error on loading a SavedModel means.

    Raises:
        InputError: its files are damaged or missing.
        StepError: its graph has an operation that this TensorFlow does not know.
    """
    text = " ".join((getattr(error, "message", None) or str(error)).split())
    if unknown := re.search(r"Op type not registered '([^']+)'", text):
        raise StepError(
            f"{folder}: TensorFlow does not know the operation {unknown.group(1)}, which the graph uses",
            hint="it comes from an add-on of TensorFlow; export the model without it",
            code="export.unsupported-operator",
        ) from error
    raise InputError(
        f"{folder} cannot be loaded: {text[:500]}",
        hint="a SavedModel is saved_model.pb with the whole folder variables/ beside it: copy both, or export it again",
        code="source.unreadable",
    ) from error


def _chosen(meta_graph: Any, wanted: str | None, folder: Path) -> str | None:
    names = sorted(name for name in meta_graph.signature_def if not name.startswith("__saved_model"))
    if wanted is None and (_DEFAULT_SIGNATURE in names or len(names) < 2):
        return _DEFAULT_SIGNATURE if _DEFAULT_SIGNATURE in names else next(iter(names), None)
    if wanted in names:
        return wanted
    listed = ", ".join(f"'{name}'" for name in names) or "none"
    raise InputError(
        f"{folder} has no signature '{wanted or _DEFAULT_SIGNATURE}'; it has: {listed}",
        hint=f"choose one with --signature {names[0]}" if names else "export the model with a signature",
        code="source.no-such-signature",
    )


class _Origins:
    """Finds the operation behind an output: through function calls, from the outside in, and identities."""

    def __init__(self, graph_def: Any) -> None:
        self._nodes = {node.name: node for node in graph_def.node}
        self._functions = {function.signature.name: function for function in graph_def.library.function}

    def of(self, tensor: str) -> str:
        """Return the path of the operation that computes the graph's tensor `tensor`."""
        nodes = self._nodes
        name, index = _split(tensor)
        while name in nodes:
            node = nodes[name]
            if node.op in _CALLS:
                function = self._functions[node.attr["f"].func.name]
                name, index = _split(function.ret[function.signature.output_arg[index].name])
                nodes = {inner.name: inner for inner in function.node_def}
            elif node.op == "Identity":
                name, index = _split(node.input[0])
            else:
                break
        return name


def _split(reference: str) -> tuple[str, int]:
    """Return node and output index of ``node``, ``node:1``, or a function's ``node:output:1``."""
    name, *rest = reference.split(":")
    return name, int(rest[-1]) if rest else 0
