"""What a converted model needs in Triton's repository besides its file: configurations and warm-up requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from convkit.errors import ConvkitError
from convkit.graph.model import Tensors
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.step import step
from convkit.serving.publish import CONFIG, CONFIGS, WARMUP
from convkit.serving.triton import (
    ServingOptions,
    Warmup,
    WarmupInput,
    cpu_config,
    model_config,
    parse,
    render,
    wants_gpu,
    wire_bytes,
)
from convkit.spec.options import Precision
from convkit.spec.tensor import Interface
from convkit.targets.target import Accelerator, Target
from convkit.targets.trt_profiles import Profile


class TritonFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a model's own folder."""

    config: bytes | None
    beside: dict[str, bytes]

    def all(self) -> dict[str, bytes]:
        """Return every file by its name, config.pbtxt included."""
        return {**self.beside, **({} if self.config is None else {CONFIG: self.config})}


class WarmupData(msgspec.Struct, frozen=True, kw_only=True):
    """A warm-up request and the files that it names."""

    request: Warmup
    files: Artifact


@step(version=1, stage="publish", title="Write the warm-up", needs="onnx")
def write_warmup(interface: Interface, *, samples: Tensors) -> WarmupData:
    """Make a warm-up request of the first sample."""
    case = next(iter(samples))
    batched = interface.max_batch_size > 0
    folder = new_folder("warmup")
    inputs = {}
    for number, spec in enumerate(interface.inputs):
        array = case[spec.name][0] if batched else case[spec.name]
        file = f"{number}-" + "".join(c if c.isalnum() else "_" for c in spec.name)
        (folder / file).write_bytes(wire_bytes(array))
        inputs[spec.name] = WarmupInput(dtype=spec.dtype, dims=tuple(array.shape), file=file)
    return WarmupData(request=Warmup(name="sample", batch_size=1, inputs=inputs), files=gather(folder))


def triton_files(
    name: str,
    interface: Interface,
    target: Target,
    options: ServingOptions,
    warmup: WarmupData | None,
    *,
    precision: Precision = Precision.NONE,
    parameters: Mapping[str, str] = MappingProxyType({}),
    accelerator: Accelerator | None = None,
    profiles: Sequence[Profile] = (),
    libraries: Mapping[str, bytes] = MappingProxyType({}),
    repository: Path = Path(),
) -> TritonFiles:
    """Write config.pbtxt, the warm-up's data, and configs/cpu.pbtxt where the main configuration wants a GPU.

    There is none of a model in bf16, for which ONNX Runtime has no kernels on a CPU. `libraries` are those that bring
    operators, by their names in the model's folder, which lies in `repository`.
    """
    if target.backend is None:
        return TritonFiles(config=None, beside={})
    config = model_config(
        name=name,
        interface=interface,
        backend=target.backend,
        filename=target.filename,
        gpu=target.gpu,
        options=options,
        warmups=_warmups(warmup, interface, accelerator),
        parameters=parameters,
        accelerator=accelerator,
        profiles=profiles,
        shape_tensors={name for profile in profiles for name in profile.values},
        libraries=[str(_place(options, repository) / name / library) for library in libraries],
    )
    beside = {f"{WARMUP}/{file}": warmup.files.file(file).read_bytes() for file in warmup.files.files} if warmup else {}
    beside |= libraries
    if wants_gpu(config) and precision is not Precision.BF16:
        as_written = precision is Precision.FP8
        on_cpu = cpu_config(config, options=options, as_written=as_written)
        beside[f"{CONFIGS}/cpu.pbtxt"] = render(on_cpu).encode()
    return TritonFiles(config=render(config).encode(), beside=beside)


def _place(options: ServingOptions, repository: Path) -> Path:
    """Return where the server sees the repository: it hands a library's path to the loader as it stands there."""
    return Path(options.repository) if options.repository is not None else repository.resolve()


def _warmups(warmup: WarmupData | None, interface: Interface, accelerator: Accelerator | None) -> list[Warmup]:
    """Return one request of one sample; of the largest batch too where the accelerator builds for what it sees."""
    if warmup is None:
        return []
    largest = interface.max_batch_size
    if accelerator is None or not accelerator.warm_largest_batch or largest <= 1:
        return [warmup.request]
    return [warmup.request, msgspec.structs.replace(warmup.request, name="largest batch", batch_size=largest)]


def same_interface(folder: Path, config: bytes | None) -> bool:
    """Tell whether a model's present configuration describes the same tensors; true where there is none."""
    try:
        present = (folder / CONFIG).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return True
    except UnicodeDecodeError:
        return False
    if config is None:
        return False
    try:
        old = parse(present)
    except ConvkitError:
        return False
    new = parse(config.decode())
    return all(
        [(t.name, t.data_type, list(t.dims)) for t in theirs] == [(t.name, t.data_type, list(t.dims)) for t in ours]
        for theirs, ours in ((old.input, new.input), (old.output, new.output))
    ) and bool(old.max_batch_size == new.max_batch_size)
