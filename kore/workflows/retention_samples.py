"""Old samples for an injection: those that a method trains with, and others on which it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from kore.data.benchmark_prompts import PromptForm
from kore.errors import UsageError
from kore.io.files import hash_json
from kore.io.jsonl import write_jsonl
from kore.progress import Progress, silent
from kore.workflows.self_samples import unwritten, with_self_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kore.config.schema import Profile
    from kore.data.records import Sample

ASKED = 120  # old prompts for the agreement with the base
PROTECTED = "protected"  # the file of old prompts that are in the covariance, for want of others


@dataclass(frozen=True)
class Old:
    """Files of old samples.

    Attributes:
        asked: prompts for agreement and probes; of none that the method is given, where it is given some.
        given: what a method that needs old samples trains with; None for one that needs none.
    """

    asked: Path
    given: Path | None = None


def old_samples(
    profile: Profile,
    folder: Path,
    *,
    needed: bool,
    restart: bool = False,
    images: bool = True,
    progress: Progress = silent,
) -> Old:
    """Draw old samples from the sources of the covariance into files of `folder`.

    The files are named after the content of what was drawn, images included: a changed source gives new
    files, an unchanged one keeps those that are there.

    Args:
        needed: the method trains with old samples. It is given those that a covariance would protect.
        images: whether the model reads images; samples with images are left out where it does not.

    Raises:
        UsageError: too few for both files. MissingArtefact, DataError: see `kore.nullspace.sources.collect`.
    """
    from kore.data.records import relative_to
    from kore.nullspace.batches import sample_hash

    seed = profile.calibrate.seed
    used, others = draw_old(profile, folder / "held_out", images, progress)
    key = hash_json([seed, *([sample_hash(s) for s in drawn] for drawn in (used, others))])[:8]

    def written(name: str, samples: Sequence[Sample]) -> Path:
        path = folder / f"{name}-{key}.jsonl"
        if restart or not path.exists():
            # two sources may use the same ids
            named = [s.model_copy(update={"id": f"{number}-{s.id}"}) for number, s in enumerate(samples)]
            write_jsonl(path, [relative_to(s, folder).to_json() for s in named])
        return path

    if needed:
        mine, asked = divide(used, others, seed)
        return Old(written("held_out", asked), written("given", mine))
    if others:
        return Old(written("held_out", others))
    return Old(written(PROTECTED, used[:: max(1, len(used) // ASKED)]))


def divide(used: Sequence[Sample], others: Sequence[Sample], seed: int) -> tuple[list[Sample], list[Sample]]:
    """What a method is given, in a seeded order, as some take the first of them; and what it is asked.

    Where the sources hold no `others`, a part of `used` is asked instead, and not given.

    Raises:
        UsageError: there is a single sample.
    """
    from kore.nullspace.sources import shuffled

    mine, asked = list(shuffled(used, seed)), list(others)
    if not asked:
        if len(mine) < 2:
            raise UsageError(
                "this method needs old samples, and others to be asked: there is one",
                hint="name more with --samples, or --set calibrate.count=N",
            )
        count = min(ASKED, len(mine) // 2)
        mine, asked = mine[count:], mine[:count]
    return mine, asked


def rehearse_old(profile: Profile, *, needed: bool, images: bool = True) -> int:
    """How many samples are drawn to be protected, or to be given, after the checks of `old_samples`."""
    if (count := unwritten(profile)) is not None:
        return count
    with TemporaryDirectory(prefix="kore-samples-") as place:
        used, others = draw_old(profile, Path(place), images)
    return len(divide(used, others, profile.calibrate.seed)[0]) if needed else len(used)


def draw_old(
    profile: Profile, work: Path, images: bool = True, progress: Progress = silent
) -> tuple[list[Sample], list[Sample]]:
    """The samples that the covariance is summed over, and others of the same sources."""
    from kore.nullspace.sources import collect, collect_others, parse_sources

    profile = with_self_samples(profile, progress)
    section = profile.calibrate
    form = PromptForm.of_model(profile.model.id, profile.eval.protocol)
    sources = parse_sources(section.samples, section.count, form)
    used = collect(sources, section.seed, work, onevision=section.onevision, images=images)
    each = max(1, ASKED // len(sources))
    others = collect_others(
        sources, section.seed, work, used, each, onevision=section.onevision, images=images
    )
    return used, others
