"""What is told of every source: by its files alone, by an export, and as a config.txt that `convert` takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from e2e.forms import FORMS

from convkit.api import convert
from convkit.drafting import drafted, write_draft
from convkit.errors import UsageError
from convkit.graph.present import wanted_interface
from convkit.inspecting import Inspector, inspect_model
from convkit.pipeline.runner import Runner
from convkit.request import make_request
from convkit.sources.find import find_model
from convkit.sources.open import open_source
from convkit.sources.outline import scripted_call, stored_tensors
from convkit.sources.saved_model_signature import read_signatures
from convkit.spec.metadata import Metadata, parse_metadata, render_metadata
from convkit.spec.options import ExportOptions, TensorNames
from convkit.spec.tensor import DType, Interface, TensorSpec

KERAS = Path(__file__).parents[2] / "sample_models" / "digits_keras"
CNN = Path(__file__).parents[2] / "sample_models" / "digits_cnn"


def saved_model(folder: Path) -> Path:
    """The sample model without its config.txt."""
    shutil.copytree(KERAS, folder, ignore=shutil.ignore_patterns("*.txt", "*.npz", "*.md", "*.py"))
    return folder


def plain(form: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        FORMS[form].write(folder)
        (folder / "config.txt").unlink(missing_ok=True)
        return folder

    return write


DESCRIBING = {
    "SavedModel": saved_model,
    "TorchScript": plain("TorchScript"),
    "exported program": plain("exported program"),
    "ONNX": plain("ONNX"),
    "Keras file": plain("Keras file"),
}
"""Models that say themselves what they take and give."""


@pytest.mark.parametrize("form", DESCRIBING)
def test_the_drafted_config_says_what_the_model_says_and_is_exported_by(form: str, run: Runner, tmp_path: Path) -> None:
    source = DESCRIBING[form](tmp_path / "source")
    inspector = Inspector(make_request({"model": str(source)}, environment={}), run, quick=False, roofline=False)

    told = inspector.of_source()
    assert inspector.interface is not None
    write_draft(tmp_path / "config.txt", inspector.interface)

    metadata = parse_metadata((tmp_path / "config.txt").read_text())
    opened = open_source(find_model(source), metadata, ExportOptions(), (), "")
    exported = opened.export(run, samples=None, max_opset=26)
    now, then = exported.model.interface, inspector.interface
    assert [(spec.name, spec.dtype, len(spec.dims)) for spec in (*now.inputs, *now.outputs)] == [
        (spec.name, spec.dtype, len(spec.dims)) for spec in (*then.inputs, *then.outputs)
    ]
    assert now.max_batch_size == then.max_batch_size == 8
    assert told.work is not None
    assert told.left_out == ()


def test_a_draft_converts_as_it_is(tmp_path: Path, cache_folder: Path) -> None:
    source = plain("ONNX")(tmp_path / "net")

    told = inspect_model(make_request({"model": str(source)}, environment={}), roofline=False, write=True)
    report = convert(source, output=tmp_path / "models", measure={"mode": "none"}, cache=cache_folder)

    assert told.draft == str(source / "config.txt")
    assert report.status.value == "ok"
    config = (tmp_path / "models" / "net" / "config.pbtxt").read_text()
    assert 'name: "ids"' in config
    assert "max_batch_size: 8" in config


def test_a_draft_overwrites_nothing(tmp_path: Path) -> None:
    source = plain("ONNX")(tmp_path / "net")
    (source / "config.txt").write_text("mine")

    with pytest.raises(UsageError) as refused:
        inspect_model(make_request({"model": str(source)}, environment={}), quick=True, write=True)

    assert refused.value.code == "inspect.draft-exists"
    assert (source / "config.txt").read_text() == "mine"


def test_a_draft_says_the_same_as_the_interface_that_it_is_made_from() -> None:
    interface = Interface(
        inputs=(
            TensorSpec(
                name="ids", alias="tokens", dtype=DType.INT64, dims=("batch", "ids_1"), range=(0, 9), max_dims=(4, 64)
            ),
        ),
        outputs=(TensorSpec(name="y", dtype=DType.FLOAT16, dims=("batch", 3)),),
        max_batch_size=4,
    )

    again = parse_metadata(render_metadata(drafted(interface)))

    assert wanted_interface(again, TensorNames.NODE_NAME, None) == interface
    assert isinstance(again, Metadata)


def test_all_signatures_of_a_saved_model_are_read_without_tensorflow() -> None:
    serve, default = read_signatures(KERAS / "saved_model.pb")

    assert (serve.name, default.name) == ("serve", "serving_default")
    (image,), (probs,) = default.inputs, default.outputs
    assert (image.key, image.tensor, image.dims) == ("image", "serving_default_image:0", (-1, 8, 8, 1))
    assert (probs.key, probs.dtype, probs.dims) == ("probs", DType.FLOAT32, (-1, 10))


def test_a_quick_look_at_a_saved_model_starts_no_worker(tmp_path: Path, run: Runner) -> None:
    source = saved_model(tmp_path / "source")
    before = len(run.stages)

    told = Inspector(make_request({"model": str(source)}, environment={}), run, quick=True, roofline=True).of_source()

    assert len(run.stages) == before
    assert [signature.name for signature in told.signatures] == ["serve", "serving_default"]
    assert (told.work, told.graph) == (None, None)


def test_the_tensors_of_a_checkpoint_are_told_as_torch_reads_them() -> None:
    state = torch.load(CNN / "model.pth", weights_only=True)

    told = {tensor.name: (tensor.dims, tensor.dtype) for tensor in stored_tensors(CNN / "model.pth")}

    assert told == {name: (tuple(value.shape), DType(str(value.dtype)[6:])) for name, value in state.items()}


def test_a_traced_module_tells_its_inputs_and_a_scripted_one_their_names(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 3))
    torch.jit.save(torch.jit.trace(network, torch.zeros(2, 4)), tmp_path / "traced.pt")
    torch.jit.save(torch.jit.script(network), tmp_path / "scripted.pt")

    traced, scripted = (scripted_call(tmp_path / name) for name in ("traced.pt", "scripted.pt"))

    assert traced is not None
    assert scripted is not None
    assert [(each.dims, each.dtype) for each in traced.examples] == [((2, 4), DType.FLOAT32)]
    assert traced.is_whole
    assert (scripted.names, scripted.is_whole) == (traced.names, False)


def test_a_model_that_counts_its_batch_is_drafted_as_it_was_traced(run: Runner, tmp_path: Path) -> None:
    """Its output has no row for each row of its input."""

    class Sums(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(dim=0)

    torch.jit.save(torch.jit.trace(Sums(), torch.zeros(2, 4)), tmp_path / "sums.pt")
    inspector = Inspector(
        make_request({"model": str(tmp_path / "sums.pt")}, environment={}), run, quick=False, roofline=False
    )

    told = inspector.of_source()

    assert told.max_batch_size == 0
    assert [tensor.dims for tensor in (*told.inputs, *told.outputs)] == [(2, 4), (4,)]


def test_what_is_told_stands_in_json_under_its_schema(run: Runner, tmp_path: Path) -> None:
    import msgspec
    from schemas.validator import Validator

    from convkit.schema import schema

    source = plain("ONNX")(tmp_path / "net")
    told = Inspector(make_request({"model": str(source)}, environment={}), run, quick=False, roofline=True).of_source()

    document = json.loads(msgspec.json.encode(told))
    assert Validator(schema("inspection")).accepts(document)
    assert document["schema"] == "convkit.inspection/1"
    assert document["roofline"]["bound"] in ("memory", "arithmetic")
    assert document["dynamic"][1]["places"] == ["ids[1]", "weights[1]", "tags[1]"]
