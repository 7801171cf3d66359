"""Reports made up for the tests of the renderers: every field filled, figures of a plausible size."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from convkit.measure.gates import Gate, Verdict
from convkit.report.document import (
    Calibration,
    Caution,
    Check,
    Engine,
    Failure,
    Machine,
    OutputDifference,
    Report,
    Role,
    Simplification,
    Source,
    Stage,
    Status,
    Subject,
    Verification,
)
from convkit.report.latency import Comparison, Finding, Latency
from convkit.report.verdict import worsened

TORCH, FP32, INT8 = "torch 2.13.0", "ONNX FP32", "ONNX INT8"

_EXPORTED = {"Conv": 53, "BatchNormalization": 53, "Relu": 49, "Add": 16, "Identity": 12, "MaxPool": 1, "Gemm": 1}
_SIMPLE = {"Conv": 53, "Relu": 49, "Add": 16, "MaxPool": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
_QUANTIZED = {"DequantizeLinear": 264, "QuantizeLinear": 123, **_SIMPLE}


def latency(p50: float) -> Latency:
    """Return a latency whose other figures follow from its median, in ms."""
    return Latency(
        p50_ms=p50,
        p90_ms=p50 * 1.09,
        p99_ms=p50 * 1.31,
        mean_ms=p50 * 1.03,
        low_ms=p50 * 0.985,
        high_ms=p50 * 1.02,
        calls=1430,
        rounds=12,
        batch=1,
    )


def faster_report(**changes: Any) -> Report:
    """Return the report of a conversion to INT8 that made the model faster and smaller, and less exact."""
    outputs = (
        OutputDifference(name="probs", max_abs=0.0312, max_rel=0.418, cosine=0.998713, sqnr_db=25.93),
        OutputDifference(
            name="StatefulPartitionedCall/resnet50/avg_pool/Mean:0",
            max_abs=0.1457,
            max_rel=1.93,
            cosine=0.997402,
            sqnr_db=22.64,
        ),
    )
    report = Report(
        status=Status.OK,
        exit_code=0,
        repository="models",
        model="models/resnet50",
        name="resnet50",
        version=3,
        engine=Engine.NONE,
        report="models/resnet50/3/convkit/report.json",
        stages=(
            Stage(name="source", seconds=9.43, peak_bytes=1_018_167_296, cached=True, title="Export to ONNX"),
            Stage(name="simplify", seconds=1.71, peak_bytes=611_319_808, cached=False, title="Simplify the graph"),
            Stage(name="calibrate", seconds=6.02, peak_bytes=943_718_400, cached=False, title="Collect ranges"),
            Stage(name="quantize", seconds=2.25, peak_bytes=702_545_920, cached=False, title="Quantize to INT8"),
            Stage(name="check", seconds=0.871, peak_bytes=402_653_184, cached=False, title="Check the numbers"),
            Stage(name="measure", seconds=83.2, peak_bytes=524_288_000, cached=False, title="Measure in alternation"),
            Stage(name="publish", seconds=0.0314, peak_bytes=0, cached=False, title="Publish"),
        ),
        verification=Verification(passed=True, outputs=outputs),
        gates=(
            Gate(name="min-sqnr", asked=20.0, found=22.64, verdict=Verdict.PASSED),
            Gate(name="min-speedup", asked=2.0, found=None, verdict=Verdict.DEFERRED),
        ),
        warnings=(Caution(code="calibrate.few-samples", message="32 samples are few: 100 and more are usual"),),
        created=datetime(2026, 11, 20, 9, 41, 7, tzinfo=UTC),
        convkit="0.1.0",
        target="onnxruntime",
        precision="int8",
        source=Source(
            name="resnet50.pth",
            digest="sha256:" + "5e1f09ac" * 8,
            kind="state dict with model.py",
            framework="torch 2.13.0",
            exporter="torch.onnx.export (dynamo), opset 18",
            parameters=25_557_032,
        ),
        subjects=(
            Subject(
                label=TORCH,
                role=Role.SOURCE,
                file_bytes=102_540_417,
                parameters=25_557_032,
                latency=latency(46.2),
                throughput_per_s=21.1,
            ),
            Subject(
                label=FP32,
                role=Role.BASELINE,
                file_bytes=102_146_730,
                parameters=25_503_912,
                nodes=122,
                operators=_SIMPLE,
                initializer_bytes=102_015_648,
                latency=latency(38.3),
                throughput_per_s=25.4,
            ),
            Subject(
                label=INT8,
                role=Role.FINAL,
                file_bytes=25_885_215,
                parameters=25_530_472,
                nodes=509,
                operators=_QUANTIZED,
                initializer_bytes=25_716_388,
                latency=latency(11.9),
                throughput_per_s=81.6,
            ),
        ),
        comparisons=(
            Comparison(before=TORCH, after=INT8, speedup=3.88, low=3.79, high=3.97, rounds=12, finding=Finding.FASTER),
            Comparison(before=FP32, after=INT8, speedup=3.22, low=3.15, high=3.29, rounds=12, finding=Finding.FASTER),
            Comparison(
                before=TORCH, after=FP32, speedup=1.012, low=0.981, high=1.043, rounds=12, finding=Finding.INCONCLUSIVE
            ),
        ),
        checks=(
            Check(
                subject="as exported",
                against=TORCH,
                tolerance="|a - b| <= 0.0001 + 0.001 |b|",
                cases=2,
                passed=True,
                outputs=(
                    OutputDifference(name="probs", max_abs=3.1e-7, max_rel=2.24e-5, cosine=1.0, sqnr_db=131.2),
                    OutputDifference(name="classes", max_abs=0.0, max_rel=0.0, cosine=1.0, sqnr_db=None),
                ),
            ),
            Check(subject=INT8, against=TORCH, tolerance="SQNR >= 20 dB", cases=2, passed=True, outputs=outputs),
        ),
        simplification=Simplification(
            before=_EXPORTED, after=_SIMPLE, applied=("onnxslim: 185 nodes became 122", "onnxsim: nothing gained")
        ),
        calibration=Calibration(method="entropy", samples=32, source="calibration.npz"),
        machine=Machine(
            cpu="Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz",
            cores=2,
            memory_bytes=25_769_803_776,
            os="Linux 6.1.0 x86_64",
            python="3.11.14",
        ),
        libraries={"onnx": "1.23.2", "onnxruntime": "1.31.1", "onnxslim": "0.1.98", "torch": "2.13.0"},
        measured_how=(
            "Every model ran alone, in alternation with the others, in 12 rounds after one round that does not count.",
            "Intervals are bootstrap intervals over rounds.",
        ),
        rerun="convkit report models/resnet50/3/convkit/report.json --remeasure --measure full --samples 'my data.npz'",
    )
    return with_verdict(report, **changes)


def with_verdict(report: Report, /, **changes: Any) -> Report:
    """Return a report with other fields, and what got worse written anew."""
    changed = msgspec.structs.replace(report, **changes)
    return msgspec.structs.replace(changed, worse=worsened(changed))


def slower_report() -> Report:
    """Return the report of a conversion that made everything worse."""
    report = faster_report()
    source, baseline, final = report.subjects
    slow = msgspec.structs.replace(final, latency=latency(241.0), throughput_per_s=4.12, file_bytes=110_000_000)
    return with_verdict(
        report,
        precision="dynamic",
        subjects=(source, baseline, slow),
        comparisons=(
            Comparison(
                before=TORCH, after=INT8, speedup=0.1917, low=0.188, high=0.196, rounds=12, finding=Finding.SLOWER
            ),
            Comparison(
                before=FP32, after=INT8, speedup=0.1589, low=0.155, high=0.163, rounds=12, finding=Finding.SLOWER
            ),
        ),
    )


def failed_report() -> Report:
    """Return the report of a conversion that ended at a check, so that nothing was measured or published."""
    report = faster_report()
    exported, final = report.checks
    missed = tuple(msgspec.structs.replace(output, passed=False, sqnr_db=4.21) for output in final.outputs)
    return with_verdict(
        report,
        status=Status.FAILED,
        exit_code=5,
        version=None,
        report="out/report.json",
        verification=Verification(passed=False, outputs=missed),
        checks=(exported, msgspec.structs.replace(final, passed=False, outputs=missed)),
        subjects=tuple(
            msgspec.structs.replace(subject, latency=None, throughput_per_s=None) for subject in report.subjects
        ),
        comparisons=(),
        gates=(),
        measured_how=(),
        error=Failure(
            code="check.tolerance",
            stage="check",
            message="the INT8 model's output 'probs' has 4.21 dB SQNR, at least 20 dB are asked for",
            hint="give more calibration data, or another --calibration-method",
        ),
    )
