"""A built engine's layers in the report, in every form."""

from __future__ import annotations

from convkit.graph.engine_layers import EngineLayer, EngineLayers, Placed
from convkit.report.engine import engine_inside
from convkit.report.engine_sheet import SHOWN, engine_sections
from convkit.report.render import Format, render
from report.samples import faster_report

CONV = EngineLayer(name="conv + relu", kind="CaskConvolution", nodes=("conv", "relu"), inputs=("int8",))
GEMM = EngineLayer(name="gemm", kind="gemm", nodes=("gemm",), inputs=("fp16",), weights=("fp16",))
FOUND = EngineLayers(
    layers=(CONV, GEMM),
    seen_by="TensorRT 11.4.0.106",
    told_by="the engine inspector",
    memory={"weights": 2048, "activations": 1 << 20},
)
PLACED = (
    Placed(node="conv", layer="conv + relu", macs=3000, asked="int8", runs_in="int8"),
    Placed(node="gemm", layer="gemm", macs=1000, asked="int8", runs_in="fp16"),
)


def test_the_document_has_every_layer_with_its_precision_fusion_and_work() -> None:
    inside = engine_inside(FOUND, PLACED)

    assert inside is not None
    assert [(layer.precision, layer.nodes, layer.macs, layer.fell_back) for layer in inside.layers] == [
        ("int8", ("conv", "relu"), 3000, False),
        ("fp16", ("gemm",), 1000, True),
    ]
    assert (inside.fused, inside.weights_bytes, inside.activations_bytes, inside.scratch_bytes) == (
        1,
        2048,
        1 << 20,
        None,
    )


def test_every_form_shows_what_fell_back_and_how_much_memory_it_takes() -> None:
    report = faster_report(inside=engine_inside(FOUND, PLACED))

    for form in (Format.TERMINAL, Format.HTML, Format.MARKDOWN):
        text = render(report, form, width=200).replace("<wbr>", "")
        assert "CaskConvolution" in text, form
        assert "gemm runs in fp16" in text, form
        assert "1.00 MiB" in text, form


def test_a_report_without_a_built_engine_has_no_such_section() -> None:
    assert engine_inside(None, ()) is None
    assert list(engine_sections(faster_report())) == []


def test_an_engine_of_many_layers_shows_those_that_multiply_most() -> None:
    many = tuple(EngineLayer(name=f"layer {number}", kind="gemm") for number in range(SHOWN + 5))
    last = Placed(node="n", layer=many[-1].name, macs=9, asked="int8", runs_in="int8")

    report = faster_report(inside=engine_inside(EngineLayers(layers=many, seen_by="x", told_by="y"), (last,)))

    _, layers = engine_sections(report)
    assert layers.table is not None
    assert layers.table.rows[0][0] == many[-1].name
    assert len(layers.table.rows) == SHOWN
    assert "5 more layers" in layers.lines[0]
