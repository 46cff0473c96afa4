"""What the README's "What is trusted" promises, as far as a test can tell."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.label.options import LabelConfig, check_options
from jobs.runtime.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "yolact").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])
#: what runs what it reads, or writes files where what it reads says
FORBIDDEN_IMPORTS = {"marshal", "shelve", "dill", "cloudpickle", "joblib", "shutil.unpack_archive"}


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_is_run_or_unpacked(path):
    tree = ast.parse(path.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & FORBIDDEN_IMPORTS
    # of pickle, nothing but the name of the error that torch raises
    uses = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "pickle"}
    assert uses <= {"pickle.UnpicklingError"}
    for name, call in calls(tree):
        last = name.rpartition(".")[2]
        assert name not in ("eval", "exec", "compile", "os.system", "__import__")
        assert last not in ("extractall", "unpack_archive", "read_pickle")
        if name == "torch.load":
            assert keyword(call, "weights_only") == "True"
        if last == "load" and name.startswith(("np.", "numpy.")):
            assert keyword(call, "allow_pickle") in (None, "False")
        assert keyword(call, "shell") is None


def test_nothing_writes_csv():
    """A spreadsheet runs cells that begin with =, + or @: names from a lake are never written as CSV, only read."""
    for path in SOURCES:
        text = path.read_text().lower()
        assert not re.search(r"csv\.(writer|dictwriter)|(to|write|save)_csv|csvwriter|savetxt", text), path
    for path in (ROOT / "jobs/report/templates").iterdir():
        assert "csv" not in path.read_text().lower(), path


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:s3cr3t@bucket/lake",
        "https://user:s3cr3t@host/a.jpg",
        "https://host/a.jpg?X-Amz-Credential=AKIA&X-Amz-Signature=s3cr3t",
        "az://c/x?sig=s3cr3t",
    ],
)
def test_addresses_that_hold_credentials_are_refused_without_repeating_them(uri):
    for config in (LabelConfig((uri,), "out"), LabelConfig(("lake",), uri)):
        with pytest.raises(UsageError, match="may hold a password or a signature") as caught:
            check_options(config)
        assert "s3cr3t" not in str(caught.value)


def test_addresses_without_are_not():
    for uri in ("s3://bucket/a:b@c.jpg", "sftp://user@host/x", "s3://lake/{000..099}.tar", "https://host/a?design=1"):
        check_options(LabelConfig((uri,), "out"))


def test_a_local_ray_listens_on_loopback_only():
    code = """
import json, os, psutil
from jobs.runtime.ray_session import ray_session
with ray_session("local"):
    processes = [psutil.Process(os.getpid()), *psutil.Process(os.getpid()).children(recursive=True)]
    found = [c.laddr.ip for p in processes for c in p.net_connections("inet") if c.status == "LISTEN"]
print("LISTENING " + json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.split("LISTENING ")[1])
    assert len(found) >= 3
    assert {ip.removeprefix("::ffff:") for ip in found} <= {"127.0.0.1", "::1"}
