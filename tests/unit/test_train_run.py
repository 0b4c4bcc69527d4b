"""Training: both methods spend the same, A stays, and a stopped run ends as an unbroken one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from kore.artifacts.events import EventTail, EventWriter
from kore.artifacts.run import Run
from kore.config.resolve import ModelSection, TrainSection
from kore.data.records import Message, Sample
from kore.errors import DataError, GateNotMet, Interrupted, MissingArtefact, UsageError
from kore.io.files import is_leftover
from kore.methods.lora import Lora
from kore.methods.registry import make_method
from kore.models.collate import collate
from kore.models.families import language_linears
from kore.models.generate import Engine, Prompt
from kore.models.load import Backbone, load
from kore.training import checkpoints as checkpoint
from kore.training.probes import Probe, Probing
from kore.training.result import TrainResult
from kore.training.run import prepare, train
from kore.training.trainer import Loop, NonFinite

QUICK: dict[str, Any] = {"lr": 1e-2, "epochs": 4, "batch": 4, "save_steps": 3}


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    found = []
    for i in range(10):
        path = tmp_path / f"{i % 3}.png"
        if not path.exists():
            Image.effect_noise((40, 30), 64 + i).convert("RGB").save(path)
        turns = [
            {"from": "human", "value": "<image>\nWhat is the capital?"},
            {"from": "gpt", "value": "Lima " * (1 + i % 4)},
        ]
        found.append(Sample.model_validate({"id": f"s{i}", "image": str(path), "conversations": turns}))
    return found


def factors(backbone: Backbone, rank: int = 4) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    linears = language_linears(backbone.model)
    return {n: 0.1 * torch.randn(rank, m.in_features, generator=made) for n, m in linears.items()}


def go(
    base: Path,
    folder: Path,
    samples: list[Sample],
    method: str = "kore",
    *,
    probes: Probing | None = None,
    **more: Any,
) -> TrainResult:
    backbone = load(ModelSection(id=str(base)))
    a = factors(backbone) if method == "kore" else None
    run = Run(folder)
    with EventWriter(folder) as events:
        section = TrainSection(method=method, **{**QUICK, **more})
        return train(backbone, samples, section, make_method(method), run, events, probes, factors=a, rank=4)


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [e for e in EventTail(folder).read() if e["kind"] == kind]


def test_kore_and_lora_train_the_same_number_of_parameters(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    kore = go(tiny_llava, tmp_path / "k", samples)
    lora = go(tiny_llava, tmp_path / "l", samples, "lora")
    assert abs(kore.trainable - lora.trainable) <= 0.1 * kore.trainable


def test_only_b_moves_and_the_loss_falls(tiny_llava: Path, tmp_path: Path, samples: list[Sample]) -> None:
    go(tiny_llava, tmp_path / "k", samples, epochs=12)
    before = factors(load(ModelSection(id=str(tiny_llava))))
    for name, value in adapter(tmp_path / "k").items():
        if "lora_A" in name:
            linear = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            assert torch.equal(value, before[linear])
        else:
            assert value.abs().sum() > 0
    losses = [e["loss"] for e in events(tmp_path / "k", "step")]
    assert losses[-1] < losses[0]


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("method", ["kore", pytest.param("lora", marks=pytest.mark.slow)])
@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_a_run_killed_at_any_step_ends_bit_for_bit_as_an_unbroken_one(
    tiny_llava: Path,
    tmp_path: Path,
    samples: list[Sample],
    method: str,
    step: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go(tiny_llava, tmp_path / "whole", samples, method)
    real = Loop.training_step

    def dies(self: Loop, *args: Any, **rest: Any) -> Any:
        if self.state.global_step == step:
            raise _Killed
        return real(self, *args, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "training_step", dies)
        with pytest.raises(_Killed):
            go(tiny_llava, tmp_path / "broken", samples, method)
    go(tiny_llava, tmp_path / "broken", samples, method)
    resumed = [e for e in events(tmp_path / "broken", "status") if "resumed" in e["text"]]
    assert bool(resumed) == (step > QUICK["save_steps"])
    whole, broken = adapter(tmp_path / "whole"), adapter(tmp_path / "broken")
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[n], broken[n]) for n in whole)


def test_a_damaged_checkpoint_is_not_resumed_from(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample], caplog: pytest.LogCaptureFixture
) -> None:
    first = go(tiny_llava, tmp_path / "run", samples)
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir(), key=lambda p: int(p.name.split("-")[1]))[-1]
    (newest / "optimizer.pt").write_bytes(b"garbage")
    expected = adapter(tmp_path / "run")
    for path in (tmp_path / "run" / "adapter").iterdir():
        path.unlink()
    assert go(tiny_llava, tmp_path / "run", samples).loss == pytest.approx(first.loss, rel=1e-6)
    assert f"{newest} is damaged: the checkpoint before it is used" in caplog.messages
    assert all(torch.equal(expected[n], v) for n, v in adapter(tmp_path / "run").items())
    assert any("resumed at step 9" in e["text"] for e in events(tmp_path / "run", "status"))


def test_a_finished_run_is_not_trained_again_and_other_settings_are_refused(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    first = go(tiny_llava, tmp_path / "run", samples)
    assert go(tiny_llava, tmp_path / "run", samples) == first
    assert len(events(tmp_path / "run", "step")) == first.steps
    with pytest.raises(UsageError, match="other settings"):
        go(tiny_llava, tmp_path / "run", samples, lr=2e-2)


def test_a_signal_finishes_the_step_and_the_same_call_goes_on(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    go(tiny_llava, tmp_path / "whole", samples)
    real = Loop.training_step

    def hears(self: Loop, *args: Any, **rest: Any) -> Any:
        if self.state.global_step == 4 and self.micro == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *args, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "training_step", hears)
        with pytest.raises(Interrupted, match="SIGTERM after step 5") as caught:
            go(tiny_llava, tmp_path / "run", samples)
    assert caught.value.exit_code == 130
    go(tiny_llava, tmp_path / "run", samples)
    steps = [e["step"] for e in events(tmp_path / "run", "step")]
    assert steps == list(range(1, 11))
    assert all(torch.equal(v, adapter(tmp_path / "run")[n]) for n, v in adapter(tmp_path / "whole").items())


def test_a_loss_that_is_no_number_stops_before_it_reaches_the_weights_and_names_the_samples(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Loop.compute_loss

    def breaks(self: Loop, *args: Any, **rest: Any) -> Any:
        loss = real(self, *args, **rest)
        return loss * float("nan") if self.state.global_step == 4 else loss

    monkeypatch.setattr(Loop, "compute_loss", breaks)
    with pytest.raises(NonFinite, match=r"loss is nan at step 5; samples: s\d, s\d, s\d, s\d$") as caught:
        go(tiny_llava, tmp_path / "run", samples)
    assert caught.value.exit_code == 3 and "lower train.lr" in str(caught.value.hint)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-3"]
    assert not (tmp_path / "run" / "adapter").exists()


def test_the_named_samples_are_those_of_the_bad_batch(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = Loop.compute_loss, []

    def breaks(self: Loop, model: Any, inputs: dict[str, Any], *args: Any, **rest: Any) -> Any:
        loss = real(self, model, inputs, *args, **rest)
        if self.micro == 5:
            seen.append(len(inputs["input_ids"]))
            return loss * float("inf")
        return loss

    monkeypatch.setattr(Loop, "compute_loss", breaks)
    with pytest.raises(NonFinite, match=r"at step 3; samples: s\d, s\d$"):
        go(tiny_llava, tmp_path / "run", samples, micro_batch=2)
    assert seen == [2]


def probing(right: Any, steps: int = 2) -> Probing:
    asked = [Probe("n", "new", "What?", "Lima"), Probe("o", "old", "Is it?", "Yes")]
    return Probing(asked, right, steps=steps, max_new_tokens=3)


def test_the_loss_of_a_probe_is_the_models_own_on_the_known_answer(tiny_llava: Path) -> None:
    backbone = load(ModelSection(id=str(tiny_llava)))
    engine = Engine(backbone)
    turns = [Message(from_="human", value="What?"), Message(from_="gpt", value="Lima it is")]
    encoded = collate([engine.encoder.training(Sample(id="s", conversations=turns))], engine.encoder.pad_id)
    with torch.inference_mode():
        expected = float(backbone.model.eval()(**encoded).loss)
    found = engine.losses([Prompt.ask("What?")], ["Lima it is"])
    assert found == pytest.approx([expected], rel=1e-5)


def test_probes_are_answered_side_by_side_and_the_best_checkpoint_is_marked(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    result = go(tiny_llava, tmp_path / "run", samples, probes=probing(lambda a, b: True))
    told = events(tmp_path / "run", "probe")
    rounds = [e["step"] for e in events(tmp_path / "run", "status") if e["phase"] == "asking questions"]
    assert rounds == sorted({e["step"] for e in told})  # said before: the answers come at the end
    assert {e["step"] for e in told} >= {0, 2, 4, 6, 8, 10}
    assert {e["probe_kind"] for e in told} == {"new", "old"}
    assert all(e["loss"] > 0 for e in told)
    assert result.best is not None and result.best["avg"] == 1.0
    assert json.loads((tmp_path / "run" / "adapter" / "result.json").read_text())["result"]["best"]


def test_a_probe_share_of_zero_asks_no_probe(tiny_llava: Path, tmp_path: Path, samples: list[Sample]) -> None:
    def never(answer: str, known: str) -> bool:
        raise AssertionError("a probe was asked")

    probes = replace(probing(never), share=0, steps=None)
    result = go(tiny_llava, tmp_path / "run", samples, probes=probes, save_steps=2)
    assert result.steps == 10 and not result.scores and result.best is None
    assert not events(tmp_path / "run", "probe")
    assert not [e for e in events(tmp_path / "run", "status") if e["phase"] == "asking questions"]
    with pytest.raises(UsageError, match=r"train\.probe_share = 0 asks none"):
        go(tiny_llava, tmp_path / "kept", samples, probes=probes, keep=0.9)
    steps = replace(probing(lambda a, b: True), share=0)
    go(tiny_llava, tmp_path / "steps", samples, probes=steps)
    assert events(tmp_path / "steps", "probe")


def verdict(limit: int) -> Any:
    """Right until it was asked so often."""
    calls = [0]

    def right(answer: str, known: str) -> bool:
        calls[0] += 1
        return calls[0] < limit

    return right


def test_the_alarm_stops_the_run_or_goes_back_to_the_best_checkpoint(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    with pytest.raises(GateNotMet, match="old probes fell to 0%"):
        go(tiny_llava, tmp_path / "stop", samples, probes=probing(verdict(30), 3), keep=0.9)
    result = go(
        tiny_llava, tmp_path / "best", samples, probes=probing(verdict(30), 3), keep=0.9, on_alarm="best"
    )
    assert result.returned == 3
    kept = load_file(tmp_path / "best" / "checkpoints" / "checkpoint-3" / "weights.safetensors")
    saved = adapter(tmp_path / "best")
    assert all(torch.equal(v, kept[n.replace(".weight", ".default.weight")]) for n, v in saved.items())


@pytest.mark.parametrize(("limit", "step"), [(18, 6), (30, 10)])
def test_an_alarm_stands_when_the_run_is_called_again_until_the_bar_is_another(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample], limit: int, step: int
) -> None:
    """At the last step, too, where nothing is left to train."""
    folder = tmp_path / "run"
    for right in (verdict(limit), lambda a, b: True, lambda a, b: True):
        with pytest.raises(GateNotMet, match=f"old probes fell to 0% at step {step}"):
            go(tiny_llava, folder, samples, probes=probing(right, 3), keep=0.9)
    assert not (folder / "adapter").exists()
    assert [e["step"] for e in events(folder, "step")] == list(range(1, step + 1))
    result = go(tiny_llava, folder, samples, probes=probing(lambda a, b: True, 3), keep=0.9, on_alarm="best")
    assert (result.returned, result.steps) == (3, step)
    kept = load_file(folder / "checkpoints" / "checkpoint-3" / "weights.safetensors")
    saved = adapter(folder)
    assert all(torch.equal(v, kept[n.replace(".weight", ".default.weight")]) for n, v in saved.items())


def test_a_run_that_an_alarm_stopped_goes_on_without_the_bar(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    with pytest.raises(GateNotMet):
        go(tiny_llava, tmp_path / "run", samples, probes=probing(verdict(18), 3), keep=0.9)
    assert go(tiny_llava, tmp_path / "run", samples, probes=probing(lambda a, b: True, 3)).steps == 10


def test_what_decides_when_a_run_stops_is_no_part_of_it_and_what_deepspeed_is_told_is(
    tiny_llava: Path, samples: list[Sample]
) -> None:
    def mark(**more: Any) -> str:
        section = TrainSection(method="lora", **{**QUICK, **more})
        return prepare(
            load(ModelSection(id=str(tiny_llava))), samples, section, make_method("lora")
        ).fingerprint

    told = {"gradient_clipping": 0.1}
    assert mark() == mark(on_alarm="best", save_steps=7) != mark(deepspeed=told)


def test_what_a_killed_save_left_is_gone_after_the_next(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(self: Lora, model: Any, folder: Path, facts: Any) -> None:
        folder.mkdir()
        (folder / "half").write_text("")
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(Lora, "save", dies)
        for _ in range(2):
            with pytest.raises(_Killed):
                go(tiny_llava, tmp_path / "run", samples, "lora", max_steps=2)
            (left,) = (p for p in (tmp_path / "run").iterdir() if p.name.startswith("."))
            assert is_leftover(left)
    go(tiny_llava, tmp_path / "run", samples, "lora", max_steps=2)
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]
    assert not (tmp_path / "run" / "adapter" / "half").exists()


def test_a_sample_too_long_is_named_with_its_place(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    with pytest.raises(DataError, match=r"sample s0: .*more than max_length"):
        go(tiny_llava, tmp_path / "run", samples, max_length=16)


def test_sinks_write_beside_the_event_log_and_a_missing_one_is_refused(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    pytest.importorskip("tensorboard")
    go(tiny_llava, tmp_path / "run", samples, max_steps=2, sinks=["tensorboard"])
    assert list((tmp_path / "run" / "tensorboard").rglob("*tfevents*"))
    with pytest.raises(MissingArtefact, match="wandb, which is not installed"):
        go(tiny_llava, tmp_path / "other", samples, max_steps=2, sinks=["wandb"])


def test_recomputing_activations_changes_nothing(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    go(tiny_llava, tmp_path / "plain", samples, max_steps=4)
    go(tiny_llava, tmp_path / "again", samples, max_steps=4, gradient_checkpointing=True)
    first, second = adapter(tmp_path / "plain"), adapter(tmp_path / "again")
    assert all(torch.allclose(first[n], second[n], atol=1e-6) for n in first)


def test_accumulating_gives_the_losses_of_one_pass(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    go(tiny_llava, tmp_path / "one", samples, max_steps=4)
    go(tiny_llava, tmp_path / "two", samples, max_steps=4, micro_batch=1)
    one, two = ([e["loss"] for e in events(tmp_path / d, "step")] for d in ("one", "two"))
    assert one == pytest.approx(two, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora", "moelora", "sefe"])
def test_what_is_trained_in_half_precision_is_float32_until_it_is_saved(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    seen: set[torch.dtype] = set()
    real = Loop.compute_loss

    def notes(self: Loop, model: Any, *args: Any, **rest: Any) -> Any:
        seen.update(p.dtype for p in model.parameters() if p.requires_grad)
        return real(self, model, *args, **rest)

    monkeypatch.setattr(Loop, "compute_loss", notes)
    backbone = load(ModelSection(id=str(tiny_llava), dtype="bfloat16"))
    before = {n: p.detach().clone() for n, p in backbone.model.named_parameters() if "projector" in n}
    # a step of 1e-4 is less than half the distance between two bfloat16 numbers of these sizes
    section = TrainSection(method=method, **{**QUICK, "lr": 1e-4, "projector": 1e-4, "epochs": 8})
    values = {"old_steps": 2} if method == "sefe" else {}
    with EventWriter(tmp_path / "run") as log:
        train(
            backbone,
            samples,
            section,
            make_method(method, values),
            Run(tmp_path / "run"),
            log,
            probing(lambda a, b: True, 5),
            rank=4,
            old=samples,
        )
    assert seen == {torch.float32}
    after = {
        n.removeprefix("base_model.model.").removeprefix("inner.").replace("modules_to_save.default.", ""): p
        for n, p in backbone.model.named_parameters()
        if "projector" in n and "original_module" not in n
    }
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert after[name].dtype == torch.bfloat16
        assert (after[name] != value).float().mean() > 0.5
    saved = next((tmp_path / "run" / "adapter").glob("*.safetensors"))
    assert {v.dtype for n, v in load_file(saved).items() if "projector" in n} == {torch.bfloat16}


@pytest.mark.parametrize("micro", [4, 1])
def test_a_penalty_is_told_beside_the_loss_that_it_is_part_of(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, micro: int
) -> None:
    go(tiny_llava, tmp_path / "plain", samples, "lora", max_steps=3, micro_batch=micro)
    monkeypatch.setattr(Lora, "penalty", lambda self, model, inputs, logits: torch.tensor(0.5))
    go(tiny_llava, tmp_path / "costly", samples, "lora", max_steps=3, micro_batch=micro)
    plain, costly = events(tmp_path / "plain", "step"), events(tmp_path / "costly", "step")
    assert not any("penalty" in e for e in plain)
    assert [e["penalty"] for e in costly] == pytest.approx([0.5] * 3)
    assert [e["loss"] - e["penalty"] for e in costly] == pytest.approx([e["loss"] for e in plain], abs=1e-5)


def test_the_projector_learns_at_its_own_rate_or_not_at_all(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    go(tiny_llava, tmp_path / "off", samples, max_steps=2)
    assert not any("projector" in n for n in adapter(tmp_path / "off"))
    go(tiny_llava, tmp_path / "on", samples, max_steps=2, projector=1e-3)
    base = load(ModelSection(id=str(tiny_llava))).model.state_dict()
    moved = {n: v for n, v in adapter(tmp_path / "on").items() if "projector" in n}
    assert moved
    for name, value in moved.items():
        before = base[name.removeprefix("base_model.model.")]
        # Adam's first two steps are at most the rate each
        assert 0 < float((value - before).abs().max()) <= 2.1e-3


def test_an_alarm_without_old_probes_is_refused(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    with pytest.raises(UsageError, match="watches old probes"):
        go(tiny_llava, tmp_path / "run", samples, keep=0.9)


def test_each_checkpoint_is_hashed_once_on_resume(
    tiny_llava: Path, tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tiny_llava, tmp_path / "run", samples)
    for path in (tmp_path / "run" / "adapter").iterdir():
        path.unlink()
    for file in (tmp_path / "run" / "checkpoints").glob("*/seal.json"):  # as with probes
        file.write_text(json.dumps({**json.loads(file.read_text()), "score": {"old": 1.0, "new": 0.5}}))
    hashed: list[Path] = []
    real = checkpoint.hash_file

    def counted(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(checkpoint, "hash_file", counted)
    go(tiny_llava, tmp_path / "run", samples)
    assert any("resumed at step" in e["text"] for e in events(tmp_path / "run", "status"))
    assert any(path.name == "weights.safetensors" for path in hashed)
    assert len(set(hashed)) == len(hashed)
