"""``--samples self:N``: the model's own conversations as a sample file, written once per model and seed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from kore.artifacts.model_folder import model_folder
from kore.artifacts.run import home
from kore.io.files import hash_json
from kore.io.jsonl import write_jsonl
from kore.progress import Progress, silent

if TYPE_CHECKING:
    from kore.config.resolve import Profile

SPARE = 32  # samples beyond those asked for, so that some are left to be asked
_SELF = re.compile(r"self(?::(\d+))?")


def unwritten(profile: Profile) -> int | None:
    """How many samples the model has still to write; None if there are none to write."""
    counts = [count for count in _counts(profile) if not _file(profile, count).is_file()]
    return sum(counts) if counts else None


def with_self_samples(profile: Profile, progress: Progress = silent) -> Profile:
    """The profile with every ``self[:N]`` replaced by the file that holds these samples."""
    texts = []
    for text in profile.calibrate.samples:
        found = _SELF.fullmatch(text)
        if found is None:
            texts.append(text)
            continue
        count = int(found[1] or profile.calibrate.count)
        path = _file(profile, count)
        if not path.is_file():
            _write(profile, count + SPARE, path, progress)
        texts.append(f"{path}:{count}")
    return profile.model_copy(update={"calibrate": profile.calibrate.model_copy(update={"samples": texts})})


def _counts(profile: Profile) -> list[int]:
    found = [_SELF.fullmatch(text) for text in profile.calibrate.samples]
    return [int(one[1] or profile.calibrate.count) for one in found if one]


def _file(profile: Profile, count: int) -> Path:
    from kore.models.load import fingerprint

    folder = model_folder(profile.model.id)
    key = hash_json([fingerprint(folder), profile.calibrate.seed, count])[:8]
    return home() / "self-samples" / f"self-{folder.name}-{key}.jsonl"


def _write(profile: Profile, count: int, path: Path, progress: Progress) -> None:
    from kore.models.load import load
    from kore.models.self_samples import self_samples

    stage = "old samples"
    progress(stage, 0, count, "the model writes them")
    backbone = load(profile.model)
    samples = self_samples(
        backbone, count, seed=profile.calibrate.seed, on_done=lambda done: progress(stage, done, count)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, [sample.to_json() for sample in samples])
