"""Job files: the options of every command in a YAML file, flags over them, and the schema that editors read."""

from __future__ import annotations

import dataclasses
import json
import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import jsonschema
import pytest
import tyro
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.__main__ import COMMANDS, config_class_of, main, parse_config
from jobs.job_file import job_schema, read_job, schema_text, write_job
from jobs.label.options import LabelConfig
from jobs.runtime.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
CLASSES = {command: config_class_of(command) for command in COMMANDS}
VALIDATOR = jsonschema.Draft7Validator(job_schema(CLASSES))
#: texts that YAML would take for something else
ODD_TEXTS = [
    "2:8",
    "no",
    "null",
    "~",
    "1e-3",
    "0x10",
    "2020-01-01",
    "",
    " a ",
    "- b",
    "#c",
    "a: b",
    "{1..2}",
    "é\u2028\t",
    "\x85",
]


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of the type of an option."""
    if get_origin(kind) is Annotated:
        return values_of(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return st.one_of(*(st.none() if part is type(None) else values_of(part) for part in get_args(kind)))
    if get_origin(kind) is tuple:
        return st.lists(values_of(get_args(kind)[0]), max_size=3).map(tuple)
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    return {
        # an input that ends in .yaml is a job file
        str: st.sampled_from(ODD_TEXTS) | st.text().filter(lambda text: not text.lower().endswith((".yaml", ".yml"))),
        int: st.integers(),
        float: st.floats(allow_nan=False),
        bool: st.booleans(),
    }[kind]


def configs_of(command: str) -> st.SearchStrategy[Any]:
    kinds = get_type_hints(CLASSES[command], include_extras=True)
    return st.fixed_dictionaries({name: values_of(kind) for name, kind in kinds.items()}).map(
        lambda values: CLASSES[command](**values)
    )


@pytest.mark.compute
@pytest.mark.parametrize("command", COMMANDS)
def test_config_to_job_file_to_config_is_the_identity(command, tmp_path_factory):
    path = tmp_path_factory.mktemp("job") / "job.yaml"

    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(configs_of(command))
    def check(config):
        path.write_text(write_job(command, config))
        assert parse_config(command, [str(path)]) == config
        VALIDATOR.validate(yaml.safe_load(path.read_text()))

    check()


@pytest.mark.compute
@pytest.mark.parametrize("command", COMMANDS)
def test_every_single_option_survives(command, tmp_path):
    """Each option alone with a value of its own, so that no option is left to chance."""
    path = tmp_path / "job.yaml"
    required = {
        field.name: ("in",) if "tuple" in str(field.type) else "in"
        for field in dataclasses.fields(CLASSES[command])
        if field.default is dataclasses.MISSING
    }
    base = CLASSES[command](**required)
    for name, kind in get_type_hints(CLASSES[command], include_extras=True).items():
        config = dataclasses.replace(base, **{name: other_value(kind, getattr(base, name))})
        path.write_text(write_job(command, config))
        assert f"\n{name}:" in path.read_text()
        assert parse_config(command, [str(path)]) == config


def other_value(kind: Any, value: Any) -> Any:
    """A value of the type of an option that is not `value`."""
    if get_origin(kind) is Annotated or get_origin(kind) in (Union, types.UnionType):
        return other_value(get_args(kind)[0], value)
    if get_origin(kind) is tuple:
        first = value[0] if value else None
        return (other_value(get_args(kind)[0], first),)
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    return {str: "2:8", int: 7, float: 0.0625, bool: not value}[kind]


def job(tmp_path: Path, text: str) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return str(path)


def test_flags_override_the_file(tmp_path):
    path = job(tmp_path, "command: label\ninputs: [a, b]\noutput: out\nbatch_size: 2\nany_name: true\n")
    assert parse_config("label", [path]) == LabelConfig(("a", "b"), "out", batch_size=2, any_name=True)
    changed = parse_config("label", [path, "c", "--batch-size", "None", "--no-any-name", "--limit", "5"])
    assert changed == LabelConfig(("c",), "out", limit=5)


def test_flags_give_what_the_file_leaves_out(tmp_path):
    path = job(tmp_path, "command: label\nbatch_size: 2\n")
    assert parse_config("label", [path, "a", "--output", "o"]) == LabelConfig(("a",), "o", batch_size=2)
    with pytest.raises(UsageError, match=r"missing for yolact label: .*--output"):
        parse_config("label", [path, "a"])


def test_the_type_of_the_option_decides_how_a_value_is_read(tmp_path):
    path = job(tmp_path, "command: label\ninputs: [no, 007]\noutput: 2020-01-01\nnum_actors: 2:8\nlimit: 1_000\n")
    config = parse_config("label", [path])
    assert (config.inputs, config.output, config.num_actors, config.limit) == (("no", "007"), "2020-01-01", "2:8", 1000)
    path = job(tmp_path, "command: train\nannotations: a.json\nlearning_rate: 1e-3\nfreeze_batch_norm: null\n")
    assert parse_config("train", [path]).learning_rate == 0.001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inputs: [a]\noutput: o\n", "the key command is missing; write `command: label` into it"),
        ("command: train\nannotations: a\n", "this job file is for yolact train, not for yolact label"),
        (
            "command: label\nbach_size: 2\n",
            "line 2: bach_size: yolact label has no such option; did you mean 'batch_size'?",
        ),
        ("command: label\nbatch-size: 2\n", "did you mean 'batch_size'?"),
        ("command: label\nqqqq: 2\n", "there are: inputs, output, config, "),
        ("command: label\nbatch_size: two\n", "line 2: batch_size: must be a whole number, not 'two'"),
        ("command: label\nscore_threshold: x\n", "score_threshold: must be a number, not 'x'"),
        ("command: label\nany_name: yes\n", "any_name: must be true or false, not 'yes'"),
        ("command: label\nnms: fats\n", "nms: unknown value 'fats'; did you mean 'fast'?"),
        ("command: label\ninputs: a\n", "inputs: must be a list, such as [one, two]"),
        ("command: label\ninputs: [[a]]\n", "inputs: must be a single value, not a sequence"),
        ("command: label\noutput:\n", "output: has no value"),
        ("command: label\noutput: {a: b}\n", "output: must be a single value, not a mapping"),
        ("command: label\noutput: a\noutput: b\n", "line 3: 'output' is given twice"),
        ("command: label\noutput: !include x\n", "output: the tag !include has no meaning here"),
        ("command: label\noutput: &a [*a]\n", "output: must be a single value"),
        ("command: label\noutput: [\n", "not valid YAML: "),
        ("command: label\n---\ncommand: label\n", "not valid YAML: "),
        ("command: label\noutput: \x07\n", "not valid YAML: "),
        ("output: " + "[" * 3000, "not valid YAML: "),
        ("", "the file is empty"),
        ("- a\n", "line 1: must be a mapping"),
    ],
)
def test_what_is_wrong_with_a_job_file_is_one_line(text, message, tmp_path, capsys):
    path = job(tmp_path, text)
    assert main(["label", path]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert message in printed.err
    assert path in printed.err


def test_a_file_that_is_not_there_or_not_text(tmp_path, capsys):
    assert main(["label", str(tmp_path / "none.yaml")]) == 2
    assert f"job file {tmp_path}/none.yaml: there is no such file" in capsys.readouterr().err
    (tmp_path / "folder.yaml").mkdir()
    assert main(["label", str(tmp_path / "folder.yaml")]) == 2
    assert "job file" in capsys.readouterr().err
    (tmp_path / "latin.yaml").write_bytes(b"command: \xff\n")
    assert main(["label", str(tmp_path / "latin.yaml")]) == 2
    assert "not a text file in UTF-8" in capsys.readouterr().err


def test_a_name_alone_tells_a_job_file_from_an_input(tmp_path):
    folder = tmp_path / "photos.yaml"
    folder.mkdir()
    assert parse_config("label", [f"{folder}/", "--output", "o"]).inputs == (f"{folder}/",)
    path = job(tmp_path, "command: label\noutput: o\n")
    for arguments in (["photos", path, "--output", "o"], ["--output", "o", path]):
        with pytest.raises(UsageError, match="a job file stands first: yolact label "):
            parse_config("label", arguments)
    # the value of an option may end so
    assert parse_config("export", ["labels", "--output", "data.yaml"]).output == "data.yaml"


def test_the_job_files_in_docs_are_job_files(tmp_path):
    found = 0
    for page in sorted((ROOT / "docs").glob("*.md")):
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S):
            for document in yaml.safe_load_all(block):
                # a job file as such, or in a ConfigMap
                text = yaml.safe_dump(document) if "command" in document else document.get("data", {}).get("job.yaml")
                if text is not None:
                    parse_config(yaml.safe_load(text)["command"], [job(tmp_path, text)])
                    found += 1
    assert found >= 2


def test_print_job_writes_what_was_asked_for(tmp_path, capsys):
    arguments = ["label", "a", "--output", "o", "--num-actors", "2:8", "--print-job"]
    assert main(arguments) == 0
    path = tmp_path / "again.yml"
    path.write_text(capsys.readouterr().out)
    assert parse_config("label", [str(path)]) == LabelConfig(("a",), "o", num_actors="2:8")
    assert not Path("o").exists()


def test_a_missing_field_stays_missing(tmp_path):
    config = read_job(job(tmp_path, "command: evaluate\n"), "evaluate", CLASSES["evaluate"])
    assert config.labels is tyro.MISSING


def test_the_schema_in_docs_is_of_these_classes():
    there = (ROOT / "docs" / "job.schema.json").read_text()
    assert there == schema_text(CLASSES), "stale; run: yolact --print-job-schema > docs/job.schema.json"


def test_the_schema_is_printed_by_a_command(capsys):
    assert main(["--print-job-schema"]) == 0
    assert json.loads(capsys.readouterr().out) == job_schema(CLASSES)


def test_the_schema_is_a_schema_and_refuses_what_the_reader_refuses():
    jsonschema.Draft7Validator.check_schema(job_schema(CLASSES))
    assert VALIDATOR.is_valid({"command": "label", "inputs": ["a"], "num_actors": 2})
    for wrong in ({"inputs": ["a"]}, {"command": "label", "bach_size": 2}, {"command": "train", "inputs": ["a"]}):
        assert not VALIDATOR.is_valid(wrong)


def test_the_schema_explains_every_option():
    for command, definition in job_schema(CLASSES)["definitions"].items():
        unexplained = [name for name, part in definition["properties"].items() if "description" not in part]
        assert unexplained in (["command"], ["command", "address"]), command
