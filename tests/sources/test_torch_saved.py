"""TorchScript and .pt2: files that hold the network itself. What they would call is known before they are loaded."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from convkit.errors import InputError, TrustError
from convkit.measure.compare import compare_outputs
from convkit.pipeline.artifact import digest_file
from convkit.sources.checkpoint import read_checkpoint
from convkit.sources.exported import Exported
from convkit.sources.find import find_model
from convkit.sources.open import open_source
from convkit.sources.torch import export_torch
from convkit.sources.torch_export import PROGRAM, TORCHSCRIPT
from convkit.sources.torch_file import ProgramFile, TorchFile
from convkit.sources.torch_pt2 import export_pt2, read_pt2, time_pt2
from convkit.spec.metadata import read_metadata
from convkit.spec.options import CheckOptions, ExportOptions, Precision
from sources.hostile import plain_pickle
from sources.torch_models import write_folder

pytestmark = [
    pytest.mark.usefixtures("imports_leave_no_trace"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]


class Tagger(nn.Module):
    """Two inputs, two outputs in a dict, one inside a tuple; batch and length are free."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 8)
        self.head = nn.Linear(8, 3)
        self.register_buffer("scale", torch.full((8,), 2.0))

    def forward(self, ids: torch.Tensor, weights: torch.Tensor) -> dict[str, Any]:
        hidden = torch.tanh(self.embed(ids)) * weights.unsqueeze(-1) * self.scale
        return {"tags": self.head(hidden), "more": (hidden.mean(dim=1),)}


class Loop(nn.Module):
    """Runs as often as its data say, which no trace can follow."""

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total = x
        for _ in range(int(times.sum())):
            total = total + x
        return total, (total * 2)


def config(
    names: tuple[str, ...] = ("ids", "weights"), outputs: tuple[str, ...] = ("tags", "pooled")
) -> dict[str, Any]:
    def entry(name: str, kind: str, dims: list[int], **more: Any) -> dict[str, Any]:
        return {"name": name, "node_name": name, "data_type": kind, "dims": dims, **more}

    return {
        "batch_size": 4,
        "input": [entry(names[0], "long", [-1, -1], range=[0, 4]), entry(names[1], "float", [-1, -1])],
        "output": [entry(outputs[0], "float", [-1, -1, 3]), entry(outputs[1], "float", [-1, 8])],
    }


def tagger() -> Tagger:
    torch.manual_seed(0)
    return Tagger().eval()


def opened(folder: Path, *, trust: tuple[str, ...] = (), **options: Any) -> TorchFile | ProgramFile:
    found = find_model(next(path for path in folder.iterdir() if path.stem == "model"))
    metadata = read_metadata(Path(found.config)) if found.config else None
    source = open_source(found, metadata, ExportOptions(**options), trust, f"convkit convert {found.path}")
    assert isinstance(source, TorchFile | ProgramFile)
    return source


def exported(folder: Path, **options: Any) -> Exported:
    source = opened(folder, **options)
    step = export_pt2 if isinstance(source, ProgramFile) else export_torch
    made = step(source.source, metadata=source.metadata, options=source.options, samples=None)  # type: ignore[arg-type]
    found = compare_outputs(
        made.model, samples=made.samples, references=made.references, precision=Precision.NONE, options=CheckOptions()
    )
    assert found.passed
    return made


def scripted_folder(folder: Path, module: nn.Module, **more: Any) -> Path:
    write_folder(folder, {}, config=config(**more))
    torch.jit.save(module, folder / "model.pt")  # type: ignore[no-untyped-call]
    return folder


def program(module: nn.Module | None = None, **limits: int) -> torch.export.ExportedProgram:
    batch, length = torch.export.Dim("batch", **limits), torch.export.Dim("length")
    example = (torch.randint(0, 5, (4, 7)), torch.rand(4, 7))
    shapes = ({0: batch, 1: length}, {0: batch, 1: length})
    return torch.export.export(module or tagger(), example, dynamic_shapes=shapes)


def program_folder(folder: Path, exported_program: torch.export.ExportedProgram) -> Path:
    folder.mkdir(parents=True)
    torch.export.save(exported_program, folder / "model.pt2")
    return folder


