"""What lies beside a TensorRT-RTX engine, so that ONNX Runtime's RTX provider runs it: an ONNX file that names it, and
a README.

The file has one node, `EPContext` of the domain `com.microsoft` (onnxruntime.ai, "EP Context Cache Feature Design"): of
it both the provider that is built into ONNX Runtime (`nv_tensorrt_rtx/onnx_ctx_model_helper.cc`) and the plugin
(NVIDIA/TensorRT-RTX-EP-ABI) read `embed_mode` and `ep_cache_context`, and deserialize the engine in the file so named,
which must lie beside it. Tensors are matched by name: an engine's are those of the ONNX file that it was built from.
"""

from __future__ import annotations

from collections.abc import Sequence

from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.step import step
from convkit.spec.tensor import Interface, TensorSpec
from convkit.targets.ort_profiles import provider_options, unreadable_name
from convkit.targets.trt_profiles import Profile

CONTEXT_FILE = "model_ctx.onnx"
README_FILE = "README.md"

_PROVIDER = "NvTensorRTRTXExecutionProvider"
_IR_VERSION, _OPSET = 10, 20


@step(version=1, stage="compile", title="Wrap the engine", needs="onnx")
def wrap_engine(
    interface: Interface, *, engine_file: str, version: str, compute_capabilities: tuple[str, ...]
) -> Artifact:
    """Write the ONNX file whose one node stands for the engine.

    Args:
        interface: the engine's inputs and outputs.
        engine_file: the engine's file, in the same folder.
        version: the TensorRT-RTX that built it; engines run on that very release.
        compute_capabilities: the GPUs that it was built for; the node can name one, and names none where it is several.
    """
    import onnx
    from onnx import helper

    one = {"hardware_architecture": compute_capabilities[0].replace(".", "")} if len(compute_capabilities) == 1 else {}
    node = helper.make_node(
        "EPContext",
        [spec.name for spec in interface.inputs],
        [spec.name for spec in interface.outputs],
        name="engine",
        domain="com.microsoft",
        main_context=1,
        embed_mode=0,
        ep_cache_context=engine_file,
        ep_sdk_version=version,
        partition_name="engine",
        source=_PROVIDER,
        **one,
    )

    def declared(specs: Sequence[TensorSpec]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(spec.name, spec.dtype.onnx, list(spec.dims)) for spec in specs]

    graph = helper.make_graph([node], "engine", declared(interface.inputs), declared(interface.outputs))
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    folder = new_folder("context")
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION), str(folder / CONTEXT_FILE))
    return gather(folder)


def readme(
    interface: Interface,
    profiles: tuple[Profile, ...],
    *,
    engine_file: str,
    onnx_file: str,
    version: str,
    compute_capabilities: tuple[str, ...],
) -> bytes:
    """Return what the version's folder says of itself: what it runs on, and how."""
    gpus = ", ".join(compute_capabilities)
    return f"""# A TensorRT-RTX engine

| file | |
|---|---|
| `{engine_file}` | the engine, for GPUs of compute capability {gpus}; TensorRT-RTX {version} alone loads it |
| `{CONTEXT_FILE}` | names the engine, for ONNX Runtime; the two must lie side by side |
| `{onnx_file}` | the ONNX model that it was built from: for another release or another GPU |

{_tensors(interface)}
{_ranges(profiles)}
Triton does not load it. ONNX Runtime does, with the execution provider for TensorRT-RTX (package
`onnxruntime-ep-nv-tensorrt-rtx`), where that carries TensorRT-RTX {version}:

```python
import onnxruntime
import onnxruntime_ep_nv_tensorrt_rtx as provider

onnxruntime.register_execution_provider_library(provider.get_ep_name(), provider.get_library_path())
devices = [each for each in onnxruntime.get_ep_devices() if each.ep_name == provider.get_ep_name()]
options = onnxruntime.SessionOptions()
options.add_provider_for_devices(devices, {{"nv_runtime_cache_path": "runtime_cache"}})
session = onnxruntime.InferenceSession("{CONTEXT_FILE}", sess_options=options)
```

An ONNX Runtime that was built with the provider takes `providers=["{_PROVIDER}"]` instead. Look at
`session.get_providers()`: where a provider cannot be loaded, ONNX Runtime goes on without it. `nv_runtime_cache_path`
keeps the kernels that are compiled for the GPU at the first run.

With another release of TensorRT-RTX, give `{onnx_file}` to the same session: the engine is then built as it is loaded.
The shapes to build for are the provider's options:

```python
{_options(profiles)}
```

Whether a machine takes the engine, TensorRT-RTX itself says without loading it:

```python
import tensorrt_rtx

runtime = tensorrt_rtx.Runtime(tensorrt_rtx.Logger())
print(runtime.get_engine_validity(open("{engine_file}", "rb").read()))
```
""".encode()


def _tensors(interface: Interface) -> str:
    rows = [("input", spec) for spec in interface.inputs] + [("output", spec) for spec in interface.outputs]
    lines = [f"| {side} | `{spec.name}` | {spec.dtype.value} | {list(spec.dims)} |" for side, spec in rows]
    return "\n".join(["| | name | type | shape |", "|---|---|---|---|", *lines, ""]).replace("'", "")


def _ranges(profiles: tuple[Profile, ...]) -> str:
    lines = [
        f"- profile {number}: `{name}` from {list(shapes.min)} to {list(shapes.max)}, tuned for {list(shapes.opt)}"
        for number, profile in enumerate(profiles)
        for name, shapes in profile.shapes.items()
    ] + [
        f"- profile {number}: the shapes in `{name}` from {list(values.min)} to {list(values.max)}, tuned for "
        f"{list(values.opt)}"
        for number, profile in enumerate(profiles)
        for name, values in profile.values.items()
    ]
    return "\n".join(["It takes shapes in these ranges:", "", *lines, ""]) if lines else ""


def _options(profiles: tuple[Profile, ...]) -> str:
    """Return the provider's options for these profiles, as Python."""
    if unreadable_name(profiles) is not None:
        return "{}  # an input's name holds a colon or a comma, at which the provider would cut it"
    lines = [f'    "{name}": "{text}",' for name, text in provider_options(profiles, prefix="nv").items()]
    return "\n".join(["{", *lines, "}"]) if lines else "{}  # every shape is fixed"
