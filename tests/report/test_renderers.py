"""Four forms of one report: the same facts, the bad news first, and nothing in a name becomes markup."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from convkit.report.document import Caution, Engine, Report, Role
from convkit.report.render import Format, render
from convkit.report.units import cosine, decibel, difference, duration, milliseconds, ratio, significant, size
from tests.report.samples import failed_report, faster_report, slower_report, with_verdict

WIDTHS = (60, 80, 120)
HOSTILE = "<script>alert(1)</script> | `x` *y* [z](javascript:1) @someone"
FACTS = (
    "resnet50, version 3", "target onnxruntime", "precision int8", "2026-11-20 09:41 UTC", "convkit 0.1.0",
    "models/resnet50", "models/resnet50/3/convkit/report.json",
    "torch 2.13.0", "ONNX FP32", "ONNX INT8",
    "97.8 MiB", "97.4 MiB", "24.7 MiB", "25,557,032", "25,503,912", "24.5 MiB",
    "46.2 ms", "38.3 ms", "11.9 ms", "11.7 ms", "12.1 ms", "13.0 ms", "15.6 ms", "12.3 ms", "81.6/s", "1,430",
    "3.88 ×", "3.79 to 3.97", "3.22 ×", "1.012 ×", "0.981 to 1.043", "faster", "inconclusive",
    "min-sqnr", "22.64", "passed", "min-speedup", "deferred",
    "32 samples are few: 100 and more are usual", "calibrate.few-samples",
    "|a - b| <= 0.0001 + 0.001 |b|", "SQNR >= 20 dB", "3.1e-07", "1.000000", "131 dB", "exact",
    "0.0312", "0.418", "0.998713", "25.9 dB", "StatefulPartitionedCall/resnet50/avg_pool/Mean:0", "22.6 dB",
    "DequantizeLinear", "264", "BatchNormalization", "53", "185", "122", "509", "onnxslim: 185 nodes became 122",
    "entropy", "calibration.npz",
    "Export to ONNX (cached)", "9.43 s", "971 MiB", "Measure in alternation", "1 min 23 s", "871 ms", "1 min 34 s",
    "resnet50.pth", "state dict with model.py", "torch.onnx.export (dynamo), opset 18", "sha256:" + "5e1f09ac" * 8,
    "Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz", "24.0 GiB", "Linux 6.1.0 x86_64", "3.11.14", "onnxruntime 1.31.1",
    "in 12 rounds after one round that does not count", "Intervals are bootstrap intervals over rounds.",
    "--remeasure --measure full --samples 'my data.npz'",
)  # fmt: skip


class Page(HTMLParser):
    """The text of an HTML page, its tags, and whether every tag was closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def shown(report: Report, form: Format, **options: Any) -> str:
    """Return what a reader sees: HTML and Markdown without their markup, lines of the terminal joined."""
    written = render(report, form, **options)
    if form is Format.HTML:
        return Page(written).text
    if form is Format.MARKDOWN:
        written = html.unescape(re.sub(r"\\([^A-Za-z0-9\s])", r"\1", written.replace("<!-- -->", "")))
    return written


@pytest.mark.parametrize("fact", FACTS)
def test_every_form_shows_the_fact(fact: str) -> None:
    report = faster_report()

    assert fact in shown(report, Format.TERMINAL, width=120)
    assert fact in shown(report, Format.MARKDOWN)
    assert fact in shown(report, Format.HTML)


@pytest.mark.parametrize("form", [Format.TERMINAL, Format.MARKDOWN, Format.HTML])
def test_every_sentence_on_what_got_worse_or_how_it_was_measured_is_shown(form: Format) -> None:
    report = slower_report()

    for sentence in (*report.worse, *report.measured_how):
        assert sentence in shown(report, form, width=400)


@pytest.mark.parametrize("form", [Format.TERMINAL, Format.MARKDOWN])
def test_a_slower_model_is_told_in_the_first_line(form: Format) -> None:
    first = shown(slower_report(), form).splitlines()[0]

    assert first.removeprefix("> **").startswith("SLOWER: ONNX INT8 takes 6.29 times as long as ONNX FP32")


def test_a_slower_model_is_told_in_the_first_line_of_the_page() -> None:
    body = render(slower_report(), Format.HTML).partition("<body>")[2]

    assert re.sub("<[^>]*>", "", body).lstrip().startswith("SLOWER: ONNX INT8 takes 6.29 times as long as ONNX FP32")


@pytest.mark.parametrize("form", [Format.TERMINAL, Format.MARKDOWN, Format.HTML])
def test_a_failure_comes_with_its_hint_before_everything_else(form: Format) -> None:
    text = shown(failed_report(), form, width=200)
    order = [
        text.index(words)
        for words in (
            "FAILED in the stage check: the INT8 model's output 'probs' has 4.21 dB SQNR",
            "give more calibration data, or another --calibration-method (check.tolerance)",
            "WRONG: output",
            "Before and after",
        )
    ]

    assert order == sorted(order)


