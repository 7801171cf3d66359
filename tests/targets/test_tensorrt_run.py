"""Finding a GPU and running an engine, against stand-ins for the driver and for the runtime."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convkit.errors import MissingError, StepError
from convkit.graph.model import save_tensors
from convkit.pipeline.artifact import Artifact, gather
from convkit.pipeline.events import Event
from convkit.spec.tensor import DType, Interface, TensorSpec
from convkit.targets import cuda_driver, trt_run, trt_session
from convkit.targets.cuda_driver import Gpu, driver_present, gpu, gpu_name
from convkit.targets.cuda_memory import device_memory
from convkit.targets.trt_api import Api, Flavour
from convkit.targets.trt_run import answer_tensorrt, run_tensorrt, time_on_device, time_tensorrt
from convkit.targets.trt_session import output_allocator
from targets.fake_nvidia import FakeCuda, FakeEngine, FakeTensorRT
from targets.tensorrt_networks import warnings_of

Install = Callable[[FakeCuda | None], None]
FAKE_GPU = Gpu(name="NVIDIA Fake", compute_capability="8.9", cuda="13.2")
PROFILES = [((1, 2), (4, 2), (4, 2)), ((5, 2), (8, 2), (16, 2))]


@pytest.fixture
def use_driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(library: FakeCuda | None) -> None:
        def load(name: str) -> FakeCuda:
            assert name == "libcuda.so.1"
            if library is None:
                raise OSError("cannot open shared object file")
            return library

        forget()
        monkeypatch.setattr(cuda_driver, "ctypes", SimpleNamespace(**{**vars(ctypes), "CDLL": load}))

    def forget() -> None:
        cuda_driver.driver.cache_clear()
        cuda_driver.gpu.cache_clear()

    yield install
    forget()


def test_a_gpu_is_described_by_its_driver(use_driver: Install) -> None:
    use_driver(FakeCuda())

    assert driver_present()
    assert gpu() == Gpu(name="NVIDIA Fake", compute_capability="8.9", cuda="13.2")
    assert gpu_name() == "NVIDIA Fake"


@pytest.mark.parametrize(
    "library",
    [None, FakeCuda(initialized=100), FakeCuda(devices=0)],
    ids=["no library", "a driver that does not start", "no device"],
)
def test_there_is_no_gpu_without_a_driver_that_works(library: FakeCuda | None, use_driver: Install) -> None:
    use_driver(library)

    assert not driver_present()
    assert gpu() is None
    assert gpu_name() is None


@pytest.fixture
def engine_file(tmp_path: Path) -> Artifact:
    (tmp_path / "model.plan").write_bytes(b"plan")
    return gather(tmp_path)


def use_engine(engine: FakeEngine | None, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = FakeTensorRT(engine)
    monkeypatch.setattr(trt_session, "open_api", lambda flavour: Api(Flavour(flavour), module))


def case(rows: int) -> dict[str, Any]:
    return {"x": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)}


def test_an_engine_answers_every_case_in_a_profile_that_takes_it(
    use_driver: Install, engine_file: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, engine = FakeCuda(), FakeEngine(PROFILES)
    use_driver(cuda)
    use_engine(engine, monkeypatch)

    answers = list(run_tensorrt(engine_file, save_tensors([case(3), case(7)])))

    assert [answer["y"].tolist() for answer in answers] == [(2 * case(rows)["x"]).tolist() for rows in (3, 7)]
    assert engine.used_profiles == [0, 1]
    assert cuda.everything_is_given_back()


@pytest.mark.parametrize(
    ("profiles", "portions"),
    [
        (PROFILES, [16, 16, 5]),
        ([((1, 2), (4, 2), (40, 2))], [32, 5]),
        ([((4, 2), (4, 2), (4, 2))], 10 * [4]),
    ],
    ids=["portions of the largest", "all at once", "a fixed batch"],
)
def test_evaluation_data_are_answered_in_portions_that_a_profile_takes(
    profiles: Any, portions: list[int], use_driver: Install, engine_file: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:

    cuda, engine = FakeCuda(), FakeEngine(profiles)
    use_driver(cuda)
    use_engine(engine, monkeypatch)
    rows = save_tensors([case(37)]).files
    pairs, doubled = (TensorSpec(name=name, dtype=DType.FLOAT32, dims=("n", 2)) for name in "xy")
    interface = Interface(inputs=(pairs,), outputs=(doubled,))

    answers = list(
        answer_tensorrt(engine_file, interface=interface, data=rows, outputs=("y",), at_most=None, on=FAKE_GPU)
    )

    assert [len(answer["y"]) for answer in answers] == [32, 5], "a set for each batch, as the source's answers"
    np.testing.assert_array_equal(np.concatenate([answer["y"] for answer in answers]), 2 * case(37)["x"])
    assert engine.used_rows == portions
    assert cuda.everything_is_given_back()


def test_a_shape_outside_every_profile_is_named(
    use_driver: Install, engine_file: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda()
    use_driver(cuda)
    use_engine(FakeEngine(PROFILES), monkeypatch)

    with pytest.raises(StepError, match=r"has no profile for 'x' \[17, 2\]"):
        run_tensorrt(engine_file, save_tensors([case(17)]))
    assert cuda.everything_is_given_back()


def test_an_output_whose_size_depends_on_the_data_has_the_size_that_it_turned_out_to_have(
    use_driver: Install, engine_file: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda()
    use_driver(cuda)
    use_engine(FakeEngine(PROFILES, data_dependent=True, cuda=cuda), monkeypatch)
    signed = {"x": np.array([[1, 2], [-3, 4], [5, 6]], np.float32)}
    none = {"x": np.array([[-1, 2]], np.float32)}

    answers = list(run_tensorrt(engine_file, save_tensors([signed, case(3), none])))

    assert [answer["y"].tolist() for answer in answers] == [[[2, 4], [10, 12]], [[4, 6], [8, 10]], []]
    assert cuda.everything_is_given_back()


def test_room_for_such_an_output_grows_and_is_used_again(use_driver: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    use_driver(cuda)
    api: Any = SimpleNamespace(module=FakeTensorRT())
    with device_memory() as memory:
        output = output_allocator(api, memory)
        first = output.reallocate_output_async("y", 0, 100, 256, memory.stream)
        assert output.reallocate_output("y", first, 60, 256) == first
        larger = output.reallocate_output("y", first, 4000, 256)
        assert list(cuda.memory) == [larger], "what was too small is given back"
        output.notify_shape("y", [2, 500])
        assert output.shape == (2, 500)
    assert cuda.everything_is_given_back()


def test_a_plan_that_the_runtime_does_not_load_is_an_error_that_says_what_to_do(
    use_driver: Install, engine_file: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_driver(FakeCuda())
    use_engine(None, monkeypatch)

    with pytest.raises(StepError) as refused:
        run_tensorrt(engine_file, save_tensors([case(2)]))

    assert refused.value.message == "TensorRT 11.4.0.106 cannot load model.plan"
    assert "build it here again" in refused.value.hint


def test_a_full_gpu_is_the_drivers_error_and_everything_is_given_back(
    use_driver: Install, engine_file: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda(fails="cuMemcpyHtoDAsync_v2")
    use_driver(cuda)
    use_engine(FakeEngine(PROFILES), monkeypatch)

    with pytest.raises(StepError) as full:
        run_tensorrt(engine_file, save_tensors([case(2)]))

    assert full.value.code == "gpu.driver"
    assert "cuMemcpyHtoDAsync returned CUresult 2" in full.value.message
    assert cuda.everything_is_given_back()


def test_an_engine_is_not_run_where_there_is_no_gpu(use_driver: Install, engine_file: Artifact) -> None:
    use_driver(None)

    with pytest.raises(MissingError) as missing:
        trt_run.run_rtx(engine_file, save_tensors([case(2)]))

    assert missing.value.code == "gpu.missing"


@pytest.fixture
def no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_run, "WARM_UP_S", 0)


def test_an_engine_is_timed_with_its_copies(
    use_driver: Install, engine_file: Artifact, monkeypatch: pytest.MonkeyPatch, no_warm_up: None
) -> None:
    cuda = FakeCuda()
    engine = FakeEngine(PROFILES, cuda=cuda)
    use_driver(cuda)
    use_engine(engine, monkeypatch)
    copied: list[str] = []
    for name in ("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2"):
        copy = getattr(FakeCuda, name)
        monkeypatch.setattr(FakeCuda, name, lambda *given, copy=copy, name=name: copied.append(name) or copy(*given))

    timing = time_tensorrt(engine_file, inputs=save_tensors([case(3), case(7)]), seconds=0, on=FAKE_GPU)

    assert len(timing.latencies_ns) == 1
    assert copied == ["cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2"]
    assert (engine.runs, cuda.launches) == (1, 0), "and without a CUDA graph"
    assert engine.used_profiles == [0], "the first case alone"
    assert cuda.everything_is_given_back()


def test_an_engine_is_timed_as_a_cuda_graph_without_copies(
    use_driver: Install, engine_file: Artifact, monkeypatch: pytest.MonkeyPatch, no_warm_up: None
) -> None:
    cuda = FakeCuda()
    engine = FakeEngine(PROFILES, cuda=cuda)
    use_driver(cuda)
    use_engine(engine, monkeypatch)
    copies: list[int] = []
    send = FakeCuda.cuMemcpyHtoDAsync_v2
    monkeypatch.setattr(FakeCuda, "cuMemcpyHtoDAsync_v2", lambda *given: copies.append(1) or send(*given))

    timing = time_on_device(engine_file, inputs=save_tensors([case(3)]), seconds=0, on=FAKE_GPU)

    assert len(timing.latencies_ns) == 1
    assert cuda.launches == 1
    assert engine.runs == 2, "once for TensorRT to settle, once from the graph"
    assert len(copies) == 1
    assert cuda.everything_is_given_back()


@pytest.mark.parametrize("how", [{"data_dependent": True}, {"fails": True}], ids=["unknown sizes", "refuses"])
def test_an_engine_that_no_graph_can_hold_is_timed_without_one_and_that_is_said(
    how: dict[str, bool],
    use_driver: Install,
    engine_file: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    happened: list[Event],
    no_warm_up: None,
) -> None:
    cuda = FakeCuda()
    engine = FakeEngine(PROFILES, cuda=cuda, **how)
    use_driver(cuda)
    use_engine(engine, monkeypatch)

    time_on_device(engine_file, inputs=save_tensors([case(3)]), seconds=0, on=FAKE_GPU)

    assert cuda.launches == 0
    assert engine.runs == 2
    assert warnings_of(happened) == ["tensorrt.no-cuda-graph"]
    assert cuda.everything_is_given_back()


def test_an_engine_warms_up_for_a_fifth_of_a_second(
    use_driver: Install, engine_file: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda()
    engine = FakeEngine(PROFILES, cuda=cuda)
    use_driver(cuda)
    use_engine(engine, monkeypatch)
    clock = iter(0.05 * tick for tick in range(100))
    monkeypatch.setattr(trt_run, "time", SimpleNamespace(perf_counter=lambda: next(clock)))

    time_tensorrt(engine_file, inputs=save_tensors([case(3)]), seconds=0, on=FAKE_GPU)

    assert trt_run.WARM_UP_S == 0.2
    assert engine.runs == 3 + 1, "three within 200 ms by this clock, and the one that counts"


def test_a_shape_tensor_is_read_where_the_caller_has_it(
    use_driver: Install, engine_file: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, engine = FakeCuda(), FakeEngine(PROFILES)
    use_driver(cuda)
    use_engine(engine, monkeypatch)
    monkeypatch.setattr(FakeEngine, "get_tensor_location", lambda _, name: "HOST" if name == "x" else "DEVICE")

    [answer] = run_tensorrt(engine_file, save_tensors([case(3)]))

    assert answer["y"].tolist() == (2 * case(3)["x"]).tolist()
    assert len(cuda.memory) == 0
