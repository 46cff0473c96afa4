"""What a training run records at its output URI: lines for the terminal, TensorBoard scalars, and `metrics.jsonl`."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from jobs import storage

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
#: seconds between two lines of progress while a validation runs
PROGRESS_SECONDS = 10.0


class TrainingLog:
    """Metrics of one run, written by its first worker.

    Args:
        output: folder or URI of the run. On an object store, whole files are written again at every `flush`.
        step: the step at which this attempt starts. Lines of later steps, from an attempt that was cut off, are
            dropped.
        max_steps: of the run, for the time left.
        print_line: takes the lines for the terminal.
        progress_seconds: time between two lines of progress.
    """

    def __init__(
        self,
        output: str,
        step: int,
        max_steps: int,
        print_line: Callable[[str], None],
        progress_seconds: float = PROGRESS_SECONDS,
    ) -> None:
        self.output = output.rstrip("/")
        self.max_steps = max_steps
        self.print_line = print_line
        self.progress_seconds = progress_seconds
        self._lines = [line for line in self._earlier_lines() if json.loads(line)["step"] <= step]
        self._is_local = storage.is_local(self.output)
        # TensorBoard's writer and the open metrics file need a folder of this machine
        here = storage.split_uri(self.output)[1] if self._is_local else tempfile.mkdtemp(prefix="yolact-train-")
        self._folder = Path(here)
        self._writer = SummaryWriter(str(self._folder / TENSORBOARD_FOLDER), purge_step=step, flush_secs=30)
        self._last_time, self._last_step = time.perf_counter(), step
        self._last_progress = time.perf_counter()
        self.flush()

    def step(self, step: int, losses: Mapping[str, float], learning_rate: float, images: int) -> None:
        """Record a step.

        Args:
            step: number of steps done.
            losses: of the last of them.
            learning_rate: of the last of them.
            images: learnt from since the last line.
        """
        now = time.perf_counter()
        seconds = now - self._last_time
        seconds_per_step = seconds / max(1, step - self._last_step)
        rate = images / max(1e-9, seconds)
        self._last_time, self._last_step = now, step
        values = {"loss": sum(losses.values()), **losses}
        self._record(step, {**values, "learning_rate": learning_rate, "images_per_second": rate})
        left = int((self.max_steps - step) * seconds_per_step)
        parts = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        self.print_line(
            f"step {step}/{self.max_steps}  {parts}  lr {learning_rate:.2e}  {rate:.1f} images/s  "
            f"left {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        )

    def skipped(self, step: int, reason: str, total: int) -> None:
        """Record a step that changed no weights; `total` such steps so far."""
        self._record(step, {"skipped": total})
        self.print_line(f"step {step}/{self.max_steps} skipped: {reason} ({total} skipped so far)")

    def validation(self, step: int, scores: Mapping[str, float], seconds: float) -> None:
        """Record the scores of a validation."""
        self._record(step, {f"val_{name}": value for name, value in scores.items()})
        parts = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        self.print_line(f"validation at step {step}: {parts}  ({seconds:.0f} s)")
        self.flush()

    def validation_progress(self, done: int, total: int) -> None:
        """Print how many images of a validation are done, every few seconds."""
        now = time.perf_counter()
        if now - self._last_progress >= self.progress_seconds:
            self._last_progress = now
            self.print_line(f"validating: {done} of {total} images")

    def restart_clock(self, step: int) -> None:
        """Restart the clock of the speed, so that a validation or a checkpoint does not count."""
        self._last_time, self._last_step = time.perf_counter(), step

    def flush(self) -> None:
        """Write everything recorded so far to the output."""
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
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        self._lines.append(json.dumps({"step": step, "time": round(time.time(), 2), **rounded}))
        for name, value in values.items():
            self._writer.add_scalar(name.replace("val_", "validation/"), value, step)
        if self._is_local:
            with open(self._folder / METRICS_FILE, "a") as file:
                file.write(self._lines[-1] + "\n")

    def _earlier_lines(self) -> list[str]:
        uri = f"{self.output}/{METRICS_FILE}"
        if not storage.exists(uri):
            return []
        lines = storage.read_bytes(uri).decode().splitlines()
        return [line for line in lines if line.endswith("}")]  # a killed writer may leave half a line