@pytest.mark.parametrize("make", [faster_report, slower_report, failed_report])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_on_the_terminal_is_wider_than_the_terminal(make: Any, width: int) -> None:
    lines = render(make(), Format.TERMINAL, width=width).splitlines()

    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_the_terminal_cuts_no_figure_short(width: int) -> None:
    text = render(faster_report(), Format.TERMINAL, width=width)

    assert "…" not in text
    for figure in ("25,557,032", "25,530,472", "0.998713", "0.981 to 1.043", "22.6 dB", "1 min 23 s", "97.4 MiB"):
        assert figure in text


def test_a_command_that_is_broken_into_lines_can_still_be_pasted() -> None:
    text = render(faster_report(), Format.TERMINAL, width=60)
    command = text[text.index("This measures again:") :].partition("\n")[2]
    command = command.partition("Whether the figures still hold")[0]

    assert " ".join(command.replace("\\\n", " ").split()) == " ".join(faster_report().rerun.split())
    assert "'my data.npz'" in command


def test_colour_is_used_only_where_it_is_asked_for() -> None:
    plain = render(slower_report(), Format.TERMINAL)
    coloured = render(slower_report(), Format.TERMINAL, color=True)

    assert "\x1b" not in plain
    assert "\x1b[1;31mSLOWER" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured).split() == plain.split()


def test_the_terminal_can_leave_out_the_details() -> None:
    brief = render(faster_report(), Format.TERMINAL, details=False)

    assert "Before and after" in brief
    assert "Steps" not in brief.splitlines()
    assert "Operators" not in brief.splitlines()


def test_the_json_form_is_the_document() -> None:
    assert msgspec.json.decode(render(faster_report(), Format.JSON), type=Report) == faster_report()


def test_the_page_needs_nothing_else_and_closes_what_it_opens() -> None:
    written = render(slower_report(), Format.HTML)
    page = Page(written)

    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "http://" not in written
    assert "https://" not in written
    assert "url(" not in written


def test_the_bars_stand_in_proportion_and_carry_their_interval() -> None:
    written = render(faster_report(), Format.HTML)
    widths = {role: float(width) for role, width in re.findall(r'class="fill (\w+)" width="([\d.]+)"', written)[:3]}

    assert widths["final"] / widths["source"] == pytest.approx(11.9 / 46.2, rel=1e-3)
    assert widths["source"] == pytest.approx(100 / 1.02, rel=1e-3)
    assert written.count('class="interval"') == 3


def test_the_page_draws_each_outputs_closeness_and_what_the_steps_cost() -> None:
    titles = re.findall(r"<figcaption><h[23]>([^<]+)", render(faster_report(), Format.HTML))

    assert titles[:3] == ["Latency p50, with its 95% interval", "File size", "Operators"]
    assert titles.count("Signal over noise of each output") == 2
    assert titles[-2:] == ["Time of the longest steps", "Peak memory of the largest steps"]


def test_every_table_of_figures_says_how_they_came_about_and_leads_to_the_command() -> None:
    page = render(faster_report(), Format.HTML)

    for key in ("before-after", "speed", "numbers-0", "numbers-1", "steps", "operators"):
        section = page[page.index(f'id="{key}"') :].partition("</section>")[0]
        assert 'class="note"' in section
        assert 'href="#again"' in section
    assert 'id="again"' in page


def everywhere(value: Any, text: str) -> Any:
    """Return JSON builtins with every string field that is free text set to `text`."""
    fixed = {"schema", "status", "engine", "verdict", "role", "created"}
    if isinstance(value, dict):
        return {
            (text if name in ("Conv", "torch") else name): member if name in fixed else everywhere(member, text)
            for name, member in value.items()
        }
    if isinstance(value, list):
        return [everywhere(member, text) for member in value]
    return text if isinstance(value, str) else value


def hostile_report(text: str) -> Report:
    return msgspec.convert(everywhere(msgspec.json.decode(render(failed_report(), Format.JSON)), text), Report)


def test_a_hostile_name_stays_text_in_html() -> None:
    written = render(hostile_report(HOSTILE), Format.HTML)

    assert "<script" not in written
    assert Page(written).open == []
    assert Page(written).text.count("<script>alert(1)</script>") > 40


def test_a_hostile_name_breaks_no_table_of_the_markdown_and_mentions_nobody() -> None:
    written = render(hostile_report(HOSTILE), Format.MARKDOWN)
    page = as_github(written)
    ordinary = as_github(render(hostile_report("name"), Format.MARKDOWN))

    assert re.findall(r"</?[a-z]\w*", page) == re.findall(r"</?[a-z]\w*", ordinary)
    assert f": {html.escape(HOSTILE)}</li>" in page.replace("<!-- -->", "")
    assert "@someone" not in re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)


