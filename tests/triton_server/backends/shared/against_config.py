"""A model's tensors held against its configuration, by the rules of Triton's C++ backends."""

from typing import NamedTuple


class Found(NamedTuple):
    """A tensor of the model: its type in Triton's words (None where the backend carries none such), -1 for any size."""

    name: str
    type: str
    triton: str | None
    shape: list[int]


def faults(config, inputs, outputs):
    """Return what the configuration says wrongly."""
    batched = int(config["max_batch_size"]) > 0
    return [
        *unknown_names("input", config["input"], inputs),
        *missing_inputs(config["input"], inputs),
        *unknown_names("output", config["output"], outputs),
        *tensor_faults(config["input"], inputs, batched, exact=False),
        *tensor_faults(config["output"], outputs, batched, exact=True),
    ]


def unknown_names(kind, configured, actual):
    allowed = [tensor.name for tensor in actual]
    for tensor in configured:
        if tensor["name"] not in allowed:
            yield f"the configuration's {kind} '{tensor['name']}' is not in the model, which has {allowed}"


def missing_inputs(configured, actual):
    names = [tensor["name"] for tensor in configured]
    for tensor in actual:
        if tensor.name not in names:
            yield f"the model's input '{tensor.name}' is not in the configuration"


def tensor_faults(configured, actual, batched, exact):
    by_name = {tensor.name: tensor for tensor in actual}
    for tensor in configured:
        if tensor["name"] in by_name:
            yield from type_faults(tensor, by_name[tensor["name"]])
            yield from shape_faults(tensor, by_name[tensor["name"]], batched, exact)


def type_faults(tensor, model):
    if model.triton is None:
        yield f"'{model.name}' is a {model.type}, which the backend cannot carry"
    elif model.triton != tensor["data_type"]:
        yield f"'{model.name}' is {tensor['data_type']} in the configuration and {model.triton} in the model"


def shape_faults(tensor, model, batched, exact):
    """Compare shapes.

    An output has the model's very shape. An input's fixed dimensions are the model's; a dynamic one takes any. A
    model's scalar is sent as a tensor of ones.
    """
    dims = [int(dim) for dim in (tensor["reshape"]["shape"] if "reshape" in tensor else tensor["dims"])]
    if batched and model.shape[:1] != [-1]:
        yield f"'{model.name}' has the shape {model.shape} in the model: its first dimension is no dynamic batch"
    elif not model.shape:
        if set(dims) != {1}:
            yield f"'{model.name}' is a scalar in the model and has the shape {dims} in the configuration"
    elif not shapes_agree([-1, *dims] if batched else dims, model.shape, exact):
        yield f"'{model.name}' has the shape {dims} in the configuration and {model.shape} in the model"


def shapes_agree(configured, found, exact):
    pairs = zip(configured, found, strict=False)
    return len(configured) == len(found) and all(have == want or (have == -1 and not exact) for want, have in pairs)
