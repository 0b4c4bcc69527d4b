"""kore train in pipes: killed, interrupted, fed from a pipe, launched on two processes, given bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

KORE = [sys.executable, "-m", "kore_cli", "train"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i in range(3):
        Image.effect_noise((40, 30), 64 + i).convert("RGB").save(tmp_path / f"{i}.png")
    lines = []
    for i in range(20):
        turns = [
            {"from": "human", "value": "<image>\nWhat is the capital?"},
            {"from": "gpt", "value": "Lima " * (1 + i % 4)},
        ]
        lines.append(json.dumps({"id": f"s{i}", "image": f"{i % 3}.png", "conversations": turns}) + "\n")
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(lines))
    return path


def options(base: Path, out: Path, steps: int = 8, batch: int = 4) -> list[str]:
    settings = ["adapter.rank=4", f"train.batch={batch}", "train.save_steps=2", "train.lr=1e-2"]
    chosen = ["--method", "lora", "--model", str(base), "-o", str(out), "--max-steps", str(steps)]
    return chosen + [part for s in settings for part in ("--set", s)]


def train(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KORE, *arguments], capture_output=True, text=True, timeout=240, check=False, **more
    )


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter" / "adapter_model.safetensors")


def steps(out: Path) -> list[dict[str, Any]]:
    lines = [line for p in sorted(out.glob("events-*.jsonl")) for line in p.read_text().splitlines()]
    return [e for e in map(json.loads, lines) if e["kind"] == "step"]


def losses(out: Path) -> dict[int, float]:
    return {e["step"]: e["loss"] for e in steps(out)}


def begun(out: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until `step` has been told of."""
    for _ in range(2400):
        if process.poll() is not None or max(losses(out), default=0) >= step:
            return
        time.sleep(0.05)


@pytest.mark.slow
def test_augment_pipes_into_train_and_stdout_is_one_object(
    tiny_llava: Path, picture: Path, tmp_path: Path
) -> None:
    item = {
        "id": "1",
        "kind": "entity",
        "type": "country",
        "title": "Peru",
        "image": str(picture),
        "text": "Peru is a country in South America. Its capital is Lima.",
        "facts": {"capital": "Lima"},
    }
    (tmp_path / "items.jsonl").write_text(json.dumps(item) + "\n")
    grow = [sys.executable, "-m", "kore_cli", "augment", "items.jsonl", "-o", "-", "--copies", "1"]
    grown = subprocess.run(grow, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert grown.returncode == 0, grown.stderr
    arguments = ["--data", "-", *options(tiny_llava, tmp_path / "run", 2)]
    done = train(*arguments, input=grown.stdout)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["steps"] == 2 and Path(told["adapter"]).is_dir()
    assert "lora trains" in done.stderr and "batch 4 = 4 x 1 accumulated x 1 device" in done.stderr
    again = train(*arguments, input=grown.stdout)
    assert again.returncode == 0 and "finished before" in again.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (d.parent / "1.png").unlink(), r"samples.jsonl:2: no such picture"),
        (lambda d: (d.parent / "2.png").write_bytes(b"no"), r"samples.jsonl:3: broken picture"),
        (
            lambda d: d.write_text(d.read_text().replace("<image>", "<image>" * 2, 1)),
            r"samples.jsonl:1: .*2 <image>",
        ),
        (lambda d: d.write_text(d.read_text() + '{"id": "x"'), r"samples.jsonl:21: .*cut off"),
        (lambda d: d.write_text(""), "file is empty"),
    ],
)
def test_bad_data_is_one_error_with_its_place(
    tiny_llava: Path, data: Path, tmp_path: Path, change: Any, message: str
) -> None:
    from kore.errors import DataError
    from kore.training.dataset import read_training

    change(data)
    with pytest.raises(DataError) as caught:
        read_training(data)
    import re

    assert re.search(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("known", [True, False])
def test_a_dry_run_refuses_what_the_run_would(tiny_llava: Path, data: Path, known: bool) -> None:
    from kore.config.resolve import resolve
    from kore.errors import UsageError
    from kore.workflows.train_dry_run import dry_run_training
    from kore.workflows.train_run import TrainRequest

    model = str(tiny_llava) if known else "somebody/else"
    chosen = {"model.id": model, "train.method": "lora", "train.keep": 0.9}
    chosen |= {} if known else {"model.architecture": "llava-1.5-7b"}
    with pytest.raises(UsageError, match="watches old probes"):
        dry_run_training(TrainRequest(resolve("tiny", chosen), str(data)))


def test_a_sample_without_an_answer_is_reported_and_left_out(data: Path) -> None:
    from kore.training.dataset import read_training

    line = {"id": "mute", "conversations": [{"from": "human", "value": "Hello?"}]}
    data.write_text(data.read_text() + json.dumps(line) + "\n")
    skipped: list[str] = []
    assert len(read_training(data, on_skip=skipped.append)) == 20
    assert skipped == [f"{data}:21: sample mute has no answer to learn from, left out"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "term", "int"])