def as_github(written: str) -> str:
    """Return the HTML of CommonMark with tables."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table").render(written)


@pytest.mark.parametrize(
    "message", ["1. first", "2) second", "- dash", "---", "+ plus", "# heading", "> quote", "0.5 of"]
)
def test_a_message_that_begins_like_a_list_or_heading_stays_a_sentence(message: str) -> None:
    report = with_verdict(faster_report(), warnings=(Caution(code="a.b", message=message),))

    assert f"<p>{html.escape(message)} (a.b)</p>" in as_github(render(report, Format.MARKDOWN))


def test_a_command_with_backticks_does_not_end_its_block() -> None:
    written = render(with_verdict(faster_report(), rerun="convkit report '```\nx'"), Format.MARKDOWN)

    assert "````sh\nconvkit report '```\\nx'\n````" in written


@pytest.mark.parametrize("form", [Format.TERMINAL, Format.MARKDOWN, Format.HTML])
def test_control_characters_in_names_are_written_as_escapes(form: Format) -> None:
    written = render(hostile_report("a\x1b[31mb\u202ec\x00"), form)

    assert not {"\x1b", "\u202e", "\x00"} & set(written)
    assert "x1b" in written


def test_markup_of_the_terminal_library_in_a_name_is_not_obeyed() -> None:
    assert "[bold]m[/bold] :smile:" in render(
        with_verdict(faster_report(), name="[bold]m[/bold] :smile:"), Format.TERMINAL
    )


def test_a_deferred_engine_is_called_emulated() -> None:
    report = faster_report()
    *before, final = report.subjects
    emulated = msgspec.structs.replace(final, emulated=True, label="TensorRT INT8")
    report = with_verdict(report, engine=Engine.DEFERRED, subjects=(*before, emulated))

    for form in (Format.TERMINAL, Format.MARKDOWN, Format.HTML):
        text = " ".join(shown(report, form, width=200).split())
        assert "TensorRT INT8 is emulated: its engine does not run here" in text
        assert re.search(r"\bemulated\)", text)


def test_what_was_not_measured_leaves_no_empty_rows() -> None:
    text = render(failed_report(), Format.TERMINAL)

    assert "latency" not in text
    assert "throughput" not in text
    assert "Speed" not in text.splitlines()


def test_a_report_without_anything_can_be_shown() -> None:
    bare = msgspec.structs.replace(
        failed_report(), subjects=(), stages=(), checks=(), machine=None, source=None, simplification=None, worse=(),
        verification=None, libraries={}, calibration=None, warnings=(), rerun="", name=None,
    )  # fmt: skip

    for form in Format:
        assert "check.tolerance" in render(bare, form)


def test_nothing_worse_is_said_as_such() -> None:
    report = with_verdict(faster_report(), precision="none")

    assert "Nothing that was measured got worse." in shown(report, Format.TERMINAL)
    unmeasured = tuple(msgspec.structs.replace(subject, latency=None) for subject in report.subjects)
    assert "Speed was not measured." in shown(with_verdict(report, subjects=unmeasured), Format.MARKDOWN)
    assert {subject.role for subject in unmeasured} == {Role.SOURCE, Role.BASELINE, Role.FINAL}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (significant(0.0123456), "0.0123"), (significant(9.996), "10.0"), (significant(123456), "123,456"),
        (significant(0), "0"), (ratio(1.0034), "1.003"), (ratio(3.4567), "3.46"), (ratio(0.1589), "0.159"),
        (size(999), "999 B"), (size(2048), "2.00 KiB"), (size(1_048_576), "1.00 MiB"), (size(1_047_552), "0.999 MiB"),
        (size(5 * 2**40), "5.00 TiB"), (size(None), "–"), (milliseconds(0.0456), "0.0456 ms"),
        (duration(0.0314), "31.4 ms"), (duration(59.4), "59.4 s"), (duration(59.97), "1 min 00 s"),
        (duration(3725), "62 min 05 s"),
        (difference(0.0), "0"), (difference(3.1e-7), "3.1e-07"), (difference(None), "not finite"),
        (cosine(0.9999999), "0.999999"), (cosine(1.0), "1.000000"), (cosine(None), "–"),
        (decibel(None, max_abs=0.0), "exact"), (decibel(None, max_abs=None), "–"),
        (decibel(-3.5, max_abs=2.0), "-3.50 dB"),
    ],
)  # fmt: skip
def test_figures_have_three_digits_and_a_unit(written: str, expected: str) -> None:
    assert written == expected
