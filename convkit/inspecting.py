"""What a model is, what it takes and gives, what a call of it costs, and what is untrusted in it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from convkit.custom_ops import find_extensions
from convkit.drafting import CONFIG, drafted, refuse_existing, write_draft
from convkit.errors import ConvkitError, InputError, MissingError, StepError, TrustError
from convkit.fetching import fetched
from convkit.graph.counting import Counted, count_call
from convkit.graph.simplify import simplify
from convkit.inspecting_published import engine_facts, inspect_published, is_engine, refuse_unread_at
from convkit.measure.roofline import Peaks, machine_peaks
from convkit.model_paths import is_published
from convkit.pipeline.artifact import Artifact, gather, use_index
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Observer, nobody
from convkit.pipeline.runner import Runner
from convkit.pipeline.shared import open_cache
from convkit.pipeline.stat_index import StatIndex
from convkit.report.inspection import (
    Graph,
    Inspection,
    LeftOut,
    Roofline,
    Signature,
    StoredWeights,
    TensorFacts,
    Untrusted,
    Work,
    with_interface,
)
from convkit.request import Request
from convkit.sources.checkpoint import CheckpointKind, read_checkpoint
from convkit.sources.exported import Exported
from convkit.sources.find import Found, Framework, find_model
from convkit.sources.open import open_source
from convkit.sources.outline import scripted_call, stored_tensors
from convkit.sources.saved_model_signature import SignatureTensor, read_signatures
from convkit.sources.source import Describing, Source
from convkit.sources.torch_file import TorchFile
from convkit.sources.torch_probe import probe_script
from convkit.spec.metadata import Metadata, read_metadata
from convkit.spec.tensor import Interface

_ANY_OPSET = 26
_LARGEST_SHOWN = 5
_NOT_DESCRIBED = Metadata(batch_size=0, inputs=(), outputs=())
"""Stands for a config.txt while a source is asked what it would run."""
_COST = "operators, multiply-accumulates, bytes moved"
_LEFT_OUT_FOR = (InputError, StepError, MissingError)
_T = TypeVar("_T")


class Inspector:
    """One inspection: what has been told so far, and how to go on."""

    def __init__(self, request: Request, run: Runner, *, quick: bool, roofline: bool) -> None:
        self.request = request
        self.run = run
        self.quick = quick
        self.roofline = roofline
        self.left_out: list[LeftOut] = []
        self.first_error: ConvkitError | None = None
        self.interface: Interface | None = None
        self.refused: tuple[Untrusted, ...] = ()
        """What a source has refused to run."""

    def attempt(self, what: str, call: Callable[[], _T]) -> _T | None:
        """Return what a call gives; where it is refused, note what cannot be told and why."""
        try:
            return call()
        except _LEFT_OUT_FOR as error:
            self.first_error = self.first_error or error
            if isinstance(error, TrustError):
                self.refused = _files_of(error)
            self.left_out.append(LeftOut(what=what, why=error.message, hint=error.hint, code=error.code))
            return None

    def of_source(self) -> Inspection:
        """Inspect what `convert` takes."""
        request = self.request
        found = find_model(Path(request.model), config=Path(request.config) if request.config else None)
        metadata = read_metadata(Path(found.config)) if found.config else None
        told = _told_by_files(self.request, found)
        described = metadata or self._probed(found)
        source = self.attempt(
            _COST, lambda: open_source(found, described, request.export, request.trust, _command(request))
        )
        if source is not None:
            told = msgspec.structs.replace(told, kind=source.kind)
            told = self._with_cost(told, source) if not self.quick else self._described(told, source)
            refused = self._refused_later(found, source, described) if request.trust and not told.untrusted else ()
            told = msgspec.structs.replace(
                told,
                untrusted=told.untrusted or refused or self.refused,
                trusted=bool(told.untrusted or refused),
                files=_sizes(source.files),
            )
        if self.interface is None and described is not None:
            self.interface = _interface_of(described, request)
        if self.interface is not None:
            told = with_interface(told, self.interface)
        told_anything = told.inputs or told.signatures or told.stored or told.arguments or told.untrusted
        if not told_anything and self.first_error is not None:
            raise self.first_error
        return told

    def _refused_later(self, found: Found, source: Source, described: Metadata | None) -> tuple[Untrusted, ...]:
        """List what a trusted source would refuse only as it is exported, as one that is looked into in a worker."""
        if source.environment != "tensorflow" or self.quick or self.refused:
            return ()
        try:
            distrusting = open_source(found, described, self.request.export, (), _command(self.request))
            distrusting.export(self.run, samples=self._samples(), max_opset=_ANY_OPSET)
        except TrustError as error:
            return _files_of(error)
        except ConvkitError:  # said where it was exported in earnest
            return ()
        return ()

    def _probed(self, found: Found) -> Metadata | None:
        """Return what a traced TorchScript file lets be found out of its inputs and outputs."""
        if found.framework is not Framework.PYTORCH or self.quick:
            return None
        call = scripted_call(found.path)
        if call is None or not call.is_whole:
            return None
        try:
            source = open_source(found, _NOT_DESCRIBED, self.request.export, self.request.trust, _command(self.request))
        except ConvkitError:  # said when it is opened in earnest
            return None
        if not isinstance(source, TorchFile) or source.source.kind is not CheckpointKind.TORCHSCRIPT:
            return None
        script = source.source
        interface = self.attempt("inputs and outputs", lambda: self.run(probe_script, script, call=call))
        return drafted(interface) if interface is not None else None

    def _described(self, told: Inspection, source: Source) -> Inspection:
        """Ask the source for its inputs, without an export."""
        if isinstance(source, Describing) and not told.signatures:
            interface = self.attempt("inputs and outputs", lambda: source.describe(self.run))
            if interface is not None and interface.outputs:
                self.interface = interface
        return told

    def _with_cost(self, told: Inspection, source: Source) -> Inspection:
        samples = self._samples()
        exported = self.attempt(_COST, lambda: source.export(self.run, samples=samples, max_opset=_ANY_OPSET))
        if exported is None:
            return self._described(told, source)
        self.interface = exported.model.interface
        told = msgspec.structs.replace(told, framework=exported.framework, parameters=exported.parameters)
        return self.counted(told, exported)

    def counted(self, told: Inspection, exported: Exported) -> Inspection:
        """Add the graph, what a call of it costs, and what bounds that here."""
        simplified = self.attempt(_COST, lambda: self.run(simplify, exported.model, chain=self.request.simplify.chain))
        if simplified is None:
            return told
        census = simplified.after
        graph = Graph(
            nodes=census.nodes,
            operators=census.operators,
            opset=census.opset,
            ir_version=census.ir_version,
            exporter=exported.exporter,
        )
        told = msgspec.structs.replace(told, graph=graph, weight_bytes=census.weight_bytes)
        counted = self.attempt(
            "multiply-accumulates, bytes moved",
            lambda: self.run(
                count_call,
                simplified.model,
                samples=exported.samples,
                answers=exported.references,
            ),
        )
        if counted is None:
            return told
        work = _work(counted)
        peaks = self.attempt("the roofline", lambda: self.run(machine_peaks)) if self.roofline else None
        return msgspec.structs.replace(told, work=work, roofline=_roofline(work, peaks) if peaks else None)

    def _samples(self) -> Artifact | None:
        if self.request.export.samples is None:
            return None
        path = Path(self.request.export.samples)
        if not path.is_file():
            raise InputError(f"--samples {path} does not exist", hint="name a .npz file", code="data.missing")
        return gather(path.absolute().parent, [path.name])


def inspect_model(
    request: Request,
    *,
    quick: bool = False,
    roofline: bool = True,
    write: bool = False,
    output: Path | None = None,
    observer: Observer = nobody,
    cache: Cache | None = None,
) -> Inspection:
    """Tell what a model is: of any source, published, or a serialized engine.

    Nothing that is untrusted runs. What an export tells (operators, multiply-accumulates, what bounds a call) is left
    out where trust, or something else that `convert` would need, is missing; the rest is told all the same.

    Args:
        request: `model`, `config`, `trust` and `export` are looked at.
        quick: export nothing.
        roofline: measure what this machine reaches, shortly, once; and tell what bounds a call of the model on it.
        write: draft a config.txt beside the model, or at `output`.
        output: where to.
        observer: is told what happens.
        cache: where exports and the measurement are remembered.

    Raises:
        InputError: there is no model, nothing can be told of it, or nothing that a draft could be made from.
        UsageError: the draft's file exists, or a file of `export.custom_ops` would not be loaded.
    """
    cache = cache or open_cache(observer)
    use_index(StatIndex(cache.root / "digests.sqlite"))
    extensions = find_extensions(request.export.custom_ops)
    with Runner(cache, observer) as run:
        run.extend(extensions)
        request = fetched(request, cache, run.observe)
        path = Path(request.model)
        refuse_unread_at(path, extensions)
        target = _draft_path(path, output) if write else None
        if target is not None:
            refuse_existing(target)
        inspector = Inspector(request, run, quick=quick, roofline=roofline)
        if is_engine(path):
            told = engine_facts(path)
        elif is_published(path):
            told = inspect_published(path, inspector)
        else:
            told = inspector.of_source()
        left_out = _merged((*told.left_out, *inspector.left_out))
        told = msgspec.structs.replace(told, left_out=left_out, status="partial" if left_out else "ok")
        if target is not None:
            _write(target, inspector)
            told = msgspec.structs.replace(told, draft=str(target))
        return told


def _merged(left_out: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """Put together what cannot be told for one and the same reason."""
    merged: dict[str, LeftOut] = {}
    for each in left_out:
        what = merged[each.why].what if each.why in merged else ""
        joined = each.what if not what or what == each.what else f"{what}; {each.what}"
        merged[each.why] = msgspec.structs.replace(each, what=joined)
    return tuple(merged.values())


def _told_by_files(request: Request, found: Found) -> Inspection:
    """Say what can be said without loading anything."""
    untrusted = _untrusted(request, found)
    told = Inspection(
        status="ok",
        exit_code=0,
        model=request.model,
        name=found.name,
        kind=found.written_by,
        files={found.file: found.path.stat().st_size},
        config=found.config,
        untrusted=untrusted,
    )
    if found.framework is Framework.TENSORFLOW and found.file == "saved_model.pb":
        signatures = tuple(
            Signature(
                name=each.name,
                inputs=tuple(map(_tensor, each.inputs)),
                outputs=tuple(map(_tensor, each.outputs)),
            )
            for each in read_signatures(found.path)
        )
        return msgspec.structs.replace(told, signatures=signatures)
    if found.framework is Framework.PYTORCH:
        return _with_stored(told, found)
    return told


def _with_stored(told: Inspection, found: Found) -> Inspection:
    kind = read_checkpoint(found.path).kind
    told = msgspec.structs.replace(told, kind=f"PyTorch ({kind.value})")
    if kind is CheckpointKind.TORCHSCRIPT and (call := scripted_call(found.path)) is not None:
        told = msgspec.structs.replace(told, arguments=call.names)
    tensors = stored_tensors(found.path)
    if not tensors:
        return told
    largest = sorted(tensors, key=lambda tensor: -tensor.elements)[:_LARGEST_SHOWN]
    stored = StoredWeights(
        tensors=len(tensors),
        elements=sum(tensor.elements for tensor in tensors),
        bytes=sum(tensor.elements * (tensor.dtype.bits // 8 if tensor.dtype else 1) for tensor in tensors),
        largest=tuple(
            TensorFacts(name=each.name, dtype=each.dtype.value if each.dtype else None, dims=each.dims)
            for each in largest
        ),
    )
    return msgspec.structs.replace(told, stored=stored)


def _tensor(tensor: SignatureTensor) -> TensorFacts:
    dims = None
    if tensor.dims is not None:
        dims = tuple(f"{tensor.key}_{axis}" if dim < 0 else dim for axis, dim in enumerate(tensor.dims))
    return TensorFacts(
        name=tensor.key, dtype=tensor.dtype.value if tensor.dtype else None, dims=dims, tensor=tensor.tensor or None
    )


def _untrusted(request: Request, found: Found) -> tuple[Untrusted, ...]:
    """List what would be imported or called, as the refusal does; nobody has to be trusted for that."""
    try:
        open_source(found, _NOT_DESCRIBED, request.export, (), _command(request))
    except TrustError as error:
        return _files_of(error)
    except ConvkitError:  # said where it is opened in earnest
        return ()
    return ()


def _files_of(error: TrustError) -> tuple[Untrusted, ...]:
    return tuple(msgspec.convert(file, type=Untrusted, from_attributes=True) for file in error.files)


def _command(request: Request) -> str:
    return f"convkit inspect {shlex.quote(request.model)}"


def _interface_of(metadata: Metadata, request: Request) -> Interface:
    from convkit.graph.present import wanted_interface

    return wanted_interface(metadata, request.export.tensor_names, request.export.max_batch_size)


def _work(counted: Counted) -> Work:
    macs = sum(counted.macs.values())
    return Work(
        shapes=counted.shapes,
        macs=macs,
        macs_by_precision=counted.macs,
        macs_by_operator=counted.macs_by_operator,
        bytes_moved=counted.bytes_moved,
        bytes_least=counted.bytes_least,
        intensity=2 * macs / counted.bytes_moved if counted.bytes_moved else 0.0,
    )


def _roofline(work: Work, peaks: Peaks) -> Roofline:
    return Roofline(
        flops=peaks.flops,
        bytes_per_s=peaks.bytes_per_s,
        threads=peaks.threads,
        ridge=peaks.ridge,
        bound="memory" if work.intensity < peaks.ridge else "arithmetic",
        least_ms=1000 * max(2 * work.macs / peaks.flops, work.bytes_least / peaks.bytes_per_s),
    )


def _sizes(files: Artifact) -> dict[str, int]:
    return {name: files.file(name).stat().st_size for name in files.files}


def _draft_path(model: Path, output: Path | None) -> Path:
    if output is not None:
        return output
    return (model if model.is_dir() else model.parent) / CONFIG


def _write(path: Path, inspector: Inspector) -> None:
    if inspector.interface is None:
        why = inspector.first_error
        raise InputError(
            "--write: nothing tells all inputs and outputs of this model"
            + (f": {why.message}" if why is not None else "; --quick leaves out what would"),
            hint=why.hint if why is not None else "leave out --quick",
            code="inspect.no-signature",
        )
    write_draft(path, inspector.interface)
