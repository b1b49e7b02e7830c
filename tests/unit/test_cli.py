"""The command line itself: parsing, help, exit codes; what the commands do is tested in tests/e2e."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import micro_catalogue
import pytest

from polymodal import cli
from polymodal.cli_methods import _methods
from polymodal.types import BadInput, CorruptCheckpoint

COMMANDS = (
    "audit",
    "bench",
    "classify",
    "cluster",
    "compare",
    "demo",
    "embed",
    "evaluate",
    "explain",
    "guess",
    "import",
    "index",
    "outliers",
    "prepare",
    "recipes",
    "retrieve",
    "search",
    "serve",
    "similar",
    "train",
    "tune-matcher",
    "version",
)


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name in COMMANDS:
        assert f" {name} " in listed
        assert cli.main([name, "--help"]) == 0
        assert f"polymodal {name}" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_commands_of_import_have_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("m5product", "generate"):
        assert cli.main(["import", name, "--help"]) == 0
        assert f"polymodal import {name}" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_needs_no_torch() -> None:
    called = "from polymodal.cli import main; main(['train', '--help']); main(['version'])"
    code = f"import sys; {called}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["version", "--json"],
        ["recipes", "--json"],
        ["recipes", "scale", "--modalities", "image,text", "--json"],
    ):
        assert cli.main(arguments) == 0
        assert json.loads(capsys.readouterr().out)
    assert cli.main(["recipes", "scale", "--size", "small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["width"] == 384


def test_a_mistyped_command_or_option_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert '"train"' in capsys.readouterr().err
    assert cli.main(["version", "--jsn"]) == 2
    err = capsys.readouterr().err
    assert "--json" in err
    assert "polymodal version --help" in err
    assert cli.main(["prepare", "a", "b", "--size", "huge"]) == 2
    assert "tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("field", "this", "that", "Do so."), 2),
        (CorruptCheckpoint("nothing is whole"), 1),
        (PermissionError(13, "Permission denied", "/x"), 1),
    ],
)
def test_errors_are_one_message_without_a_traceback(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert cli.main(["version"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("polymodal: ")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("prepare", 3, "same command: polymodal prepare a b"),
        ("bench", 3, "same command: polymodal bench a b"),
        ("compare", 3, "same command: polymodal compare a b"),
        ("train", 3, "--resume"),
        ("index", 130, "Nothing"),
    ],
)
def test_ctrl_c_says_what_to_do_next(
    command: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", fail)
    assert cli.main([command, "a", "b"]) == code
    assert said in capsys.readouterr().err


def test_an_error_of_ours_that_is_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["version"])


def test_only_the_first_process_of_a_torchrun_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["version", "--json"]) == 0
    assert capsys.readouterr() == ("", "")


def test_experiments_are_listed_and_a_mistyped_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert all(isinstance(question, str) for question in listed.values())
    assert cli.main(["bench"]) == 0
    shown = capsys.readouterr().out
    assert len(listed) >= 5
    assert all(name in shown for name in listed)
    assert cli.main(["bench", "no-such-experiment", "--out", str(tmp_path / "out")]) == 2
    assert "no-such-experiment" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "scal"], "Did you mean 'scale'"),
        (["--methods", "scale,sclae"], "Did you mean 'scale'"),
        (["--modalities", "title,image"], "a modality of the data"),
        (["--methods", "scale:objective.mask_rato=0.1"], "mask_ratio"),
        (["--budget-steps", "0"], "--budget-steps"),
        (["--budget-seconds", "-1"], "--budget-seconds"),
        (["--seeds", "1", "1"], "--seeds"),
    ],
)
def test_compare_refuses_what_it_cannot_do(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = micro_catalogue.write(tmp_path / "data")
    assert cli.main(["compare", str(data), "--out", str(tmp_path / "out"), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in " ".join(err.split())
    assert not list((tmp_path / "out").glob("runs"))


def test_settings_of_a_variant_may_have_commas() -> None:
    variant = 'scale:model.stages=["towers","trunk"]'
    assert _methods(["scale, scale/reference", variant]) == ("scale", "scale/reference", variant)


@pytest.mark.parametrize("asked", [None, "77"])
def test_threads_wait_for_one_another_in_short_turns(asked: str | None) -> None:
    """Set before torch is loaded, else nobody reads it; and what the user asked for stands."""
    code = "import os, sys; from polymodal import cli; cli.main(['version']); assert 'torch' not in sys.modules; "
    env = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | ({"GOMP_SPINCOUNT": asked} if asked else {})
    said = subprocess.run(
        [sys.executable, "-c", code + "print(os.environ['GOMP_SPINCOUNT'])"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split()[-1] == (asked or "5000")
