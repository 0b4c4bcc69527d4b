"""A calibration as a profile describes it: refused before it sums, and measured on what it holds out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from kore.config.resolve import Profile
from kore.distributed import World
from kore.errors import DataError, ProfileError, UsageError
from kore.io.files import read_json
from kore.io.jsonl import write_jsonl
from kore.nullspace.covariance import shard
from kore.workflows import calibrate_run as jobs
from kore.workflows.calibrate_run import HELD_OUT, INTERFERENCE, SPECTRA, CalibrateJob
from tests.held import held


@pytest.fixture
def old(tmp_path: Path) -> Path:
    rows = [
        {
            "id": str(n),
            "conversations": [
                {"from": "human", "value": "Which thing is this? " * (n + 2)},
                {"from": "gpt", "value": "Peru"},
            ],
        }
        for n in range(8)
    ]
    write_jsonl(tmp_path / "old.jsonl", rows)
    return tmp_path / "old.jsonl"


def profile(base: Path, old: Path, adapter: dict[str, Any], held_out: int = 2, **train: Any) -> Profile:
    return Profile.model_validate(
        {
            "model": {"id": str(base)},
            "calibrate": {"samples": [f"{old}:6"], "held_out": held_out},
            "adapter": adapter,
            "train": train,
        }
    )


@pytest.mark.parametrize(
    ("adapter", "held_out", "factors", "error", "message"),
    [
        ({"rank": 17}, 2, False, DataError, "rank 17 does not fit a width of 16"),
        ({"rank": 17}, 0, True, DataError, "rank 17 does not fit a width of 16"),
        ({"rank": "auto", "budget": "9"}, 2, False, ProfileError, "do not pay for rank 1"),
        ({"rank": 2, "layers": "1-2"}, 0, True, UsageError, "asks for layer 2"),
        ({"rank": 2, "basis": "contrast"}, 0, True, UsageError, "makes the paper's basis"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_before_summing(
    tiny_llava: Path, old: Path, adapter: Any, held_out: int, factors: bool, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        CalibrateJob(profile(tiny_llava, old, adapter, held_out), factors=factors)
    CalibrateJob(profile(tiny_llava, old, adapter, 0)).close()  # the sums alone need no adapter


def test_held_out_samples_that_cannot_be_summed_are_found_before_the_others_are(
    tiny_llava: Path, old: Path, tmp_path: Path
) -> None:
    job = CalibrateJob(profile(tiny_llava, old, {"rank": 2}), tmp_path / "c")
    assert job.held is not None
    job.held.world = World(0, 2)  # one batch for two processes
    with pytest.raises(UsageError, match="1 batches are too few for 2 processes"):
        job.run()
    assert not shard(tmp_path / "c", 0).exists()
    CalibrateJob(profile(tiny_llava, old, {"rank": 2}), tmp_path / "c").run()
    other = CalibrateJob(profile(tiny_llava, old, {"rank": 2}, held_out=1), tmp_path / "c")
    with pytest.raises(UsageError, match="other settings: input samples") as caught:
        other.run()
    # the sums are as asked for: only what is held out is to be discarded
    assert caught.value.hint == f"discard the held-out ones with: rm -r {tmp_path / 'c' / HELD_OUT}"
    sums, before = shard(tmp_path / "c", 0).stat().st_mtime_ns, read_json(tmp_path / "c" / INTERFERENCE)
    shutil.rmtree(tmp_path / "c" / HELD_OUT)
    other.run()
    assert shard(tmp_path / "c", 0).stat().st_mtime_ns == sums
    assert read_json(tmp_path / "c" / INTERFERENCE)["linears"] != before["linears"]
    with pytest.raises(UsageError, match="no sample is left to hold out"):
        CalibrateJob(
            Profile.model_validate(
                {"model": {"id": str(tiny_llava)}, "calibrate": {"samples": [f"{old}:8"], "held_out": 1}}
            )
        )


def measured(out: Path) -> tuple[set[int], set[int], bool]:
    """Ranks in the interference, ranks in the spectra, and whether these know the held-out energy."""
    sites = read_json(out / SPECTRA)["sites"]
    rows = read_json(out / INTERFERENCE)["linears"]
    held = all(site["held_out"] is not None for site in sites)
    return {row["rank"] for row in rows}, {site["rank"] for site in sites}, held


def test_interference_is_that_of_the_adapter_as_training_takes_it(
    tiny_llava: Path, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "c"

    class Killed(Exception):
        pass

    def kill(*args: object, **more: object) -> None:
        raise Killed

    first = CalibrateJob(profile(tiny_llava, old, {"rank": 4}), out)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(jobs, "write_spectra", kill)
        first.run()
    first.run()
    assert measured(out) == ({4}, {4}, True)
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "build", kill)  # nothing is made again
        first.run()
    CalibrateJob(profile(tiny_llava, old, {"rank": 3}), out).run()
    assert measured(out) == ({3}, {3}, True)
    budget = {"rank": 4, "budget": "5000"}
    with_projector = CalibrateJob(profile(tiny_llava, old, budget, projector=1e-3), out)
    with_projector.run()
    without = CalibrateJob(profile(tiny_llava, old, budget), out)
    assert with_projector.adapter.budget != without.adapter.budget
    ranks = measured(out)[0]
    without.run()
    assert max(ranks) < max(measured(out)[0])
    assert (out / HELD_OUT).is_dir()


@pytest.mark.parametrize(("held_out", "place"), [(0, ""), (2, ""), (2, HELD_OUT)])
def test_a_folder_that_another_process_sums_in_is_refused_and_keeps_what_it_holds(
    tiny_llava: Path, old: Path, tmp_path: Path, held_out: int, place: str
) -> None:
    out = tmp_path / "c"
    theirs = out / "hidden-states" / "0" / "000000.safetensors"
    with held(out / place) as child:
        CalibrateJob(profile(tiny_llava, old, {"rank": 2}, held_out), out).manifest.write(out)
        theirs.parent.mkdir(parents=True)
        theirs.touch()
        for restart in (False, True) if not place else (False,):
            with pytest.raises(DataError, match=f"in use by process {child.pid}"):
                CalibrateJob(profile(tiny_llava, old, {"rank": 2}, held_out), out).run(restart=restart)
        assert theirs.exists()
    CalibrateJob(profile(tiny_llava, old, {"rank": 2}, held_out), out).run()
    assert not list(out.rglob(".lock"))
