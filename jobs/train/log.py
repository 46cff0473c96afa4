"""What a run tells: a line on the terminal, TensorBoard scalars, and `metrics.jsonl`, all at any URI."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
from tensorboardX import SummaryWriter

from jobs import storage

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class TrainingLog:
    """Metrics of one run, written by its first worker.

    Args:
        output: folder or URI of the run. On an object store, files are put again as a whole at every `flush`.
        step: where this attempt starts: lines of steps after it, from an attempt that was cut off, are dropped.
        max_steps: of the run, for the time left.
        show: takes the lines for the terminal.
    """

    def __init__(self, output: str, step: int, max_steps: int, show: Callable[[str], None]) -> None:
        self.output = output.rstrip("/")
        self.max_steps = max_steps
        self.show = show
        self._lines = [line for line in self._earlier_lines() if json.loads(line)["step"] <= step]
        self._is_local = "://" not in self.output
        self._folder = Path(self.output if self._is_local else tempfile.mkdtemp(prefix="yolact-train-"))
        self._writer = SummaryWriter(str(self._folder / TENSORBOARD_FOLDER), purge_step=step, flush_secs=30)
        self._window = (time.perf_counter(), step, 0)
        self.flush()

    def step(self, step: int, losses: Mapping[str, float], learning_rate: float, images: int) -> None:
        """Note a step: `step` updates are done, the last with these losses; `images` since the last line."""
        now = time.perf_counter()
        before, first, _ = self._window
        seconds_per_step = (now - before) / max(1, step - first)
        rate = images / max(1e-9, now - before)
        self._window = (now, step, 0)
        values = {"loss": sum(losses.values()), **losses}
        self._record(step, {**values, "learning_rate": learning_rate, "images_per_second": rate})
        left = int((self.max_steps - step) * seconds_per_step)
        parts = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        self.show(
            f"step {step}/{self.max_steps}  {parts}  lr {learning_rate:.2e}  {rate:.1f} images/s  "
            f"left {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        )

    def validation(self, step: int, scores: Mapping[str, float], seconds: float) -> None:
        """Note the scores of a validation."""
        self._record(step, {f"val_{name}": value for name, value in scores.items()})
        parts = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        self.show(f"validation at step {step}: {parts}  ({seconds:.0f} s)")
        self.flush()

    def restart_clock(self, step: int) -> None:
        """Leave what happened since the last line (a validation, a checkpoint) out of the speed."""
        self._window = (time.perf_counter(), step, 0)

    def flush(self) -> None:
        """Make everything noted so far durable."""
        self._writer.flush()
        storage.put_atomic(f"{self.output}/{METRICS_FILE}", "".join(f"{line}\n" for line in self._lines).encode())
        if not self._is_local:
            for path in self._folder.rglob("*"):
                if path.is_file():
                    storage.put_atomic(f"{self.output}/{path.relative_to(self._folder)}", path.read_bytes())

    def close(self) -> None:
        """Flush, and close TensorBoard's file."""
        self.flush()
        self._writer.close()

    def _record(self, step: int, values: Mapping[str, float]) -> None:
        self._lines.append(json.dumps({"step": step, "time": round(time.time(), 2), **_rounded(values)}))
        for name, value in values.items():
            self._writer.add_scalar(name.replace("val_", "validation/"), value, step)
        if self._is_local:
            with open(f"{self.output}/{METRICS_FILE}", "a") as file:
                file.write(self._lines[-1] + "\n")

    def _earlier_lines(self) -> list[str]:
        uri = f"{self.output}/{METRICS_FILE}"
        if not storage.exists(uri):
            return []
        lines = storage.read_bytes(uri).decode().splitlines()
        return [line for line in lines if line.endswith("}")]  # a killed writer may leave half a line


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.6g}") for name, value in values.items()}


def print_now(line: str) -> None:
    print(line, flush=True)


class Board:
    """Actor that carries lines from a worker to the driver's terminal."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, line: str) -> None:
        self.lines.append(line)

    def take(self) -> list[str]:
        """Lines since the last call."""
        lines, self.lines = self.lines, []
        return lines


class Ticker:
    """Says what comes to a board while the driver waits."""

    def __init__(self, board: Any, say: Callable[[str], None], interval_s: float = 0.5) -> None:
        self.board, self.say, self.interval_s = board, say, interval_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._print_lines, daemon=True)

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._take()

    def _print_lines(self) -> None:
        while not self._done.wait(self.interval_s):
            self._take()

    def _take(self) -> None:
        for line in ray.get(self.board.take.remote()):
            self.say(line)
