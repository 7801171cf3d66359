"""Steps that take memory and time, and start processes, for the tests of the watch over workers."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

from convkit.pipeline.artifact import new_folder
from convkit.pipeline.patience import one_run
from convkit.pipeline.step import step
from pipeline.steps import BARE

MEGABYTE = 10**6
_PIECE = 10

TAKE = "import sys, time; held = bytearray(int(sys.argv[1]) * 10**6); held[::4096] = b'x' * len(held[::4096])"


@step(version=1, stage="quantize", title="Take memory", needs=BARE)
def take_memory(*, megabytes: int) -> int:
    """Take memory piece by piece, 500 MB/s at most, and give it back."""
    held = []
    for _ in range(megabytes // _PIECE):
        held.append(b"x" * (_PIECE * MEGABYTE))
        time.sleep(0.02)
    return len(held)


@step(version=1, stage="quantize", title="Take memory in a daemon", needs=BARE)
def take_memory_in_a_daemon(*, megabytes: int, told: str) -> int:
    """Start a process that leaves the session and its parent, takes memory, and stays."""
    program = f"{TAKE}; time.sleep(60)"
    daemon = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {program!r}, {str(megabytes)!r}], start_new_session=True)\n"
        f"open({told!r}, 'w').write(str(child.pid))\n"
    )
    subprocess.run([sys.executable, "-c", daemon], check=True)
    time.sleep(60)
    return 0


@step(version=1, stage="quantize", title="Leave a daemon", needs=BARE)
def leave_a_daemon(*, told: str) -> int:
    """Start a process that leaves the session and its parent, and end well."""
    program = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid)"
    with Path(told).open("w", encoding="ascii") as stream:
        return subprocess.run([sys.executable, "-c", program], stdout=stream, check=True).returncode


@step(version=1, stage="quantize", title="Share memory", needs=BARE)
def share_memory(*, megabytes: int, processes: int, seconds: float) -> int:
    """Hold memory together with forked processes, which count it as theirs, too."""
    held = b"x" * (megabytes * MEGABYTE)
    children = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            time.sleep(seconds)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return len(held)


@step(version=1, stage="quantize", title="Map a file", needs=BARE)
def map_file(*, path: str, seconds: float) -> int:
    """Read a mapped file whole, and keep it mapped for a while."""
    with Path(path).open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        read = sum(1 for _ in range(0, len(mapped), 4096) if mapped[_] == 0)
        time.sleep(seconds)
    return read


@step(version=1, stage="compile", title="Dawdle", needs=BARE)
def dawdle(*, seconds: float) -> int:
    print("what it was doing", flush=True)
    time.sleep(seconds)
    return 0


@step(version=1, stage="measure", title="Run often", needs=BARE)
def run_often(*, runs: int, seconds: float) -> int:
    """Run something `runs` times, each time for so long."""
    for _ in range(runs):
        with one_run("a model"):
            time.sleep(seconds)
    return runs


@step(version=1, stage="measure", title="Run stubbornly", needs=BARE)
def run_stubbornly(*, seconds: float) -> int:
    """Run something for so long that does not stop when it is told to."""
    with one_run("a stubborn model"):
        time.sleep(seconds)
    return 0


@step(version=1, stage="measure", title="Count threads", needs=BARE)
def count_threads() -> tuple[int, ...]:
    """Return how many threads this process may run, and how many PyTorch, ONNX Runtime and OpenMP would."""
    import torch

    from convkit.graph.session import open_session
    from convkit.pipeline.allowance import cores

    session = open_session(_identity())
    options = session.get_session_options()
    return cores(), torch.get_num_threads(), options.intra_op_num_threads, int(os.environ["OMP_NUM_THREADS"])


def _identity() -> Path:
    """Write the smallest of models."""
    import onnx

    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "identity", tensors[:1], tensors[1:]
    )
    path = new_folder("identity") / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    return path


@step(version=1, stage="quantize", title="Take memory at once", needs=BARE)
def take_memory_at_once(*, megabytes: int) -> int:
    return len(bytes(bytearray(b"x") * (megabytes * MEGABYTE)))


@step(version=1, stage="source", title="Close folders", needs=BARE)
def close_folders() -> int:
    """Leave what cannot be removed as it stands: folders that nobody may write in, and a link to elsewhere."""
    folder = new_folder("closed") / "inner"
    folder.mkdir()
    (folder / "file").write_text("x")
    (folder / "link").symlink_to("/")
    folder.chmod(0o500)
    folder.parent.chmod(0)
    return 0
