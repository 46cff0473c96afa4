"""The completion script that README and docs/label.md name, in a real bash."""

from __future__ import annotations

import subprocess

from jobs.__main__ import COMMANDS, main
from jobs.runtime.errors import EXIT_OK, EXIT_USAGE

COMPLETE = """
source "$1"; shift
COMP_WORDS=(yolact "$@"); COMP_CWORD=$#; COMP_LINE="yolact $*"; COMP_POINT=${#COMP_LINE}
_tyro_yolact; echo "${COMPREPLY[@]}"
"""


def test_bash_completes_commands_options_and_values(tmp_path, capsys):
    assert main(["--tyro-print-completion", "bash"]) == EXIT_OK
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out)

    def completed(*words: str) -> set[str]:
        command = ["bash", "-c", COMPLETE, "bash", str(script), *words]
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())

    assert completed("") >= set(COMMANDS)
    assert completed("label", "--num-a") == {"--num-actors"}
    assert {"coco", "yolo", "geojson"} <= completed("export", "--format", "")


def test_an_unknown_shell_is_bad_usage(capsys):
    assert main(["--tyro-print-completion", "powershell"]) == EXIT_USAGE
    assert "takes one of: bash, zsh, fish, tcsh" in capsys.readouterr().err