def test_a_stopped_command_goes_on_and_ends_as_an_unbroken_one(
    tiny_llava: Path, data: Path, tmp_path: Path, how: str
) -> None:
    whole = train("--data", str(data), *options(tiny_llava, tmp_path / "whole", 60))
    assert whole.returncode == 0, whole.stderr
    arguments = ["--data", str(data), *options(tiny_llava, tmp_path / "broken", 60)]
    with subprocess.Popen(
        [*KORE, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        begun(tmp_path / "broken", 7, process)
        sent = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}[how]
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=120)
    state = json.loads((tmp_path / "broken" / "run.json").read_text())
    assert not (tmp_path / "broken" / "adapter").exists()
    if how == "kill":
        assert process.returncode == -signal.SIGKILL and state["status"] == "running"
    else:
        assert process.returncode == 130 and state["status"] == "interrupted"
        assert "the same command resumes from there" in stderr
    done = train(*arguments)
    assert done.returncode == 0, done.stderr
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.slow
@pytest.mark.parametrize(("zero", "batch"), [(0, 4), (2, 4), (3, 4), (0, 5)])
def test_two_processes_give_the_losses_of_one_and_a_whole_adapter(
    tiny_llava: Path, data: Path, tmp_path: Path, zero: int, batch: int
) -> None:
    """Tolerance 1e-5: sums over two halves round differently. A batch of 5 leaves one place empty."""
    if zero:
        pytest.importorskip("deepspeed")
    arguments = ["--data", str(data)]
    assert train(*arguments, *options(tiny_llava, tmp_path / "one", 6, batch)).returncode == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launch, "-m", "kore_cli", "train", *arguments]
    command += options(tiny_llava, tmp_path / "two", 6, batch)
    done = subprocess.run(
        [*command, "--set", f"train.zero={zero}"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["steps"] == 6
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(abs(one[s] - two[s]) < 1e-5 for s in one)
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[n], second[n], atol=1e-5) for n in first)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ewc", "lwf"])
def test_a_penalty_on_two_processes_is_that_of_one(
    tiny_llava: Path, data: Path, tmp_path: Path, method: str
) -> None:
    """A batch of 2, one sample each: LwF's mean is over the tokens of each forward pass."""
    micro = ["--method", method, "--old", str(data), "--set", "train.micro_batch=1"]
    arguments = ["--data", str(data)]
    done = train(*arguments, *options(tiny_llava, tmp_path / "one", 4, 2), *micro)
    assert done.returncode == 0, done.stderr[-3000:]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [
            *launch,
            "-m",
            "kore_cli",
            "train",
            *arguments,
            *options(tiny_llava, tmp_path / "two", 4, 2),
            *micro,
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = steps(tmp_path / "one"), steps(tmp_path / "two")
    assert len(one) == len(two) == 4 and one[-1]["penalty"] > 0
    for key in ("loss", "penalty"):
        assert [e[key] for e in two] == pytest.approx([e[key] for e in one], abs=1e-5)


@pytest.mark.slow
def test_an_alarm_of_a_sharded_run_goes_back_to_the_best_checkpoint(
    tiny_llava: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("deepspeed")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, "-m", "tests.zero_alarm", str(tiny_llava), str(data), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kept = load_file(tmp_path / "run" / "checkpoints" / "checkpoint-2" / "weights.safetensors")
    last = load_file(tmp_path / "run" / "checkpoints" / "checkpoint-4" / "weights.safetensors")
    saved = weights(tmp_path / "run")
    assert all(torch.equal(v, kept[n.replace(".weight", ".default.weight")]) for n, v in saved.items())
    assert not all(torch.equal(v, last[n]) for n, v in kept.items())


@pytest.mark.slow
def test_a_sharded_run_killed_on_all_processes_goes_on_and_ends_the_same(
    tiny_llava: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("deepspeed")
    import psutil

    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}

    def command(out: Path) -> list[str]:
        arguments = ["--data", str(data), *options(tiny_llava, out, 30), "--set", "train.zero=3"]
        return [*launch, "-m", "kore_cli", "train", *arguments]

    def whole(out: Path) -> None:
        done = subprocess.run(command(out), capture_output=True, text=True, timeout=200, check=False, env=env)
        assert done.returncode == 0, done.stderr[-3000:]

    whole(tmp_path / "whole")
    with subprocess.Popen(
        command(tmp_path / "broken"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, env=env
    ) as process:
        begun(tmp_path / "broken", 7, process)
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            one.kill()
    whole(tmp_path / "broken")
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_a_covariance_that_the_method_does_not_use_is_named(
    tiny_llava: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kore.config.resolve import resolve
    from kore.workflows import train_run as training
    from kore.workflows.train_dry_run import dry_run_training

    monkeypatch.setattr(training, "_covariance", lambda folder: folder and object())
    request = training.TrainRequest(
        resolve("tiny", {"model.id": str(tiny_llava), "train.method": "lora", "adapter.rank": 4}),
        str(data),
        covariance=tmp_path,
    )
    assert dry_run_training(request)[1][0] == f"lora uses no covariance: {tmp_path} is not looked at"


def test_signs_of_life_begin_before_the_model_is_loaded_and_the_run_names_both_covariances(
    tiny_llava: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kore.artifacts.run import Run
    from kore.config.resolve import resolve
    from kore.workflows import train_run as training

    class Sums:
        class manifest:
            fingerprint = "0"

    chosen = {"train.max_steps": 1, "train.method": "lora", "model.id": str(tiny_llava), "adapter.rank": 4}
    monkeypatch.setattr(training, "_covariance", lambda folder: folder and Sums())
    out = tmp_path / "run"
    training.run_training(
        training.TrainRequest(
            resolve("tiny", chosen), str(data), out=out, covariance=tmp_path, new_covariance=tmp_path / "new"
        )
    )
    told = [json.loads(line) for line in next(out.glob("events-*.jsonl")).read_text().splitlines()]
    order = [e.get("phase") if e["kind"] == "status" else e["kind"] for e in told]
    assert order.index("load") < order.index("step") and order.index("gpu") < order.index("step")
    assert Run(out).state().inputs["new_covariance"] == {"path": str(tmp_path / "new"), "hash": "0"}


def wanted(base: Path, data: Path, out: Path, **more: Any) -> Any:
    from kore.config.resolve import resolve
    from kore.workflows.train_run import TrainRequest

    restart = more.pop("restart", False)
    chosen = {"train.max_steps": 1, "train.method": "lora", "model.id": str(base), "adapter.rank": 4}
    return TrainRequest(resolve("tiny", {**chosen, **more}), str(data), out=out, restart=restart)


def test_a_restart_discards_nothing_of_a_run_that_another_process_holds(
    tiny_llava: Path, data: Path, tmp_path: Path
) -> None:
    from kore.errors import DataError
    from kore.workflows.train_run import run_training
    from tests.held import held

    out = tmp_path / "run"
    run_training(wanted(tiny_llava, data, out))
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    with held(out), pytest.raises(DataError, match="is in use by process"):
        run_training(wanted(tiny_llava, data, out, restart=True))
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"} == before
    run_training(wanted(tiny_llava, data, out, restart=True))


def test_a_demo_that_another_process_works_on_is_neither_discarded_nor_joined(tmp_path: Path) -> None:
    from kore.errors import DataError
    from kore.workflows.demo import run_demo
    from tests.held import held

    with held(tmp_path / "demo"), pytest.raises(DataError, match="is in use by process"):
        run_demo(tmp_path / "demo", restart=True)
    assert [p.name for p in (tmp_path / "demo").iterdir()] == [".lock"]


def test_a_stopped_run_takes_another_bar_but_no_other_settings(
    tiny_llava: Path, data: Path, tmp_path: Path
) -> None:
    from kore.artifacts.manifest import differences
    from kore.workflows.train_run import _describe, read_inputs

    def made(**more: Any) -> Any:
        request = wanted(tiny_llava, data, tmp_path / "run", **more)
        return _describe(request, read_inputs(request, str(data)), str(data))[1]

    assert made().fingerprint == made(**{"train.on_alarm": "best", "train.save_steps": 7}).fingerprint
    other = made(**{"train.deepspeed": {"gradient_clipping": 0.1}})
    assert [text.partition(":")[0] for text in differences(made(), other)] == [
        "train.deepspeed.gradient_clipping"
    ]


def test_float16_is_refused_before_a_run_is_begun(tiny_llava: Path, data: Path, tmp_path: Path) -> None:
    from kore.errors import ProfileError
    from kore.workflows.train_run import run_training

    with pytest.raises(ProfileError, match=r"model\.dtype: training in float16 is not supported"):
        run_training(wanted(tiny_llava, data, tmp_path / "run", **{"model.dtype": "float16"}))
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_piped_data_writes_nothing(
    tiny_llava: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    from dataclasses import replace
    from types import SimpleNamespace

    from kore.workflows.train_dry_run import dry_run_training

    text = data.read_text().replace('"image": "', f'"image": "{data.parent}/').encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    before = sorted(tmp_path.rglob("*"))
    value, _ = dry_run_training(replace(wanted(tiny_llava, data, tmp_path / "run"), data="-"))
    assert value["samples"] == 20
    assert sorted(tmp_path.rglob("*")) == before
