"""`yolact COMMAND …`, the same as `python -m jobs COMMAND …`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import select
import sys
from typing import Annotated, Any

import tyro

from jobs.runtime.errors import EXIT_OK, EXIT_OUTPUT_CLOSED, EXIT_USAGE, UsageError, exit_code_of

#: command → (its config class in `jobs.<module>`, one line of help); a module is imported when its command is used
COMMANDS = {
    "label": ("LabelConfig", "label a lake of images: instance masks as Parquet"),
    "export": ("ExportConfig", "write labels for another tool: COCO, YOLO, Label Studio, PNG, GeoJSON, WebDataset"),
    "report": ("ReportConfig", "a page that shows how good the labels are: images, review queue, numbers"),
    "train": ("TrainConfig", "train or fine-tune a model on COCO annotations or on labels"),
    "evaluate": ("EvaluateConfig", "average precision of a label table against COCO ground truth"),
    "export-model": ("ExportModelConfig", "write the model for other runtimes: ONNX and torch.export, checked"),
    "bench": ("BenchConfig", "images/s of your images on this hardware, what limits them, hours and money of a run"),
    "plates": ("PlatesConfig", "draw a lake of synthetic microscopy plates with ground truth"),
    "demo": ("DemoConfig", "draw a small lake, label it, show the result"),
}
#: shells that tyro writes completion scripts for
SHELLS = ("bash", "zsh", "fish", "tcsh")


def overview() -> str:
    """The commands, one a line."""
    lines = [
        "usage: yolact COMMAND [OPTIONS]   (yolact COMMAND --help explains every option)",
        "       yolact --version",
        "",
    ]
    return "\n".join(lines + [f"  {name:<14}{help_line}" for name, (_, help_line) in COMMANDS.items()])


def parse_config(command: str, arguments: list[str]) -> Any:
    """Turn flags into the command's frozen config; a bad flag is `UsageError` in one line."""
    module = importlib.import_module("jobs." + command.replace("-", "_"))
    config_class = getattr(module, COMMANDS[command][0])
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(config_class, args=arguments, prog=f"yolact {command}", description=module.__doc__)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        message = _first_paragraph(printed.getvalue())
        raise UsageError(f"{message} (see: yolact {command} --help)") from None


def print_completion(shells: list[str]) -> int:
    """Print the completion script of one shell for all commands: `yolact --tyro-print-completion bash`."""
    if len(shells) != 1 or shells[0] not in SHELLS:
        raise UsageError(f"--tyro-print-completion takes one of: {', '.join(SHELLS)}")
    choices: Any = None
    for command, (config_class, help_line) in COMMANDS.items():
        module = importlib.import_module("jobs." + command.replace("-", "_"))
        choice: Any = Annotated[getattr(module, config_class), tyro.conf.subcommand(command, description=help_line)]
        choices = choice if choices is None else choices | choice
    try:
        tyro.cli(choices, args=["--tyro-print-completion", *shells], prog="yolact")
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise
    return EXIT_OK


def _first_paragraph(boxed: str) -> str:
    """tyro draws an error as a box over several lines; what stands above its first rule is the message."""
    words: list[str] = []
    for line in boxed.splitlines()[1:]:
        content = line.strip("│╭╮╰╯ ")
        if not content or set(content) == {"─"}:
            break
        words.append(content)
    return " ".join(words).replace("Missing from yolact", "missing for yolact") or "these arguments do not fit"


def run_command(command: str, arguments: list[str]) -> int:
    """Run one command with its flags; returns its exit code. Raises `UsageError` and `JobError`."""
    if command not in COMMANDS:
        raise UsageError(f"unknown command {command!r}; choose one of: {', '.join(COMMANDS)}")
    config = parse_config(command, arguments)
    module = importlib.import_module("jobs." + command.replace("-", "_"))
    exit_code: int = module.run(config)
    return exit_code


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code (see `jobs.runtime.errors`).

    A reader of the output that ends before the command, such as `head`, ends the command without a message.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            return _answer(arguments)
        finally:
            # here, and not when Python exits, which would print a traceback
            sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads_stdout():
            raise
        # Python writes the rest of its buffer when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OUTPUT_CLOSED
    except KeyboardInterrupt:
        print("yolact: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def _nobody_reads_stdout() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _answer(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return EXIT_OK if arguments else EXIT_USAGE
    if arguments[0] == "--version":
        print(f"yolact {importlib.metadata.version('yolact-ray')}")
        return EXIT_OK
    if arguments[0] == "--tyro-print-completion":
        return exit_code_of(lambda: print_completion(arguments[1:]))
    return exit_code_of(lambda: run_command(arguments[0], arguments[1:]))


if __name__ == "__main__":
    sys.exit(main())
