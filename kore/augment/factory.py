"""From settings to the teacher, the pictures and the encoder; a choice that cannot be met names the
others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kore.augment.baselines.samples import needs_model
from kore.augment.call import Teacher
from kore.augment.images.download import Downloader
from kore.augment.images.encoder import ClassicEncoder, PictureEncoder
from kore.augment.images.finder import Finder
from kore.augment.images.local import LocalImages
from kore.augment.images.provider import ImageProvider, NoImages, local_folder
from kore.augment.images.store import ImageStore
from kore.augment.teachers.model import ModelTeacher, ReplayTeacher
from kore.augment.teachers.offline import OfflineTeacher
from kore.augment.templates import Templates
from kore.config.schema import AugmentSection
from kore.errors import UsageError
from kore.llm.client import KEY, Client, api_key

TEACHERS = (
    "openai:MODEL (with OPENAI_API_KEY, or base_url for your own server), hf:PATH (a local chat model), "
    "offline (rules, no model) or replay:FILE"
)
PROVIDERS = "local:DIR, commons, http or none"


def choose_teacher(
    choice: str | None, settings: AugmentSection, templates: Mapping[str, Templates], seed: int
) -> Teacher:
    """The teacher by name.

    Raises:
        UsageError: none named, an unknown name, or no key; names the choices.
    """
    if not choice:
        raise UsageError("no teacher chosen", hint=f"--teacher {TEACHERS}")
    kind, _, rest = choice.partition(":")
    if choice == "offline":
        return OfflineTeacher(templates, seed)
    if kind == "openai" and rest:
        if not api_key() and not settings.base_url:
            raise UsageError(f"no {KEY} in the environment for {choice}", hint=f"the teachers are {TEACHERS}")
        client = Client(rest, base_url=settings.base_url, timeout=settings.timeout)
        return ModelTeacher(client, settings.temperature)
    if kind == "hf" and rest:
        from kore.llm.local import LocalModel

        model = LocalModel(rest, temperature=settings.temperature, batch=min(settings.concurrency, 16))
        return ModelTeacher(model, settings.temperature)
    if kind == "replay" and rest:
        return ReplayTeacher(Path(rest))
    raise UsageError(f"no such teacher: {choice}", hint=f"--teacher {TEACHERS}")


def check_teachers(settings: AugmentSection, *teachers: Teacher | None) -> None:
    """Refuse what these teachers cannot do, and a limit of money that nothing is counted against.

    Raises:
        UsageError: with what to choose instead.
    """
    if needs_model(settings.strategy) and settings.teacher == "offline":
        raise UsageError(
            f"strategy {settings.strategy} rephrases by a model", hint="--teacher openai:MODEL or hf:PATH"
        )
    if settings.judge == "offline":
        raise UsageError("the offline teacher cannot judge", hint="--judge openai:MODEL or hf:PATH")
    priced = settings.price_in is not None or settings.price_out is not None
    if settings.max_cost is not None and not priced and any(t is not None and t.cached for t in teachers):
        raise UsageError(
            "a limit of cost needs prices, and the profile has none",
            hint="--set augment.price_in=2.5 --set augment.price_out=10, money per million tokens",
        )


def choose_provider(settings: AugmentSection) -> ImageProvider:
    """The picture search by name.

    Raises:
        UsageError: an unknown name; names the choices.
    """
    kind, _, rest = settings.images.partition(":")
    if settings.images == "none":
        return NoImages()
    if kind == "local" and rest:
        return LocalImages(local_folder(settings.images))
    if settings.images == "commons":
        from kore.augment.images.commons import CommonsImages

        return CommonsImages(Downloader(private=settings.private_addresses))
    if settings.images == "http":
        from kore.augment.images.http import HttpSearch

        return HttpSearch(settings.http, private=settings.private_addresses)
    raise UsageError(f"no such source of pictures: {settings.images}", hint=f"--images {PROVIDERS}")


def choose_encoder(choice: str, *, needed: bool = True) -> PictureEncoder | None:
    """The picture encoder by name; None when it is not `needed`: then nothing is loaded, no weights missed.

    Raises:
        UsageError: an unknown name. MissingArtefact: no weights; both name the choices.
    """
    kind, _, rest = choice.partition(":")
    model, _, weights = rest.partition("/")
    if choice != "classic" and not (kind == "clip" and model and weights):
        raise UsageError(
            f"no such encoder: {choice}", hint="--encoder classic, clip:MODEL/TAG or clip:MODEL/FILE"
        )
    if not needed:
        return None
    if choice == "classic":
        return ClassicEncoder()
    from kore.augment.images.clip import ClipEncoder

    return ClipEncoder(rest)


def make_finder(settings: AugmentSection, store: ImageStore, kept: Path | None) -> Finder:
    """The search with its downloads."""
    return Finder(choose_provider(settings), store, Downloader(private=settings.private_addresses), kept)
