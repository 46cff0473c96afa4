"""`yolact COMMAND …`, the same as `python -m jobs COMMAND …`.

Options come from flags, from a job file (`yolact COMMAND JOB.yaml`, see `jobs.job_file`), or from both.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import select
import sys
from types import ModuleType
from typing import Annotated, Any

import tyro

from jobs import job_file
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
#: writes the options as a job file and does nothing else
PRINT_JOB = "--print-job"
#: writes the JSON Schema of job files
PRINT_SCHEMA = "--print-job-schema"
#: shells that tyro writes completion scripts for
SHELLS = ("bash", "zsh", "fish", "tcsh")


def overview() -> str:
    """The commands, one a line."""
    lines = [
        "usage: yolact COMMAND [OPTIONS]   (yolact COMMAND --help explains every option)",
        "       yolact COMMAND JOB.yaml [OPTIONS]   (options from a file; flags override it)",
        "       yolact --version | --print-job-schema",
        "",
    ]
    return "\n".join(lines + [f"  {name:<14}{help_line}" for name, (_, help_line) in COMMANDS.items()])


def config_class_of(command: str) -> type:
    """The config class of a command, whose module is imported for it."""
    found: type = getattr(_module_of(command), COMMANDS[command][0])
    return found


def _module_of(command: str) -> ModuleType:
    return importlib.import_module("jobs." + command.replace("-", "_"))


def parse_config(command: str, arguments: list[str]) -> Any:
    """Turn a job file and flags into the command's frozen config. What does not fit is `UsageError` in one line."""
    config_class = config_class_of(command)
    given: dict[str, Any] = {}
    if arguments and job_file.is_job_file(arguments[0]):
        given["default"] = job_file.read_job(arguments[0], command, config_class)
        arguments = arguments[1:]
    config = _parse_flags(command, config_class, arguments, given)
    job_file.check_positionals(config, command)
    return config


def _parse_flags(command: str, config_class: type, arguments: list[str], given: dict[str, Any]) -> Any:
    """The config of these flags; `given` holds, as `default`, what a job file says."""
    description = f"{_module_of(command).__doc__}\n{job_file.HELP}"
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(config_class, args=arguments, prog=f"yolact {command}", description=description, **given)
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
    for command, (_, help_line) in COMMANDS.items():
        choice: Any = Annotated[config_class_of(command), tyro.conf.subcommand(command, description=help_line)]
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
    config = parse_config(command, [argument for argument in arguments if argument != PRINT_JOB])
    if PRINT_JOB in arguments:
        print(job_file.write_job(command, config), end="")
        return EXIT_OK
    exit_code: int = _module_of(command).run(config)
    return exit_code


def print_schema() -> int:
    """Print the JSON Schema of job files: `yolact --print-job-schema > docs/job.schema.json`."""
    print(job_file.schema_text({command: config_class_of(command) for command in COMMANDS}), end="")
    return EXIT_OK


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
    if arguments[0] == PRINT_SCHEMA:
        return print_schema()
    if arguments[0] == "--tyro-print-completion":
        return exit_code_of(lambda: print_completion(arguments[1:]))
    return exit_code_of(lambda: run_command(arguments[0], arguments[1:]))


if __name__ == "__main__":
    sys.exit(main())
