"""A signature for a function of a SavedModel that TensorFlow 2 wrote without any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convkit.errors import InputError
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.step import step
from convkit.sources.exported import Prepared
from convkit.sources.tensorflow_model import refuse_unloadable, tensorflow

_CALL = "__call__"


@step(version=1, stage="source", title="Give a function a signature", needs="tensorflow")
def sign_function(source: Artifact, *, name: str | None) -> Prepared:
    """Save the model again with one of its functions as its signature.

    That is the function `name`, else ``__call__``, else the only one. Its inputs are called as its arguments, its
    outputs by the keys of the mapping that it returns, else ``output_0``, ``output_1``, …

    Raises:
        InputError: there is no such function, or more than one to choose from; it was saved for several kinds of
            inputs; it takes or gives something other than tensors.
    """
    tf = tensorflow()
    folder = Path(source.path)
    try:
        loaded = tf.saved_model.load(str(folder))
    except (tf.errors.OpError, OSError, RuntimeError, ValueError, KeyError) as error:
        refuse_unloadable(folder, error)
    chosen, function = _chosen(loaded, name, folder)
    args, kwargs = _signature(function, chosen)
    specs = _named(tf, args, kwargs)

    def called(**tensors: Any) -> dict[str, Any]:
        given = iter(tensors[key] for key in specs)
        leaves = tf.nest.flatten((args, kwargs))
        flat = [next(given) if isinstance(leaf, tf.TensorSpec) else leaf for leaf in leaves]
        packed_args, packed_kwargs = tf.nest.pack_sequence_as((args, kwargs), flat)
        return _outputs(tf, function(*packed_args, **packed_kwargs))

    target = new_folder("signed") / "model"
    try:
        signed = tf.function(called).get_concrete_function(**specs)
        tf.saved_model.save(loaded, str(target), signatures=signed)
    except (tf.errors.OpError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the function '{chosen}' of {folder} cannot be given a signature: {' '.join(str(error).split())[:400]}",
            hint="save it again with one: tf.saved_model.save(model, folder, signatures=model.function)",
            code="source.no-signature",
        ) from error
    return Prepared(files=gather(target))


def _chosen(loaded: Any, name: str | None, folder: Path) -> tuple[str, Any]:
    functions = {
        key: value
        for key, value in vars(loaded).items()
        if getattr(value, "concrete_functions", None) and (key == _CALL or not key.startswith("_"))
    }
    only = next(iter(functions)) if len(functions) == 1 else _CALL
    wanted = name or (_CALL if _CALL in functions else only)
    if wanted in functions:
        return wanted, functions[wanted]
    if not functions:
        raise InputError(
            f"{folder} has no signature, and no function that was saved with the shapes of its inputs",
            hint="save it again with one: tf.saved_model.save(model, folder, signatures=model.function)",
            code="source.no-signature",
        )
    listed = ", ".join(f"'{key}'" for key in sorted(functions))
    raise InputError(
        f"{folder} has no signature"
        + (f", and no function '{name}'; it has: {listed}" if name else f", and several functions: {listed}"),
        hint=f"choose one with --signature {min(functions)}",
        code="source.no-such-signature",
    )


def _signature(function: Any, chosen: str) -> tuple[Any, Any]:
    """Return the arguments that the function was saved for: of several, those that say ``training=False``."""
    saved = [concrete.structured_input_signature for concrete in function.concrete_functions]
    if len(saved) > 1:
        saved = [each for each in saved if True not in _constants(each)] or saved
    if len(saved) > 1:
        raise InputError(
            f"the function '{chosen}' was saved for {len(saved)} kinds of inputs, and the SavedModel has no signature",
            hint="save it again with one: tf.saved_model.save(model, folder, signatures=model.function)",
            code="source.no-signature",
        )
    args, kwargs = saved[0]
    return args, kwargs


def _constants(signature: Any) -> list[bool]:
    return [leaf for leaf in tensorflow().nest.flatten(signature) if isinstance(leaf, bool)]


def _named(tf: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the specifications of the tensors among the arguments, each under a name of its own."""
    specs: dict[str, Any] = {}
    for number, leaf in enumerate(tf.nest.flatten((args, kwargs))):
        if isinstance(leaf, tf.TensorSpec):
            name = "".join(c if c.isalnum() else "_" for c in leaf.name or "").strip("_") or f"input_{number}"
            while name in specs or not name.isidentifier():
                name = f"input_{name}" if not name.isidentifier() else f"{name}_{number}"
            specs[name] = tf.TensorSpec(leaf.shape, leaf.dtype, name)
    return specs


def _outputs(tf: Any, result: Any) -> dict[str, Any]:
    if isinstance(result, Mapping) and all(tf.is_tensor(value) for value in result.values()):
        return dict(result)
    return {f"output_{number}": tensor for number, tensor in enumerate(tf.nest.flatten(result))}
