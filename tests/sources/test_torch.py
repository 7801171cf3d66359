"""A PyTorch model becomes an ONNX file with the interface that config.txt describes, and the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from convkit.errors import InputError, MetadataError, StepError
from convkit.graph.model import load_model
from convkit.measure.compare import compare_outputs
from convkit.pipeline.artifact import gather
from convkit.sources.exported import Exported
from convkit.sources.torch import export_torch, time_torch
from convkit.sources.torch_module import load_module
from convkit.spec.options import CheckOptions, ExportOptions, Precision, TensorNames
from sources.torch_models import LOADER, NETWORK, ONE_INPUT, defined, network, opened, state_dict_folder, write_folder

pytestmark = pytest.mark.usefixtures("imports_leave_no_trace")

HEAD = "import torch\nfrom torch import nn\n\nclass Net(nn.Module):\n"
ROW = [-1, 3]


def tensor(name: str, data_type: str, dims: Sequence[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "node_name": name, "data_type": data_type, "dims": list(dims), **more}


def folder_of(
    folder: Path, body: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], batch_size: int = 0
) -> Path:
    """A state dict with the class Net in net.py; `body` is indented already."""
    config = {"batch_size": batch_size, "input": inputs, "output": outputs}
    write_folder(folder, {"net.py": HEAD + body}, config=config)
    torch.save(defined(HEAD + body, "elsewhere").Net().state_dict(), folder / "model.pth")
    return folder


def exported(folder: Path, *, factory: str = "net.py:Net", samples: Any = None, **options: Any) -> Exported:
    source = opened(folder, model_def=f"{folder / factory}")
    return export_torch(source.source, metadata=source.metadata, options=ExportOptions(**options), samples=samples)


def checked(made: Exported) -> onnx.ModelProto:
    """The file, after ONNX's own checker and a comparison of its answers with the framework's."""
    onnx.checker.check_model(made.model.path, full_check=True)
    verification = compare_outputs(
        made.model,
        samples=made.samples,
        references=made.references,
        precision=Precision.NONE,
        options=CheckOptions(),
    )
    assert verification.passed
    assert verification.cases == len(made.samples)
    return load_model(made.model)


def faces(made: Exported) -> tuple[list[str], list[str]]:
    face = made.model.interface
    return [str(spec) for spec in face.inputs], [str(spec) for spec in face.outputs]


@pytest.fixture(scope="module")
def simple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("simple") / "net", {"net.py": NETWORK})
    torch.save(network().state_dict(), folder / "model.pth")
    return folder


def test_a_state_dict_is_exported_with_a_free_batch_and_compared_at_two_sizes(simple: Path) -> None:
    made = exported(simple)
    proto = checked(made)

    assert faces(made) == (["x float32[batch, 4]"], ["y float32[batch, 3]"])
    assert made.model.interface.max_batch_size == 4
    assert [len(case["x"]) for case in made.samples] == [1, 3]
    assert made.parameters == 4 * 8 + 8 + 8 * 3 + 3
    assert proto.ir_version <= 10
    assert made.framework.startswith("torch 2.")


def test_no_path_of_the_machine_is_left_in_the_file_and_two_folders_give_the_same_bytes(
    simple: Path, tmp_path: Path
) -> None:
    other = write_folder(tmp_path / "somewhere" / "else", {"net.py": NETWORK})
    torch.save(network().state_dict(), other / "model.pth")
    one, two = (exported(folder).model.path.read_bytes() for folder in (simple, other))

    assert one == two
    assert not any(text in one for text in (b"/tmp", b"site-packages", b"net.py", b"stack_trace", b"pytest"))


@pytest.mark.parametrize("layout", ["net.py", "parts/__init__.py"])
def test_the_network_may_come_from_an_importable_module(
    layout: str, simple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "working_directory"
    (package / layout).parent.mkdir(parents=True)
    (package / layout).write_text("from inner_part import Net\n" if "/" in layout else NETWORK, encoding="utf-8")
    if "/" in layout:
        (package / layout).write_text("from parts.network import Net\n", encoding="utf-8")
        (package / "parts" / "network.py").write_text(NETWORK, encoding="utf-8")
    monkeypatch.chdir(package)

    module = layout.partition("/")[0].removesuffix(".py")
    made = opened(simple, model_def=f"{module}:Net")

    assert torch.equal(load_module(made.source)(torch.ones(1, 4)), network()(torch.ones(1, 4)))
    assert not list(package.rglob("__pycache__"))


def test_a_change_in_the_code_behind_model_def_is_a_change_of_the_source(
    simple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net_in_package.py").write_text("from helper_of_net import Net\n", encoding="utf-8")
    (tmp_path / "helper_of_net.py").write_text(NETWORK, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    named = ("net_in_package:Net", f"{tmp_path / 'net_in_package.py'}:Net")
    before = [opened(simple, model_def=name).source.digest for name in named]
    (tmp_path / "helper_of_net.py").write_text(NETWORK.replace("ReLU", "GELU"), encoding="utf-8")
    after = [opened(simple, model_def=name).source.digest for name in named]

    assert set(before).isdisjoint(after)


@pytest.mark.parametrize(
    ("model_def", "message"),
    [
        ("{folder}/net.py:Nothing", r"net defines no function Nothing\(\)"),
        ("{folder}/none.py:Net", "does not exist"),
        ("{folder}/net.py", "it should read FILE.py:factory or module:factory"),
        (":Net", "it should read FILE.py:factory or module:factory"),
        ("a_module_that_nobody_has:Net", "there is no Python module 'a_module_that_nobody_has' here"),
        ("math:sqrt", "there is no Python module 'math' here"),
    ],
)
def test_a_model_def_that_names_nothing_is_refused(model_def: str, message: str, simple: Path) -> None:
    with pytest.raises(InputError, match=message) as refused:
        load_module(opened(simple, model_def=model_def.format(folder=simple)).source)

    assert refused.value.code == "source.model-def"


def test_a_factory_that_does_not_exist_is_told_with_those_that_do(simple: Path) -> None:
    with pytest.raises(InputError) as refused:
        load_module(opened(simple, model_def=f"{simple / 'net.py'}:Nett").source)

    assert refused.value.hint == "it defines: Net"


def test_weights_that_do_not_fit_are_told_with_their_keys(simple: Path, tmp_path: Path) -> None:
    code = NETWORK.replace("nn.Linear(8, 3)", "nn.Linear(8, 5)").replace("self.layers", "self.stack")
    (tmp_path / "other.py").write_text(code, encoding="utf-8")

    with pytest.raises(InputError, match=r"does not fit other\.py:Net.*stack\.0\.weight.*layers\.0\.weight") as refused:
        load_module(opened(simple, model_def=f"{tmp_path / 'other.py'}:Net").source)

    assert refused.value.code == "source.state-dict-mismatch"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "weights": [torch.ones(1)]}, "holds a dict with the keys epoch, weights"),
        ([torch.ones(1)], "holds a list"),
        (torch.ones(2), "holds a Tensor"),
    ],
)
def test_what_is_no_state_dict_is_told_with_what_it_is(content: object, message: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", {"net.py": NETWORK})
    torch.save(content, folder / "model.pth")

    with pytest.raises(InputError, match=message):
        load_module(opened(folder, model_def=f"{folder / 'net.py'}:Net").source)


def test_weights_without_a_network_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", {})
    torch.save(network().state_dict(), folder / "model.pth")

    with pytest.raises(InputError, match="weights without the network they belong to") as refused:
        opened(folder)
    assert "--model-def" in refused.value.hint


def test_a_definition_named_like_a_module_of_pythons_own_does_no_harm(tmp_path: Path) -> None:
    import random

    folder = write_folder(tmp_path / "net", {"random.py": NETWORK})
    torch.save(network().state_dict(), folder / "model.pth")
    load_module(opened(folder, model_def=f"{folder / 'random.py'}:Net").source)

    import random as again

    assert again is random


# Inputs and outputs

ENCODER = """
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, ids, mask):
        pooled = (self.embedding(ids) * mask.unsqueeze(-1)).sum(1)
        logits = self.head(pooled)
        return {"logits": logits, "best": logits.argmax(-1)}
