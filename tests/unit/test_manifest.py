"""A stage's folder is fresh, resumed, done or refused; nothing foreign is ever discarded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kore.artifacts.manifest import NAME, Manifest, claim, claimed, differences, locked, read_manifest
from kore.errors import DataError, KoreError, MissingArtefact, UsageError
from tests.held import held


def manifest(kind: str = "covariance", **settings: object) -> Manifest:
    return Manifest(kind, {"count": 256, "model": {"id": "kore-tiny"}, **settings}, {"samples": "abc"})


def test_a_new_folder_is_fresh_then_resumed_then_done(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    assert claim(folder, manifest()) == "fresh"
    assert claim(folder, manifest()) == "resume"
    manifest().finished(tokens=12).write(folder)
    assert claim(folder, manifest()) == "done"
    assert read_manifest(folder).facts == {"tokens": 12}


def test_other_settings_and_inputs_are_refused_and_named(tmp_path: Path) -> None:
    claim(tmp_path / "out", manifest())
    other = Manifest("covariance", {"count": 512, "model": {"id": "x"}}, {"samples": "def"})
    with pytest.raises(UsageError) as caught:
        claim(tmp_path / "out", other)
    text = str(caught.value)
    assert "count: 256 -> 512" in text
    assert "model.id: kore-tiny -> x" in text
    assert "input samples: abc -> def" in text
    assert "--restart" in str(caught.value.hint)


def test_a_long_list_of_differences_stays_one_line(tmp_path: Path) -> None:
    claim(tmp_path / "out", manifest())
    with pytest.raises(UsageError, match="and 16 more"):
        claim(tmp_path / "out", manifest(**{f"k{i}": i for i in range(20)}))


def test_facts_and_sources_do_not_change_the_fingerprint() -> None:
    one = Manifest("run", {"a": 1}, {"x": "1"}, {"x": "/here"}, facts={"t": 1})
    two = Manifest("run", {"a": 1}, {"x": "1"}, {"x": "/there"}, facts={"t": 2})
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != Manifest("run", {"a": 2}, {"x": "1"}).fingerprint
    assert differences(one, two) == []


def test_restart_discards_what_was_there_but_not_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    claim(folder, manifest())
    (folder / "layers").mkdir()
    (folder / "layers" / "0.safetensors").write_text("x")
    (folder / ".lock").write_text("1")
    assert claim(folder, manifest(count=512), restart=True) == "fresh"
    assert {p.name for p in folder.iterdir()} == {".lock", NAME}
    assert read_manifest(folder).settings["count"] == 512


@pytest.mark.parametrize("restart", [False, True])
def test_another_kind_of_artefact_is_never_discarded(tmp_path: Path, restart: bool) -> None:
    folder = tmp_path / "out"
    claim(folder, manifest())
    (folder / "precious").write_text("x")
    with pytest.raises(DataError, match="covariance"):
        claim(folder, manifest(kind="tree"), restart=restart)
    assert (folder / "precious").exists()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    "text", ['{"name": "a web page", "icons": []}', "[]", "{", '{"kind": 3, "settings": {}, "inputs": {}}']
)
def test_a_manifest_of_something_else_is_never_discarded(tmp_path: Path, text: str, restart: bool) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(DataError):
        claim(tmp_path, manifest(), restart=restart)
    assert (tmp_path / NAME).read_text() == text


def test_a_folder_with_other_files_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        claim(tmp_path, manifest(), restart=True)
    with pytest.raises(DataError, match="is a file"):
        claim(tmp_path / "thesis.tex", manifest())
    with pytest.raises(KoreError):
        claim(tmp_path / "thesis.tex" / "below", manifest())


def test_a_kill_before_the_first_manifest_leaves_a_folder_that_is_fresh(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    code = (
        "import os, signal, sys; from pathlib import Path; import kore.io.files as f, kore.artifacts.manifest as m\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        "m.claim(Path(sys.argv[1]), m.Manifest('tree', {}, {}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    assert done.returncode == -9
    assert os.listdir(folder) and not (folder / NAME).exists()
    assert claim(folder, Manifest("tree", {}, {})) == "fresh"


def test_a_missing_artefact_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingArtefact) as caught:
        read_manifest(tmp_path / "cov", kind="covariance", made_by="kore calibrate --samples demo")
    assert "no covariance here" in str(caught.value)
    assert caught.value.hint == "make it with: kore calibrate --samples demo"
    assert caught.value.exit_code == 4


def test_the_wrong_kind_is_refused_on_reading(tmp_path: Path) -> None:
    claim(tmp_path / "out", manifest())
    with pytest.raises(DataError, match="this is a covariance folder, expected tree"):
        read_manifest(tmp_path / "out", kind="tree")


def test_a_manifest_tells_versions_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    claim(tmp_path / "out", manifest())
    text = (tmp_path / "out" / NAME).read_text()
    assert "torch" in json.loads(text)["made_by"]
    assert "sk-very-secret" not in text


def test_what_a_run_tells_before_its_manifest_is_claimed_and_no_one_elses_events(tmp_path: Path) -> None:
    run = Manifest("run", {}, {})
    (tmp_path / "events-2024.jsonl").write_text("mine\n")
    for kind in (run, manifest()):
        with pytest.raises(DataError, match="not empty"):
            claim(tmp_path, kind)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataError, match="not empty"):
        claim(tmp_path, manifest())
    assert claim(tmp_path, run) == "fresh"


@pytest.mark.parametrize("kind", ["tree", "covariance", "eval", "capture", "export", "study"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_in_which_a_process_works_is_refused_and_left_as_it_is(
    tmp_path: Path, kind: str, restart: bool
) -> None:
    folder = tmp_path / "out"
    claim(folder, manifest(kind))
    (folder / "precious").write_text("x")
    with held(folder) as child:
        with (
            pytest.raises(DataError, match=f"in use by process {child.pid}"),
            claimed(folder, manifest(kind), restart=restart),
        ):
            pass
        assert (folder / "precious").exists()
    with claimed(folder, manifest(kind)) as state:  # its process is dead
        assert state == "resume"


def test_a_finished_folder_is_read_while_another_process_works_on_it(tmp_path: Path) -> None:
    claim(tmp_path, manifest())
    manifest().finished().write(tmp_path)
    with held(tmp_path):
        with claimed(tmp_path, manifest()) as state:
            assert state == "done"
        with pytest.raises(DataError, match="in use"), claimed(tmp_path, manifest(), always=True):
            pass


def test_a_lock_leaves_nothing_behind_and_none_in_what_is_not_ours(tmp_path: Path) -> None:
    with claimed(tmp_path / "out", manifest()) as state:
        assert state == "fresh"
        assert (tmp_path / "out" / ".lock").read_text().startswith(str(os.getpid()))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {NAME}
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="not empty"), claimed(tmp_path, manifest()):
        pass
    assert not (tmp_path / ".lock").exists()


def test_a_lock_that_its_holder_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    real, taken = fcntl.flock, []

    def removed_first(stream: object, how: int) -> None:
        real(stream, how)  # type: ignore[arg-type]
        if not taken:
            (tmp_path / ".lock").unlink()
        taken.append(stream)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with locked(tmp_path):
        assert len(taken) == 2 and (tmp_path / ".lock").exists()
