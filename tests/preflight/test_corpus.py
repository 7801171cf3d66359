"""The corpus: every model in it is truly refused, and the check names what it should, with and without a parser."""

from __future__ import annotations

import time

import pytest
from onnx import TensorProto

from convkit.errors import StepError
from convkit.graph.mend import REPAIRS, Wanted, mend
from convkit.graph.model import Model, save_model
from convkit.graph.session import open_session, run_session
from convkit.mended import compare_mended
from convkit.sources.hand_on import face_of
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import Interface
from convkit.targets.finding import Finding, Weight
from convkit.targets.trt_api import Flavour, open_api
from convkit.targets.trt_options import ShapeRange
from convkit.targets.trt_parse import parse_rtx
from convkit.targets.trt_preflight import apply_rules, judged
from convkit.targets.trt_profiles import Profile
from preflight.corpus import Broken, corpus

CORPUS = {each.name: each for each in corpus()}
LEAST = 30
MAY_ESCAPE = 2
"""Of the whole corpus, with the parser's help or without it."""
MOST_SECONDS = 2.0
"""For one check, imports aside: the issue's bound. It takes milliseconds."""

every_model = pytest.mark.parametrize("broken", CORPUS.values(), ids=CORPUS)


def model_of(broken: Broken) -> Model:
    return save_model(broken.model, Interface(inputs=(), outputs=()))


def profiles_of(broken: Broken) -> tuple[Profile, ...]:
    if not broken.profile:
        return ()
    shapes = {
        name: ShapeRange(min=tuple(map(int, low)), opt=tuple(map(int, usual)), max=tuple(map(int, high)))
        for name, (low, usual, high) in broken.profile.items()
    }
    return (Profile(shapes=shapes),)


def names_it(findings: tuple[Finding, ...], broken: Broken) -> bool:
    """Whether node, operator, reason and fix are told, and with enough weight."""
    return any(
        (finding.node, finding.operator) == (broken.node, broken.operator)
        and finding.severity is not Weight.NOTE
        and finding.reason
        and finding.fix
        for finding in findings
    )


def check(model: Model, broken: Broken) -> tuple[Finding, ...]:
    ruled = apply_rules(model, profiles_of(broken))
    return judged(ruled.findings, parse_rtx(model), Flavour.TENSORRT_RTX)


def test_the_corpus_has_thirty_models_and_more() -> None:
    assert len(CORPUS) >= LEAST


def test_the_check_names_node_and_fix_of_all_but_two() -> None:
    escaped = [name for name, broken in CORPUS.items() if not names_it(check(model_of(broken), broken), broken)]

    assert len(escaped) <= MAY_ESCAPE, escaped


def test_convkits_own_rules_find_all_but_two_without_a_parser() -> None:
    found = {name: apply_rules(model_of(broken), profiles_of(broken)).findings for name, broken in CORPUS.items()}
    escaped = [name for name, broken in CORPUS.items() if not names_it(found[name], broken)]

    print(f"\nconvkit's own rules name {len(CORPUS) - len(escaped)} of {len(CORPUS)}; not: {', '.join(escaped) or '-'}")
    assert len(escaped) <= MAY_ESCAPE, escaped


def test_no_check_takes_longer_than_two_seconds() -> None:
    slowest = {}
    for name, broken in CORPUS.items():
        model = model_of(broken)
        start = time.monotonic()
        check(model, broken)
        slowest[name] = time.monotonic() - start

    assert max(slowest.values()) < MOST_SECONDS, slowest


@every_model
def test_the_real_parser_or_builder_refuses_it_or_its_numbers_are_others(broken: Broken) -> None:
    parsed = parse_rtx(model_of(broken))

    assert (
        parsed.findings
        or has_other_types(broken)
        or not_built(broken)
        or warns_of_other_numbers(broken)
        or cannot_run(broken)
    )


def has_other_types(broken: Broken) -> bool:
    """Whether the parsed network has an input of another type than the model."""
    network = open_api(Flavour.TENSORRT_RTX).network()
    network.parser.parse(broken.model.SerializeToString())
    float64 = any(value.type.tensor_type.elem_type == TensorProto.DOUBLE for value in broken.model.graph.input)
    return float64 and [tensor.dtype.name for tensor in network.inputs] == ["FLOAT"]


def not_built(broken: Broken) -> bool:
    """Whether TensorRT-RTX's builder fails where the parser did not."""
    api = open_api(Flavour.TENSORRT_RTX)
    network = api.network()
    assert network.parser.parse(broken.model.SerializeToString())
    config = network.builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(api.module.ComputeCapability.SM89, 0)
    if broken.profile:
        profile = network.builder.create_optimization_profile()
        for name, shapes in broken.profile.items():
            profile.set_shape(name, *shapes)
        config.add_optimization_profile(profile)
    return network.builder.build_serialized_network(network.definition, config) is None


def warns_of_other_numbers(broken: Broken) -> bool:
    api = open_api(Flavour.TENSORRT_RTX)
    network = api.network()
    network.parser.parse(broken.model.SerializeToString())
    return any("Defaulting to INT8 instead" in text for text in api.messages_of("WARNING"))


def cannot_run(broken: Broken) -> bool:
    """Whether nothing comes out, or ONNX Runtime fails, at a shape of its profile, though an engine is built."""
    import numpy as np

    session = open_session(model_of(broken).path)
    (name,) = broken.profile
    failures = 0
    for shape in broken.profile[name]:
        try:
            outputs = tuple(value.name for value in broken.model.graph.output)
            answer = run_session(session, outputs, {name: np.ones(shape, np.float32)})
            failures += not all(array.size for array in answer.values())
        except StepError:
            failures += 1
    return failures > 0


@pytest.mark.parametrize("broken", [each for each in CORPUS.values() if each.mended], ids=lambda each: str(each.name))
def test_what_can_be_mended_is_taken_afterwards_with_the_same_numbers(broken: Broken) -> None:
    interface = face_of(broken.model, None, ExportOptions()).interface
    first = now = save_model(broken.model, interface)
    made: set[str] = set()
    for _ in range(4):
        findings = check(now, broken)
        wanted = {finding.mend: finding.node for finding in findings if finding.mend}
        if not wanted:
            break
        nodes = {name: tuple(each.node for each in findings if each.mend == name) for name in wanted}
        mended = mend(now, wanted=tuple(Wanted(mend=name, nodes=each) for name, each in nodes.items()))
        now = mended.model
        made |= {done.mend for done in mended.done}

    assert made
    assert [str(finding) for finding in check(now, broken) if finding.severity is Weight.ERROR] == []
    numbers = compare_mended(
        first, now, requantized="symmetric" in made, comparable=all(REPAIRS[name][2] for name in made)
    )
    assert not numbers.failed, numbers
    assert numbers.compared or numbers.why_not
