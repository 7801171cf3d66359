"""What a report says got worse or better follows from its numbers."""

from __future__ import annotations

from msgspec.structs import replace

from convkit.report.document import Role, Status
from convkit.report.latency import Comparison, Finding
from convkit.report.verdict import finding, improved, moved, worsened
from tests.report.samples import FP32, INT8, TORCH, failed_report, faster_report, slower_report, with_verdict


def first_words(sentences: tuple[str, ...]) -> list[str]:
    return [sentence.partition(":")[0] for sentence in sentences]


def test_what_got_worse_is_said_worst_first() -> None:
    assert first_words(slower_report().worse) == ["SLOWER", "SLOWER", "LARGER", "LARGER"]


def test_slower_than_the_baseline_comes_before_slower_than_the_source() -> None:
    first, second, *_ = slower_report().worse

    assert first == (
        f"SLOWER: {INT8} takes 6.29 times as long as {FP32} (95% interval 6.13 to 6.45; p50 241 ms against 38.3 ms)."
    )
    assert f"as long as {TORCH}" in second


def test_faster_and_smaller_is_said_too() -> None:
    assert first_words(improved(faster_report())) == ["Faster", "Faster", "Smaller", "Smaller", "Simpler"]
    assert "3.22 times as fast as ONNX FP32 (95% interval 3.15 to 3.29" in improved(faster_report())[0]
    assert "Smaller: ONNX INT8 is 24.7 MiB, 25.3% of the 97.4 MiB of ONNX FP32." in improved(faster_report())


def test_a_comparison_that_is_not_conclusive_makes_nothing_slower_or_faster() -> None:
    unclear = Comparison(
        before=FP32, after=INT8, speedup=0.97, low=0.93, high=1.02, rounds=12, finding=Finding.INCONCLUSIVE
    )
    report = with_verdict(faster_report(), comparisons=(unclear,))

    assert "SLOWER" not in first_words(report.worse)
    assert "Faster" not in first_words(improved(report))
    assert finding(unclear) == "inconclusive"
    assert finding(replace(unclear, rounds=5)) == "too few rounds"
    assert finding(replace(unclear, finding=Finding.SAME)) == "less than 1.5 %"


def test_the_baseline_may_be_slower_than_the_source_without_a_word_on_the_final_model() -> None:
    other = Comparison(before=TORCH, after=FP32, speedup=0.5, low=0.49, high=0.51, rounds=12, finding=Finding.SLOWER)

    assert "SLOWER" not in first_words(with_verdict(faster_report(), comparisons=(other,)).worse)


def test_an_emulated_engine_is_called_slower_with_that_word() -> None:
    report = slower_report()
    *before, final = report.subjects

    assert worsened(replace(report, subjects=(*before, replace(final, emulated=True))))[0].startswith(
        "SLOWER, emulated on this CPU: "
    )


def test_an_output_that_missed_its_tolerance_is_wrong_and_the_furthest_is_named() -> None:
    (sentence,) = failed_report().worse

    assert sentence.startswith("WRONG: output 'StatefulPartitionedCall/resnet50/avg_pool/Mean:0' of ONNX INT8")
    assert "SQNR 4.21 dB; asked: SQNR >= 20 dB" in sentence


def test_an_output_that_is_not_finite_is_the_furthest_off() -> None:
    report = failed_report()
    exported, final = report.checks
    first, second = final.outputs
    broken = replace(first, max_abs=None, max_rel=None, cosine=None, sqnr_db=None)

    (sentence,) = worsened(replace(report, checks=(exported, replace(final, outputs=(broken, second)))))

    assert "output 'probs'" in sentence
    assert "not finite" in sentence


def test_outputs_that_a_low_precision_moved_as_far_as_was_allowed_are_a_fact_and_no_bad_news() -> None:
    report = faster_report()

    assert report.worse == ()
    (sentence,) = moved(report)
    assert sentence.startswith("Less exact, within what was asked for: output 'StatefulPartitionedCall/")
    assert "SQNR 22.6 dB; asked: SQNR >= 20 dB" in sentence


def test_full_precision_within_its_tolerance_is_not_called_less_exact() -> None:
    assert moved(with_verdict(faster_report(), precision="none")) == ()


def test_a_low_precision_without_any_difference_is_not_called_less_exact() -> None:
    report = faster_report()
    exported, final = report.checks
    same = tuple(replace(output, max_abs=0.0, max_rel=0.0, cosine=1.0, sqnr_db=None) for output in final.outputs)

    assert moved(with_verdict(report, checks=(exported, replace(final, outputs=same)))) == ()


def test_a_few_bytes_more_are_not_called_larger() -> None:
    report = faster_report()
    source, baseline, final = report.subjects
    assert baseline.file_bytes is not None
    heavier = replace(final, file_bytes=baseline.file_bytes + 4096)

    assert "LARGER" not in first_words(with_verdict(report, subjects=(source, baseline, heavier)).worse)


def test_a_failed_run_without_subjects_has_nothing_to_compare() -> None:
    report = with_verdict(failed_report(), subjects=(), checks=(), simplification=None)

    assert report.status is Status.FAILED
    assert report.subject(Role.FINAL) is None
    assert report.worse == improved(report) == ()
