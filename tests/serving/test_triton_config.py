"""config.pbtxt as convkit makes it, reads it and finds fault with it; no server is needed here."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.errors import ConvkitError, InputError, UsageError
from convkit.serving.triton import (
    ServingOptions,
    Warmup,
    WarmupInput,
    cpu_config,
    lint,
    model_config,
    parse,
    render,
    wants_gpu,
    wire_bytes,
)
from convkit.spec.tensor import DType, Interface, TensorSpec


def tensor(name: str, *dims: int | str, dtype: DType = DType.FLOAT32) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, dims=dims)


def interface(*, batch: int = 0, dims: tuple[int | str, ...] = ("batch", "height", 3)) -> Interface:
    return Interface(
        inputs=(tensor("input_1:0", *dims),), outputs=(tensor("probs", "batch", 19),), max_batch_size=batch
    )


def config(
    face: Interface | None = None, options: ServingOptions | None = None, *, backend: str = "onnxruntime", **more: Any
) -> Any:
    given = {"filename": "model.onnx", "gpu": backend == "tensorrt", **more}
    return model_config(name="net", interface=face or interface(batch=8), backend=backend, options=options, **given)


def test_the_whole_configuration_of_a_batched_model() -> None:
    assert render(config()) == (
        "# Written by convkit.\n"
        'name: "net"\n'
        "version_policy {\n  latest {\n    num_versions: 1\n  }\n}\n"
        "max_batch_size: 8\n"
        'input {\n  name: "input_1:0"\n  data_type: TYPE_FP32\n  dims: [-1, 3]\n}\n'
        'output {\n  name: "probs"\n  data_type: TYPE_FP32\n  dims: [19]\n}\n'
        "instance_group {\n  count: 1\n  kind: KIND_CPU\n}\n"
        'default_model_filename: "model.onnx"\n'
        "dynamic_batching {\n  max_queue_delay_microseconds: 100\n}\n"
        'backend: "onnxruntime"\n'
    )


def test_without_a_batch_dims_are_the_whole_shape_and_nothing_is_batched() -> None:
    made = config(interface(batch=0))

    assert list(made.input[0].dims) == [-1, -1, 3]
    assert made.max_batch_size == 0
    assert not made.HasField("dynamic_batching")


def test_one_number_for_each_sample_has_the_dims_1_and_an_empty_reshape() -> None:
    made = config(interface(batch=8, dims=("batch",)))

    assert list(made.input[0].dims) == [1]
    assert made.input[0].HasField("reshape")
    assert list(made.input[0].reshape.shape) == []


def test_a_scalar_without_a_batch_has_the_dims_1_and_no_reshape() -> None:
    made = config(interface(batch=0, dims=()))

    assert list(made.input[0].dims) == [1]
    assert not made.input[0].HasField("reshape")


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype is not DType.BFLOAT16])
def test_every_element_type_has_tritons_name(dtype: DType) -> None:
    face = Interface(inputs=(tensor("x", 1, dtype=dtype),), outputs=(tensor("y", 1, dtype=dtype),))

    assert f"data_type: {dtype.triton}\n" in render(config(face))


def test_every_option_reaches_its_field() -> None:
    options = ServingOptions(
        version_policy=(2, 5),
        instances=3,
        kind="gpu",
        gpus=(0, 1),
        preferred_batch_sizes=(4, 8),
        max_queue_delay_us=250,
        intra_op_threads=2,
        inter_op_threads=1,
        graph_optimization="extended",
    )

    made = config(options=options)

    assert list(made.version_policy.specific.versions) == [2, 5]
    assert "instance_group {\n  count: 3\n  gpus: [0, 1]\n  kind: KIND_GPU\n}" in render(made)
    assert list(made.dynamic_batching.preferred_batch_size) == [4, 8]
    assert made.dynamic_batching.max_queue_delay_microseconds == 250
    assert {key: value.string_value for key, value in made.parameters.items()} == {
        "intra_op_thread_count": "2",
        "inter_op_thread_count": "1",
    }
    assert made.optimization.graph.level == 1


def test_the_version_policy_all_is_written_though_it_is_empty() -> None:
    assert "version_policy {\n  all {\n  }\n}" in render(config(options=ServingOptions(version_policy="all")))


def test_dynamic_batching_can_be_turned_off() -> None:
    assert not config(options=ServingOptions(dynamic_batching=False)).HasField("dynamic_batching")


@pytest.mark.parametrize(
    ("options", "batch", "backend", "code"),
    [
        (ServingOptions(gpus=(0,)), 8, "onnxruntime", "triton.gpus-on-cpu"),
        (ServingOptions(kind="cpu"), 8, "tensorrt", "triton.engine-on-cpu"),
        (ServingOptions(dynamic_batching=True), 0, "onnxruntime", "triton.batching-without-batch"),
        (ServingOptions(preferred_batch_sizes=(2,)), 0, "onnxruntime", "triton.batching-off"),
        (ServingOptions(preferred_batch_sizes=(2,), dynamic_batching=False), 8, "onnxruntime", "triton.batching-off"),
        (ServingOptions(preferred_batch_sizes=(4, 9)), 8, "onnxruntime", "triton.preferred-batch-too-large"),
    ],
)
def test_options_that_contradict_each_other_or_the_model_are_refused(
    options: ServingOptions, batch: int, backend: str, code: str
) -> None:
    with pytest.raises(UsageError) as refused:
        config(interface(batch=batch), options, backend=backend)

    assert refused.value.code == code
    assert refused.value.hint


def test_the_recipe_table_refuses_an_unknown_key_and_a_number_out_of_range() -> None:
    with pytest.raises(msgspec.ValidationError, match="instance"):
        msgspec.convert({"instance": 2}, ServingOptions)
    with pytest.raises(msgspec.ValidationError, match="instances"):
        msgspec.convert({"instances": 0}, ServingOptions)
    with pytest.raises(msgspec.ValidationError, match="version_policy"):
        msgspec.convert({"version_policy": "newest"}, ServingOptions)
    assert msgspec.convert({"version_policy": [1, 2]}, ServingOptions).version_policy == (1, 2)


@pytest.mark.parametrize(
    ("face", "backend", "code"),
    [
        (interface(batch=8, dims=()), "onnxruntime", "triton.no-batch-dimension"),
        (interface(dims=()), "tensorrt", "triton.scalar"),
        (interface(dims=("batch", 0)), "onnxruntime", "triton.bad-dims"),
        (Interface(inputs=(), outputs=(tensor("y", 1),)), "onnxruntime", "triton.no-input"),
        (Interface(inputs=(tensor("x", 1), tensor("x", 2)), outputs=(tensor("y", 1),)), "onnxruntime",
         "triton.duplicate-tensor"),
        (Interface(inputs=(tensor("x", 1, dtype=DType.BFLOAT16),), outputs=(tensor("y", 1),)), "onnxruntime",
         "triton.bfloat16"),
    ],
)  # fmt: skip
def test_an_interface_that_triton_cannot_serve_is_refused(face: Interface, backend: str, code: str) -> None:
    with pytest.raises(InputError) as refused:
        config(face, backend=backend)

    assert refused.value.code == code


def warmup(**changes: Any) -> Warmup:
    sent = WarmupInput(dtype=DType.FLOAT32, dims=(224, 3), file="image.bin")
    return msgspec.structs.replace(Warmup(name="sample", batch_size=8, inputs={"input_1:0": sent}), **changes)


def test_a_warm_up_names_its_data_file_and_leaves_the_batch_out() -> None:
    made = config(warmups=[warmup()]).model_warmup[0]

    assert (made.name, made.batch_size) == ("sample", 8)
    assert list(made.inputs["input_1:0"].dims) == [224, 3]
    assert made.inputs["input_1:0"].input_data_file == "image.bin"


def test_warm_ups_can_be_turned_off() -> None:
    assert not config(options=ServingOptions(warmup=False), warmups=[warmup()]).model_warmup


SENT = {"dtype": DType.FLOAT32, "dims": (224, 3), "file": "image.bin"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"batch_size": 9}, "triton.warmup-batch-too-large"),
        ({"inputs": {}}, "triton.warmup-inputs"),
        ({"inputs": {"image": WarmupInput(**SENT)}}, "triton.warmup-inputs"),
        ({"inputs": {"input_1:0": WarmupInput(**{**SENT, "dtype": DType.INT64})}}, "triton.warmup-type"),
        ({"inputs": {"input_1:0": WarmupInput(**{**SENT, "dims": (1, 224, 3)})}}, "triton.warmup-dims"),
        ({"inputs": {"input_1:0": WarmupInput(**{**SENT, "dims": (224, 4)})}}, "triton.warmup-dims"),
        ({"inputs": {"input_1:0": WarmupInput(**{**SENT, "dims": (-1, 3)})}}, "triton.warmup-dims"),
    ],
)
def test_a_warm_up_that_does_not_fit_the_model_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError) as refused:
        config(warmups=[warmup(**changes)])

    assert refused.value.code == code


def test_an_engine_wants_a_gpu_and_its_cpu_configuration_serves_the_onnx_model_it_keeps() -> None:
    main = config(backend="tensorrt", filename="model.plan", warmups=[warmup()])
    main.cc_model_filenames["9.0"] = "model_sm90.plan"
    main.parameters["execution_context_allocation_strategy"].string_value = "STATIC"

    derived = cpu_config(main, options=ServingOptions(intra_op_threads=4))

    assert wants_gpu(main)
    assert not wants_gpu(derived)
    assert derived.backend == "onnxruntime"
    assert derived.default_model_filename == "convkit/model.onnx"
    assert list(derived.parameters) == ["intra_op_thread_count"]
    assert not derived.cc_model_filenames
    for field in ("name", "max_batch_size", "input", "output", "dynamic_batching", "version_policy", "model_warmup"):
        assert getattr(derived, field) == getattr(main, field), field


def test_an_onnx_model_on_a_gpu_keeps_its_file_and_its_threads_in_the_cpu_configuration() -> None:
    options = ServingOptions(kind="gpu", gpus=(1,), instances=2, intra_op_threads=4, graph_optimization="basic")
    main = config(options=options)
    main.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")

    derived = cpu_config(main)

    assert wants_gpu(main)
    assert derived.default_model_filename == "model.onnx"
    assert derived.parameters["intra_op_thread_count"].string_value == "4"
    assert derived.optimization.graph.level == -1
    assert not derived.optimization.HasField("execution_accelerators")
    assert "instance_group {\n  count: 2\n  kind: KIND_CPU\n}" in render(derived)


def test_what_is_rendered_is_parsed_back_and_rendered_the_same() -> None:
    names = ["größe", 'quoted "x"', "back\\slash", "b", "a"]
    sent = {name: WarmupInput(dtype=DType.FLOAT32, dims=(1,), file=f"{name}.bin") for name in names}
    face = Interface(inputs=tuple(tensor(name, 1) for name in names), outputs=(tensor("y", 1),))

    made = config(face, warmups=[Warmup(name="sample", inputs=sent)])

    assert parse(render(made)) == made
    assert render(parse(render(made))) == render(made)


def test_the_order_in_which_a_warm_up_lists_its_inputs_does_not_change_the_text() -> None:
    face = Interface(inputs=(tensor("a", 1), tensor("b", 1)), outputs=(tensor("y", 1),))
    sent = {name: WarmupInput(dtype=DType.FLOAT32, dims=(1,), file=name) for name in "ab"}
    backwards = dict(reversed(sent.items()))

    texts = {render(config(face, warmups=[Warmup(name="s", inputs=order)])) for order in (sent, backwards)}

    assert len(texts) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name: "net"\nmax_batch: 8\n', r"config\.pbtxt, line 2: .*max_batch"),
        ('name: "net"\n\nmax_batch_size: "eight"\n', r"config\.pbtxt, line 3: .*eight"),
        ("input {\n  name: 3\n}\n", r"config\.pbtxt, line 2: "),
        ("input {\n  data_type: TYPE_FLOAT\n}\n", r"config\.pbtxt, line 2: .*TYPE_FLOAT"),
    ],
)
def test_a_text_that_is_no_configuration_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse(text)


def test_the_error_calls_the_file_what_the_caller_calls_it() -> None:
    with pytest.raises(InputError, match=r"^models/net/config\.pbtxt, line 1: "):
        parse("nonsense", where="models/net/config.pbtxt")


@given(st.text() | st.from_regex(r'(name|input|dims|backend|model_warmup)( \{|: (1|"x"|\[))[ a-z0-9\n{}:"\[\]]*'))
def test_any_text_is_parsed_or_refused_with_a_hint(text: str) -> None:
    hint = "nothing to mend"
    try:
        parse(text)
    except ConvkitError as error:
        hint = error.hint
    assert hint


def test_a_sound_configuration_has_no_findings() -> None:
    assert lint(config(warmups=[warmup()]), folder="net") == []


@pytest.mark.parametrize(
    ("correct", "wrong", "code"),
    [
        ('name: "net"', 'name: "other"', "triton.name-mismatch"),
        ("max_batch_size: 8", "", "triton.batching-without-batch"),
        ("dims: [19]", "dims: [0]", "triton.bad-dims"),
        ("dims: [19]", "dims: [-2]", "triton.bad-dims"),
        ("dims: [19]", "", "triton.bad-dims"),
        ("data_type: TYPE_FP32\n  dims: [19]", "dims: [19]", "triton.no-data-type"),
        (
            "dims: [19]",
            "dims: [19]\n}\noutput {\n  name: 'probs' data_type: TYPE_FP32 dims: 1",
            "triton.duplicate-tensor",
        ),
        ("max_queue_delay_microseconds: 100", "preferred_batch_size: [4, 16]", "triton.preferred-batch-too-large"),
    ],
)
def test_a_fault_in_a_written_configuration_is_found(correct: str, wrong: str, code: str) -> None:
    text = render(config())
    assert correct in text

    findings = lint(parse(text.replace(correct, wrong)), folder="net")

    assert [finding.code for finding in findings] == [code]


def test_an_empty_reshape_without_a_batch_is_found() -> None:
    made = config(interface(batch=0))
    made.output[0].reshape.SetInParent()

    assert [finding.code for finding in lint(made)] == ["triton.empty-reshape"]


def test_no_output_is_found() -> None:
    made = config()
    del made.output[:]

    assert [finding.code for finding in lint(made)] == ["triton.no-output"]


def test_numbers_are_sent_little_endian_in_c_order() -> None:
    big_endian_in_columns = np.asfortranarray(np.array([[1, 2], [3, 4]], dtype=">i2"))

    assert wire_bytes(big_endian_in_columns) == bytes([1, 0, 2, 0, 3, 0, 4, 0])


@pytest.mark.parametrize("kind", [object, "U", "S"])
def test_strings_are_sent_each_with_its_length(kind: Any) -> None:
    words = ["ab", "", "c"] if kind != "S" else [b"ab", b"", b"c"]

    assert wire_bytes(np.array(words, dtype=kind)) == b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"


def test_a_string_is_sent_as_utf_8() -> None:
    assert wire_bytes(np.array("ö", dtype=object)) == b"\x02\0\0\0\xc3\xb6"


FRESH_PROCESS = {
    "no grpc, numpy or onnx is loaded for a configuration": (
        "import sys, convkit.serving.triton as t; t.parse('name: \"x\"');"
        "heavy = {'grpc', 'numpy', 'onnx', 'tritonclient.grpc'} & set(sys.modules); assert not heavy, heavy"
    ),
    "the module itself loads no protobuf": (
        "import sys, convkit.serving.triton; assert not any(name.startswith('google') for name in sys.modules)"
    ),
    "tritonclient.grpc can be imported afterwards and has the same classes": (
        "from convkit.serving.triton import parse; made = parse('name: \"x\"');"
        "import tritonclient.grpc; from tritonclient.grpc import model_config_pb2, service_pb2;"
        "assert type(made) is model_config_pb2.ModelConfig;"
        "assert service_pb2.ModelConfigResponse(config=made).config.name == 'x'"
    ),
    "tritonclient.grpc can be imported before and has the same classes": (
        "import tritonclient.grpc; from convkit.serving.triton import parse;"
        "assert type(parse('name: \"x\"')) is tritonclient.grpc.model_config_pb2.ModelConfig"
    ),
}


@pytest.mark.parametrize("program", FRESH_PROCESS.values(), ids=FRESH_PROCESS.keys())
def test_in_a_fresh_process(program: str) -> None:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