def rewritten(path: Path, change: Callable[[str, bytes], bytes], **more: bytes) -> None:
    """Write an archive anew, each member through `change`, with members more."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, change(member.filename, old.read(member)))
        root = old.infolist()[0].filename.partition("/")[0]
        for name, content in more.items():
            new.writestr(f"{root}/{name}", content)
    path.write_bytes(buffer.getvalue())


# TorchScript


@pytest.mark.parametrize(
    "make",
    [
        torch.jit.script,
        lambda net: torch.jit.trace(net, (torch.zeros(1, 3, dtype=int), torch.ones(1, 3)), strict=False),
    ],
    ids=["scripted", "traced"],
)
def test_torchscript_is_written_by_the_older_exporter(make: Any, tmp_path: Path) -> None:
    class Flat(Tagger):
        def forward(self, ids: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
            hidden = torch.tanh(self.embed(ids)) * weights.unsqueeze(-1) * self.scale
            return self.head(hidden), hidden.mean(dim=1)

    torch.manual_seed(0)
    made = exported(scripted_folder(tmp_path / "net", make(Flat().eval())))

    assert made.exporter == TORCHSCRIPT
    assert [str(spec) for spec in made.model.interface.outputs] == [
        "tags float32[batch, tags_1, 3]",
        "pooled float32[batch, 8]",
    ]
    expected = tagger()(*(torch.from_numpy(array) for array in next(iter(made.samples)).values()))
    np.testing.assert_allclose(next(iter(made.references))["tags"], expected["tags"].detach(), rtol=1e-5, atol=1e-6)


def test_inputs_of_torchscript_go_by_the_names_of_its_parameters(tmp_path: Path) -> None:
    script = torch.jit.script(Loop())
    folder = write_folder(
        tmp_path / "net",
        {},
        config={
            "batch_size": 0,
            "input": [
                {"name": "times", "node_name": "times", "data_type": "long", "dims": [2], "range": [1, 3]},
                {"name": "x", "node_name": "x", "data_type": "float", "dims": [-1, 3]},
            ],
            "output": [{"name": n, "node_name": n, "data_type": "float", "dims": [-1, 3]} for n in ("sum", "twice")],
        },
    )
    torch.jit.save(script, folder / "model.pt")
    made = exported(folder)

    case, answer = next(iter(made.samples)), next(iter(made.references))
    np.testing.assert_allclose(answer["sum"], case["x"] * (1 + case["times"].sum()), rtol=1e-5)


def test_torchscript_that_writes_files_runs_under_trust_only(tmp_path: Path) -> None:
    class Writes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, "canary")
            return x

    folder = write_folder(tmp_path / "net", {})
    torch.jit.save(torch.jit.script(Writes()), folder / "model.pt")

    with pytest.raises(TrustError, match=r"torch\.ops\.aten\.save"):
        opened(folder)
    opened(folder, trust=(digest_file(folder / "model.pt"),))


def test_torchscript_takes_no_definition_and_no_key(tmp_path: Path) -> None:
    folder = scripted_folder(tmp_path / "net", torch.jit.script(Loop()))

    with pytest.raises(InputError, match="which holds the network itself"):
        opened(folder, state_key="model")


# .pt2


def test_a_program_needs_no_config_and_its_dimensions_stay_free(tmp_path: Path) -> None:
    made = exported(program_folder(tmp_path / "net", program()))

    assert made.exporter == PROGRAM
    face = made.model.interface
    assert [str(spec) for spec in face.inputs] == ["ids int64[batch, ids_1]", "weights float32[batch, ids_1]"]
    assert [str(spec) for spec in face.outputs] == ["tags float32[batch, ids_1, 3]", "more_0 float32[batch, 8]"]
    assert face.max_batch_size == 8
    assert made.parameters == 5 * 8 + 8 * 3 + 3
    expected = tagger()(*(torch.from_numpy(array) for array in next(iter(made.samples)).values()))
    np.testing.assert_allclose(
        next(iter(made.references))["more_0"], expected["more"][0].detach(), rtol=1e-5, atol=1e-6
    )


def test_a_program_says_within_what_limits_a_dimension_is_free(tmp_path: Path) -> None:
    folder = program_folder(tmp_path / "net", program(min=3, max=6))
    source = opened(folder)
    face = read_pt2(source.source, options=source.options)

    assert face.inputs[0].min_dims is not None
    assert (face.inputs[0].min_dims[0], face.inputs[0].max_dims) == (3, (6, 1024))
    assert {len(case["ids"]) for case in exported(folder).samples} <= {3, 4, 5, 6}


def test_config_txt_gives_a_programs_tensors_other_names(tmp_path: Path) -> None:
    folder = program_folder(tmp_path / "net", program())
    (folder / "config.txt").write_text(json.dumps(config(("tokens", "factors"), ("scores", "mean"))), encoding="utf-8")
    made = exported(folder)

    assert [spec.name for spec in (*made.model.interface.inputs, *made.model.interface.outputs)] == [
        "tokens", "factors", "scores", "mean",
    ]  # fmt: skip
    assert made.model.interface.max_batch_size == 4


def test_a_program_is_timed(tmp_path: Path) -> None:
    folder = program_folder(tmp_path / "net", program())
    source, made = opened(folder), exported(folder)

    timing = time_pt2(source.source, metadata=None, options=source.options, inputs=made.samples, seconds=0.01)
    assert timing.latencies_ns


def test_a_program_with_plain_members_is_loaded_without_trust_and_calls_nothing_else(tmp_path: Path) -> None:
    folder = program_folder(tmp_path / "net", program())

    assert read_checkpoint(folder / "model.pt2").foreign == ()


HOSTILE: dict[str, Callable[[Path, Path], None]] = {
    "its sample inputs are a pickle that calls": lambda path, canary: rewritten(
        path, lambda name, content: plain_pickle(canary) if "sample_inputs" in name else content
    ),
    "a weight that is said to be pickled": lambda path, canary: rewritten(
        path,
        lambda name, content: (
            content.replace(b'"use_pickle": false', b'"use_pickle": true')
            if name.endswith("weights_config.json")
            else plain_pickle(canary)
            if name.endswith("weight_0")
            else content
        ),
    ),
    "a node that calls Python": lambda path, _: rewritten(
        path,
        lambda name, content: (
            content.replace(b"torch.ops.aten.tanh.default", b"torch.os.system")
            if name.endswith("model.json")
            else content
        ),
    ),
    "an expression that is code": lambda path, _: rewritten(
        path,
        lambda name, content: (
            content.replace(b'"expr_str": "', b"\"expr_str\": \"__import__('os').mkdir('x') + ")
            if name.endswith("model.json")
            else content
        ),
    ),
    "native code": lambda path, _: rewritten(
        path, lambda _, content: content, **{"data/aotinductor/model/a.so": b"\x7fELF"}
    ),
}


@pytest.mark.parametrize("attack", HOSTILE.values(), ids=HOSTILE)
def test_no_hostile_program_is_loaded_without_trust(attack: Callable[[Path, Path], None], tmp_path: Path) -> None:
    folder = program_folder(tmp_path / "net", program())
    before = (folder / "model.pt2").read_bytes()
    attack(folder / "model.pt2", tmp_path / "canary")
    assert (folder / "model.pt2").read_bytes() != before

    with pytest.raises((TrustError, InputError)):
        opened(folder)

    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"{", b"7", b'{"range_constraints": 5}'], ids=["deep", "cut", "7", "5"]
)
def test_a_program_whose_text_is_none_is_told(text: bytes, tmp_path: Path) -> None:
    folder = program_folder(tmp_path / "net", program())
    rewritten(folder / "model.pt2", lambda name, content: text if name.endswith("model.json") else content)

    with pytest.raises(InputError):
        export_pt2(opened(folder).source, metadata=None, options=ExportOptions(), samples=None)  # type: ignore[arg-type]


def test_a_damaged_program_is_told(tmp_path: Path) -> None:
    folder = program_folder(tmp_path / "net", program())
    rewritten(folder / "model.pt2", lambda name, content: content[:50] if name.endswith("weight_0") else content)
    source = opened(folder)

    with pytest.raises(InputError, match=r"model\.pt2 cannot be loaded"):
        export_pt2(source.source, metadata=None, options=ExportOptions(), samples=None)  # type: ignore[arg-type]