"""


def test_several_inputs_and_outputs_with_integers_in_a_dict_and_a_shared_free_length(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "net",
        ENCODER,
        [tensor("mask", "float", [-1, -1]), tensor("ids", "long", [-1, -1], range=[0, 9])],
        [tensor("logits", "float", [-1, 3]), tensor("best", "long", [-1])],
        batch_size=8,
    )
    made = exported(folder)
    checked(made)

    assert faces(made) == (
        ["mask float32[batch, mask_1]", "ids int64[batch, mask_1]"],
        ["logits float32[batch, 3]", "best int64[batch]"],
    )
    assert [case["ids"].shape for case in made.samples] == [(1, 64), (3, 96)]
    assert all(case["ids"].max() <= 9 for case in made.samples)


def test_lengths_that_may_differ_keep_names_of_their_own(tmp_path: Path) -> None:
    body = "    def forward(self, q, k):\n        return torch.softmax(q @ k.transpose(1, 2), -1)\n"
    shape = [-1, -1, 8]
    made = exported(
        folder_of(
            tmp_path / "net",
            body,
            [tensor("q", "float", shape), tensor("k", "float", shape)],
            [tensor("scores", "float", [-1, -1, -1])],
        )
    )
    checked(made)

    assert faces(made)[1] == ["scores float32[batch, q_1, k_1]"]


@pytest.mark.parametrize(
    "parameters", ["a, b", "b, a", "a, scale=1.0, b=None", "*, b, a", "a, *, b", "a, /, b"], ids=str
)
def test_inputs_reach_the_parameters_of_their_names_wherever_those_stand(parameters: str, tmp_path: Path) -> None:
    body = f"    def forward(self, {parameters}):\n        return a - 2 * b\n"
    made = exported(
        folder_of(
            tmp_path / "net",
            body,
            [tensor("b", "float", ROW), tensor("a", "float", ROW)],
            [tensor("y", "float", ROW)],
        )
    )
    checked(made)

    case, answer = next(iter(made.samples)), next(iter(made.references))
    assert np.allclose(answer["y"], case["a"] - 2 * case["b"])


def test_inputs_with_other_names_go_by_their_order(tmp_path: Path) -> None:
    body = "    def forward(self, first, second):\n        return first - 2 * second\n"
    inputs = [tensor("left", "float", ROW), tensor("right", "float", ROW)]
    made = exported(folder_of(tmp_path / "net", body, inputs, [tensor("y", "float", ROW)]))

    case, answer = next(iter(made.samples)), next(iter(made.references))
    assert np.allclose(answer["y"], case["left"] - 2 * case["right"])


def test_a_tensor_is_called_by_its_node_name_or_by_its_name_as_asked(tmp_path: Path) -> None:
    body = "    def forward(self, image):\n        return image * 2\n"
    inputs = [{**tensor("image", "float", ROW), "node_name": "input_1:0"}]
    outputs = [{**tensor("probs", "float", ROW), "node_name": "dense_1/Softmax:0"}]
    folder = folder_of(tmp_path / "net", body, inputs, outputs)
    by_node, by_name = exported(folder), exported(folder, tensor_names=TensorNames.NAME)

    assert faces(by_node) == (["input_1:0 float32[batch, 3]"], ["dense_1/Softmax:0 float32[batch, 3]"])
    assert faces(by_name) == (["image float32[batch, 3]"], ["probs float32[batch, 3]"])
    assert [value.name for value in checked(by_node).graph.input] == ["input_1:0"]
    assert [value.name for value in checked(by_name).graph.output] == ["probs"]


TYPES = {
    "uint8": ("x.float() / 255", "float"),
    "char": ("x.to(torch.int16) + 1", "short"),
    "int": ("x + 1", "int"),
    "bool": ("x.logical_not()", "bool"),
    "half": ("x * 2", "half"),
    "double": ("x * 2", "double"),
}


@pytest.mark.parametrize("data_type", TYPES)
def test_every_type_passes(data_type: str, tmp_path: Path) -> None:
    expression, answer = TYPES[data_type]
    body = f"    def forward(self, x):\n        return {expression}\n"
    made = exported(folder_of(tmp_path / "net", body, [tensor("x", data_type, ROW)], [tensor("y", answer, ROW)]))

    checked(made)


@pytest.mark.parametrize(
    ("expression", "outputs"),
    [
        ("x", [tensor("y", "float", ROW)]),
        ("x.sum()", [tensor("y", "float", [])]),
        ("(x + 1, None, [x - 1, {'k': x * 3}])", [tensor(name, "float", ROW) for name in "abc"]),
        ("(lambda y: (y, y))(x * 2)", [tensor(name, "float", ROW) for name in "ab"]),
        ("(x + 1, torch.ones(2))", [tensor("y", "float", ROW), tensor("c", "float", [2])]),
    ],
    ids=["the input itself", "a scalar", "nested, with None", "one tensor twice", "a constant"],
)
def test_whatever_forward_returns_is_taken_apart(
    expression: str, outputs: list[dict[str, Any]], tmp_path: Path
) -> None:
    body = f"    def forward(self, x):\n        return {expression}\n"

    checked(exported(folder_of(tmp_path / "net", body, [tensor("x", "float", ROW)], outputs)))


def test_a_usual_length_of_one_leaves_the_length_free(tmp_path: Path) -> None:
    body = "    def forward(self, x):\n        return x.cumsum(1)\n"
    limits = {"min_dims": [1, 1], "opt_dims": [1, 1], "max_dims": [4, 50]}
    made = exported(
        folder_of(tmp_path / "net", body, [tensor("x", "float", [-1, -1], **limits)], [tensor("y", "float", [-1, -1])])
    )
    checked(made)

    assert faces(made)[1] == ["y float32[batch, x_1]"]
    assert [case["x"].shape for case in made.samples] == [(1, 1), (3, 50)]


TWICE = "    def forward(self, x):\n        return x * 2\n"
FIXED = "    def forward(self, x):\n        return x.reshape(2, 3) * 2\n"
LINEAR = """
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x)
"""


@pytest.mark.parametrize(
    ("body", "inputs", "outputs", "batch_size", "message"),
    [
        (
            FIXED,
            [tensor("x", "float", ROW)],
            [tensor("y", "float", ROW)],
            4,
            r"x \[1, 3\].*'\[2, 3\]' is invalid",
        ),
        (LINEAR, [tensor("x", "float", [-1, 5])], [tensor("y", "float", ROW)], 4, "mat1 and mat2 shapes"),
        (LINEAR, [tensor("x", "int", [-1, 4])], [tensor("y", "float", ROW)], 4, "same dtype, but got Int and Float"),
        (TWICE, [tensor("x", "float", ROW)], [tensor("y", "float", [-1, 7])], 4, r"dims\[1\] is 7, the model has .* 3"),
        (TWICE, [tensor("x", "float", ROW)], [tensor("y", "float", [-1, 3, 1])], 4, "with 3 dims, the model has 2"),
        (TWICE, [tensor("x", "float", ROW)], [tensor("y", "double", ROW)], 4, "as float64, the model returns float32"),
        (
            TWICE,
            [tensor("x", "float", ROW)],
            [tensor("y", "bfloat16", ROW)],
            4,
            "bfloat16, the model returns float32",
        ),
        (
            TWICE.replace("x * 2", "x.bfloat16()"),
            [tensor("x", "float", ROW)],
            [tensor("y", "float", ROW)],
            4,
            "as float32, the model returns bfloat16",
        ),
        (
            TWICE.replace("x * 2", "torch.fft.fft(x)"),
            [tensor("x", "float", ROW)],
            [tensor("y", "float", ROW)],
            0,
            "the model returns complex64",
        ),
        (
            TWICE.replace("x * 2", "(x, x)"),
            [tensor("x", "float", ROW)],
            [tensor("y", "float", ROW)],
            0,
            "1 outputs are declared, the model returns 2",
        ),
        (
            TWICE,
            [tensor("x", "float", ROW), tensor("z", "float", ROW)],
            [tensor("y", "float", ROW)],
            0,
            "takes 2 positional arguments but 3 were given",
        ),
        (TWICE, [tensor("x", "string", ROW)], [tensor("y", "float", ROW)], 0, "'x' holds strings"),
    ],
)
def test_a_config_txt_that_is_not_the_models_is_refused_with_both_sides(
    body: str,
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
    batch_size: int,
    message: str,
    tmp_path: Path,
) -> None:
    folder = folder_of(tmp_path / "net", body, inputs, outputs, batch_size)

    with pytest.raises((InputError, MetadataError), match=message) as refused:
        exported(folder)
    assert refused.value.hint


def test_a_batch_that_the_network_fixes_is_refused_where_it_should_be_free(tmp_path: Path) -> None:
    body = "    def forward(self, x):\n        return torch.stack([row * 2 for row in x])\n"
    folder = folder_of(tmp_path / "net", body, [tensor("x", "float", ROW)], [tensor("y", "float", ROW)], 4)

    with pytest.raises(StepError, match=r"a static shape of 2.*older exporter, traced: ONNX Runtime fails") as refused:
        exported(folder)
    assert '"batch_size": 0 where it is the batch' in refused.value.hint
    assert "(the size 2 is settled in the module itself (Net), net.py, line 6)" in refused.value.message


def test_the_same_network_is_taken_where_config_txt_fixes_the_batch(tmp_path: Path) -> None:
    made = exported(folder_of(tmp_path / "net", FIXED, [tensor("x", "float", [2, 3])], [tensor("y", "float", [2, 3])]))
    checked(made)

    assert faces(made) == (["x float32[2, 3]"], ["y float32[2, 3]"])
    assert made.model.interface.max_batch_size == 0


@pytest.mark.parametrize("opset", [18, 20, 21])
def test_the_opset_asked_for_is_the_one_written(opset: int, simple: Path) -> None:
    proto = checked(exported(simple, opset=opset))

    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [opset]


def test_an_opset_that_the_exporter_does_not_write_is_told_and_not_passed_over(tmp_path: Path) -> None:
    body = "    def forward(self, x):\n        return x.mean(1, keepdim=True)\n"
    folder = folder_of(tmp_path / "net", body, [tensor("x", "float", ROW)], [tensor("y", "float", [-1, 1])])

    with pytest.raises(StepError, match="opset 17 was asked for, the exporter wrote 18") as failed:
        exported(folder, opset=17)

    assert "--opset 18 or above" in failed.value.hint


def test_samples_are_taken_from_the_users_file_at_two_batch_sizes(simple: Path, tmp_path: Path) -> None:
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    np.savez(tmp_path / "samples.npz", x=rows)
    made = exported(simple, samples=gather(tmp_path, ["samples.npz"]))
    checked(made)

    assert [case["x"].tolist() for case in made.samples] == [rows[:1].tolist(), rows[:3].tolist()]


def test_the_module_is_timed_on_the_first_sample(simple: Path) -> None:
    source = opened(simple, model_def=f"{simple / 'net.py'}:Net")
    made = exported(simple)
    timing = time_torch(
        source.source, metadata=source.metadata, options=ExportOptions(), inputs=made.samples, seconds=0.01
    )

    assert len(timing.latencies_ns) >= 3
    assert all(latency > 0 for latency in timing.latencies_ns)


def test_the_max_batch_size_asked_for_wins(tmp_path: Path) -> None:
    folder = state_dict_folder(tmp_path / "net", code=NETWORK + LOADER)
    source = opened(folder, trust=["yes"])
    options = ExportOptions(max_batch_size=64)
    made = export_torch(source.source, metadata=source.metadata, options=options, samples=None)

    assert made.model.interface.max_batch_size == 64
    assert ONE_INPUT["batch_size"] == 4
