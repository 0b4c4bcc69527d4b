"""kore inject: items of anyone's own, through every stage, into one run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.artifacts.run import home
from kore.data.objects import name_of
from kore.errors import UsageError
from kore.io.files import check_place, hash_json
from kore.workflows.neighbours import split_neighbours
from kore.workflows.retention_samples import rehearse_old
from kore.workflows.sequential import Batch, batches, find_run, read_earlier

if TYPE_CHECKING:
    from kore.config.resolve import Profile, Resolved
    from kore.data.records import KnowledgeItem


@dataclass(frozen=True)
class Request:
    """The options of ``kore inject``.

    Attributes:
        items: KnowledgeItem records, or ``-``.
        suites: retention suites besides the items' own questions; without any, agreement with the
            untouched base on held-out old prompts stands in for them.
        after: a finished run whose model the items are taught to, its own items protected.
        command: the command line that goes on with it.
    """

    items: str
    resolved: Resolved
    out: Path | None = None
    suites: Sequence[str] = ()
    after: Path | None = None
    data_dir: Path | None = None
    image_root: Path | None = None
    restart: bool = False
    command: tuple[str, ...] = ("kore", "inject")


@dataclass(frozen=True)
class Plan:
    """What was read and checked before anything runs.

    Attributes:
        notes: what the model will probably not understand of the items.
        earlier: the runs that came before, oldest first.
        places: item id -> ``file:line``.
        images: whether the model reads images.
    """

    request: Request
    items: list[KnowledgeItem]
    folder: Path
    model: Path
    notes: list[str] = field(default_factory=list)
    earlier: list[Batch] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    images: bool = True

    @property
    def constrained(self) -> bool:
        """Whether the adapter keeps what a covariance says."""
        train = self.request.resolved.profile.train
        return train.method == "kore" and train.constraint

    @property
    def needs_old(self) -> bool:
        """Whether the method trains with old samples."""
        from kore.methods.registry import method_class

        return method_class(self.request.resolved.profile.train.method).traits.needs_old

    @property
    def draws_old(self) -> bool:
        """Whether old samples are wanted: to protect, to train with, to be asked or to keep watch on."""
        watched = self.request.resolved.profile.train.keep is not None
        return self.constrained or self.needs_old or watched or not self.request.suites

    def rehearse(self) -> dict[str, Any]:
        """What ``--dry-run`` prints, after the checks that the stages would make; nothing is written.

        Raises:
            DataError, UsageError, MissingArtefact: what a stage would end with before its work.
        """
        from kore.augment.cost_estimate import estimate
        from kore.augment.fit import Fitter
        from kore.methods.param_count import TOTAL, table
        from kore.models.architectures import linears_of
        from kore.models.token_budget import token_budget

        profile = self.request.resolved.profile
        fitter = Fitter(token_budget(profile.model, profile.train), self.places)
        others, neighbours = split_neighbours(profile)
        drawn = rehearse_old(others, needed=self.needs_old, images=self.images) if self.draws_old else None
        rows = [] if self.constrained and _needs_covariance(profile) else table(profile)
        return {
            "v": 1,
            "items": len(self.items),
            "folder": str(self.folder),
            "model": str(self.model),
            "method": profile.train.method,
            "teacher": profile.augment.teacher,
            "augment": estimate(self.items, profile.augment, profile.train.seed, fitter=fitter).to_json(),
            "samples": list(profile.calibrate.samples),
            "samples_drawn": drawn,
            "neighbours": neighbours,
            "rank": profile.adapter.rank,
            "trainable": next((row["trainable"] for row in rows if row["part"] == TOTAL), None),
            "batch": profile.train.batch,
            "after": [batch.to_json() for batch in self.earlier],
            "linears": [row.to_json() for row in linears_of(self.model)],
            "notes": self.notes,
        }


def plan(request: Request) -> Plan:
    """Read the items, find the model, and say what will not be understood.

    Raises:
        DataError: bad records, ids and pictures, each with its place, or a run of another base to go on from.
        MissingArtefact: the model or the earlier run is not here, or not finished.
        UsageError: a method that cannot be chained, or settings that do not go together.
        ProfileError: an unknown suite, method or setting of a method.
    """
    from kore.augment.inputs import read_checked
    from kore.evaluation.suites import check_images, resolve_suites

    read = read_checked(request.items, image_root=request.image_root)
    # torch is loaded once the items are known to be sound
    from kore.models.image_sizes import check_sizes
    from kore.models.load import EMBEDDED, load_processor, model_folder, reads_images
    from kore.workflows.injection_suites import earlier_suites, suite_options
    from kore.workflows.validate import check_training

    check_training(request.resolved.profile)
    items = [item for _, item in read]
    places = {item.id: where for where, item in read}
    for suite in resolve_suites(request.suites, suite_options(request.data_dir)):
        if suite.role == "adaptation":
            raise UsageError(
                f"suite {suite.name} asks for new knowledge, which here is your items'",
                hint=f"ask it afterwards: kore eval RUN --suite {suite.name}",
            )
        check_images(suite)
    model = model_folder(request.resolved.profile.model.id)
    notes = []
    if not (images := reads_images(model)):
        if shown := [item for item in items if item.images]:
            notes.append(f"the model reads no images: those of {len(shown)} items are left out")
        items = [item.model_copy(update={"image": None}) for item in items]
        request = _without_images(request)
    section = request.resolved.profile.model
    shown_at = ((path, places[item.id]) for item in items for path in item.images if "://" not in path)
    check_sizes(shown_at, lambda: load_processor(model, section))
    earlier = check_after(request, model) if request.after else []
    for suite in earlier_suites(earlier):
        check_images(suite)
    stem = name_of(Path(request.items))
    name = f"{stem}-{hash_json([item.to_json() for item in items])[:8]}"
    if request.resolved.profile.model.id == EMBEDDED:
        from kore.demo.vocabulary_check import beyond

        notes += beyond(items, model)
    folder = request.out or home() / name
    if any(folder.resolve() in (b.run.resolve(), b.run.resolve().parent) for b in earlier):
        raise UsageError(f"{folder} holds the earlier run", hint="choose another folder with -o")
    check_place(folder)
    if not request.restart:
        check_items(folder, items)
    return Plan(request, items, folder, model, notes, earlier, places, images)


def _without_images(request: Request) -> Request:
    """The request of a text-only model: its items are shown no images, wherever they might come from."""
    profile = request.resolved.profile
    augment = profile.augment.model_copy(update={"images": "none"})
    resolved = replace(request.resolved, profile=profile.model_copy(update={"augment": augment}))
    return replace(request, resolved=resolved)


def _needs_covariance(profile: Profile) -> bool:
    """Whether only a covariance can tell how many parameters are trained."""
    adapter = profile.adapter
    everywhere = adapter.layers == profile.calibrate.layers == "all"
    return adapter.known_rank is None or not everywhere


def check_items(folder: Path, items: Sequence[KnowledgeItem]) -> None:
    """Refuse a folder in which other items were taught, and say how these can come after them."""
    from kore.artifacts.manifest import NAME, read_manifest
    from kore.augment.inputs import input_hashes

    tree, hashes = folder / "tree", input_hashes(items)
    # a tree has inputs besides the items (image folder, templates, replies), which its own claim compares
    if (tree / NAME).exists() and not hashes.items() <= read_manifest(tree).inputs.items():
        raise UsageError(
            f"{folder} holds other items",
            hint=f"choose another folder with -o; teach these after those with --after {folder}; "
            "or discard it with --restart",
        )


def check_after(request: Request, model: Path) -> list[Batch]:
    """The chain that a request goes on from, oldest first, checked against its model and method."""
    from kore.methods.registry import make_method
    from kore.models.load import fingerprint

    assert request.after is not None
    train = request.resolved.profile.train
    method = make_method(train.method, thaw_a=train.thaw_a, constraint=train.constraint)
    run = find_run(request.after)
    read_earlier(run.folder, method).check(fingerprint(model))
    return list(batches(run.folder))[::-1]
