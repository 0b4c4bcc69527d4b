"""The work behind `kore calibrate`: sources, model and output folder from a profile."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kore.artifacts.manifest import Manifest, State, claimed
from kore.artifacts.run import home
from kore.config.schema import ONEVISION_SUBSETS
from kore.data.benchmark_prompts import PromptForm
from kore.distributed import on_first_rank
from kore.errors import MissingArtefact, UsageError
from kore.io.files import hash_json, read_json, write_json
from kore.methods.param_count import net_section
from kore.models.image_sizes import check_sizes
from kore.models.linear_table import linear_rows
from kore.models.load import load_processor, model_folder, reads_images
from kore.models.special_tokens import is_text_only
from kore.nullspace.adapter_init import adapted, build
from kore.nullspace.calibrate import Calibration
from kore.nullspace.covariance import Covariance, Site
from kore.nullspace.factor_cache import keep
from kore.nullspace.interference import interference, summary
from kore.nullspace.layer_selection import parse_share
from kore.nullspace.rank_selection import one_rank
from kore.nullspace.site_selection import Choice, choose_sites, score_sites
from kore.nullspace.sources import Source, collect, collect_others, parse_sources
from kore.nullspace.spectra import write_spectra
from kore.progress import Progress, each_line, silent
from kore.workflows.self_samples import with_self_samples

if TYPE_CHECKING:
    from torch import Tensor

    from kore.adapters.stacked import Earlier
    from kore.config.resolve import AdapterSection, Profile
    from kore.data.records import Sample
    from kore.models.load import Backbone
    from kore.models.offload import LayerShards

SPECTRA = "spectra.json"
HELD_OUT = "held-out"
INTERFERENCE = "interference.json"


class CalibrateJob:
    """One calibration as a profile describes it, checked and planned, ready to run.

    On several processes, join them first (`kore.distributed.join`).

    Args:
        out: where to write; default ``$KORE_HOME/covariance/LABEL-FINGERPRINT``.
        offload: read weights from disk, one decoder layer at a time.
        on_note: told about skipped samples, and where they are too few for a null space.
        backbone: the model, if it is loaded already.
        samples: the samples, if they are drawn already.
        earlier: an adapter to put on the model first, so that its inputs are those of the model as it
            now is.
        new: samples to learn, if the profile's layers are auto and it names none.
        factors: `keep_factors` will be asked for, so refuse now what it could not do.

    Raises:
        DataError, UsageError: what the sums alone or with the adapter's frozen A could not end well with.
    """

    def __init__(
        self,
        profile: Profile,
        out: Path | None = None,
        *,
        download: bool = False,
        offload: bool = False,
        on_note: Callable[[str], None] | None = None,
        backbone: Backbone | None = None,
        samples: list[Sample] | None = None,
        earlier: Earlier | None = None,
        new: Path | None = None,
        factors: bool = False,
    ) -> None:
        profile = with_self_samples(profile, each_line(on_note) if on_note else silent)
        section = profile.calibrate
        self.profile = profile
        if factors and profile.adapter.basis != "paper":
            raise UsageError(
                "--factors makes the paper's basis; a contrast needs a covariance of the new samples too",
                hint="leave --factors out: kore train makes A from both",
            )
        share = parse_share(section.layers)
        if share is None and section.new is not None:
            raise UsageError(
                "--new has no effect without --layers auto", hint="add --layers auto, or auto:SHARE"
            )
        if offload and share is not None:
            raise UsageError(
                "layers = auto follows gradients through the whole model", hint="leave --offload out"
            )
        to_learn = read_new(Path(section.new) if section.new else new) if share is not None else []
        form = PromptForm.of_model(profile.model.id, profile.eval.protocol, download=download)
        self.sources: list[Source] = parse_sources(section.samples, section.count, form)
        self._images = Path(tempfile.mkdtemp(prefix="kore-samples-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._images, ignore_errors=True)
        if backbone is not None:
            images = not is_text_only(backbone.processor)
        else:
            images = reads_images(model_folder(profile.model.id, download=download))
        drawn, others = self._draw(samples, images, on_note)
        weights: LayerShards | None = None
        if backbone is None:
            shown = ((image, f"sample {one.id}") for one in [*drawn, *others] for image in one.images)
            folder = model_folder(profile.model.id, download=download)
            check_sizes(shown, lambda: load_processor(folder, profile.model))
            backbone, weights = self._load(offload, download)
        self.linears = linear_rows(backbone.model, backbone.family)
        if earlier is not None:
            earlier.stack_on(backbone)
            if weights is not None:
                weights.then = partial(earlier.put_whole, backbone.model)
        self.choice = self._choose(backbone, drawn, to_learn, share) if share is not None else None
        label = " + ".join(f"{s.label} {s.count}" for s in self.sources)
        self.calibration = Calibration(
            backbone, drawn, section, label=label, weights=weights, choice=self.choice
        )
        if factors or others:
            self._check_adapter()
        self.held = self._beside(others) if others else None
        self.plan = self.calibration.plan
        self.manifest: Manifest = self.calibration.manifest()
        self.out = out or default_folder(self.sources, self.manifest)
        tokens, widest = self.plan.tokens, self.calibration.widest
        if on_note is not None and tokens < widest:
            on_note(f"{tokens:,} tokens for inputs of width {widest:,}: take more samples")

    def _draw(
        self, samples: list[Sample] | None, images: bool, on_note: Callable[[str], None] | None
    ) -> tuple[list[Sample], list[Sample]]:
        """The samples to sum, and the held-out ones."""
        section = self.profile.calibrate
        drawn = samples or collect(
            self.sources,
            section.seed,
            self._images,
            onevision=section.onevision,
            on_skip=on_note,
            images=images,
        )
        if not section.held_out:
            return drawn, []
        others = collect_others(
            self.sources,
            section.seed,
            self._images / HELD_OUT,
            drawn,
            section.held_out,
            onevision=section.onevision,
            on_skip=on_note,
            images=images,
        )
        if not others:
            raise UsageError(
                "no sample is left to hold out: all are in the sums",
                hint="ask for fewer samples (--samples SOURCE:COUNT), or leave --held-out out",
            )
        return drawn, others

    def _load(self, offload: bool, download: bool) -> tuple[Backbone, LayerShards | None]:
        if offload:
            from kore.models.offload import open_skeleton

            return open_skeleton(self.profile.model, download=download)
        from kore.models.load import load

        return load(self.profile.model, download=download), None

    def _choose(
        self, backbone: Backbone, drawn: list[Sample], to_learn: list[Sample], share: float
    ) -> Choice:
        """The inputs that the share keeps, by what the samples to learn need."""
        began = time.monotonic()
        with_answers = self.profile.calibrate.with_answers
        scores = on_first_rank(lambda: score_sites(backbone, drawn, to_learn, with_answers=with_answers))
        return replace(choose_sites(scores, share), seconds=round(time.monotonic() - began, 2))

    def to_json(self) -> dict[str, Any]:
        """Folder, plan, chosen layers, and every linear of the language model."""
        return {
            "out": str(self.out),
            **self.plan.to_json(),
            "choice": self.choice.to_json() if self.choice else None,
            "linears": [row.to_json() for row in self.linears],
        }

    def lines(self) -> list[str]:
        """What will be summed, and what that takes, for people."""
        whole = "its layers cannot be run alone: whole forward passes, one for each group of layers"
        return [
            *([self.choice.line()] if self.choice else []),
            *self.plan.lines(),
            *([whole] if self.calibration.whole else []),
        ]

    def close(self) -> None:
        """Remove the images that were unpacked for this job."""
        self._remove()

    def run(self, *, restart: bool = False, progress: Progress = silent) -> Covariance:
        """Sum, write, and draw the spectra."""
        spectra = self.out / SPECTRA
        if self.held is not None:
            with ExitStack() as claims:
                state = self._claim_both(self.held, restart, claims)
                covariance = self.calibration.fill(self.out, state, progress)
                held = self.held.run(self.out / HELD_OUT)
                on_first_rank(lambda: self._measure(covariance, held, spectra))
            return covariance
        covariance = self.calibration.run(self.out, restart=restart, progress=progress)

        def write() -> None:
            if not spectra.exists():
                write_spectra(covariance, spectra, self.profile.adapter)

        on_first_rank(write)
        return covariance

    def check_room(self) -> None:
        """Refuse before starting what could not finish; see `Calibration.check_room`."""
        self.calibration.check_room(self.out)
        if self.held is not None:
            self.held.check_room(self.out / HELD_OUT)

    def _beside(self, others: list[Sample]) -> Calibration:
        """The calibration of the held-out samples."""
        return Calibration(
            self.calibration.backbone,
            others,
            self.profile.calibrate,
            label=f"{len(others)} held out",
            weights=self.calibration.weights,
            choice=self.choice,
        )

    def _claim_both(self, held: Calibration, restart: bool, claims: ExitStack) -> State:
        """Hold the folder; find out before anything is summed whether the held-out samples can be, too."""

        def both() -> tuple[State, State]:
            own = claims.enter_context(claimed(self.out, self.manifest, restart=restart, always=True))
            try:
                with claimed(self.out / HELD_OUT, held.manifest()) as state:
                    return own, state
            except UsageError as error:
                # --restart would discard the sums beside it, too
                hint = f"discard the held-out ones with: rm -r {self.out / HELD_OUT}"
                raise UsageError(error.message, hint=hint) from error

        own, beside = on_first_rank(both)
        if beside != "done":
            held.check_room(self.out / HELD_OUT)
        return own

    def _measure(self, covariance: Covariance, held: Covariance, spectra: Path) -> None:
        """What an adapter would do to the held-out samples, for its settings as they are now."""
        # the contrast basis needs the new samples too: what is measured is the paper's
        adapter = self.adapter.model_copy(update={"basis": "paper"})
        identity = hash_json([adapter.model_dump(mode="json"), held.manifest.fingerprint])
        path = self.out / INTERFERENCE
        if spectra.exists() and _measured(path) == identity:
            return
        made = build(self, covariance, adapter)
        rows = interference(self.weight, made.a, held, own=covariance)
        energy = {row["site"]: row["energy"] for row in rows}
        write_spectra(covariance, spectra, adapter, report=made.report, held_out=energy)
        # last: a kill before it makes both again
        write_json(path, {"adapter": identity, "summary": summary(rows), "linears": rows})

    @property
    def adapter(self) -> AdapterSection:
        """The adapter's settings as training will take them."""
        backbone = self.calibration.backbone
        return net_section(self.profile, backbone.model, backbone.family)

    def _check_adapter(self) -> None:
        """Refuse a rank that does not fit the model's linears, without their sums."""
        linears = [
            (layer, name, linear)
            for layer, each in self.calibration.linears.items()
            for name, linear in each.items()
        ]
        sites = [Site(name, layer, "", (name,), x.in_features, 0, 0.0, 0.0) for layer, name, x in linears]
        section = self.adapter
        one_rank(adapted(sites, section), {name: x.out_features for _, name, x in linears}, section)

    def keep_factors(self, covariance: Covariance, progress: Progress = silent) -> Path:
        """Compute the adapter's frozen A too, and store it beside the covariance."""
        return on_first_rank(lambda: keep(self, covariance, self.adapter, progress=progress))

    def out_features(self, linear: str) -> int:
        """d_out of a linear, without reading its weight."""
        return self.calibration.backbone.out_features(linear)

    def weight(self, linear: str) -> Tensor:
        """W0 of a linear of the calibrated model, wherever its weights lie."""
        backbone = self.calibration.backbone
        shards = getattr(self.calibration.weights, "shards", None)
        if shards is None:
            return backbone.weight(linear)
        weight = cast("Tensor", shards.weight(linear))
        return backbone.earlier.weight(linear, weight) if backbone.earlier else weight


def _measured(path: Path) -> str | None:
    """What the file's measures are of: an adapter's settings and held-out samples."""
    return read_json(path).get("adapter") if path.is_file() else None


def default_folder(sources: list[Source], manifest: Manifest) -> Path:
    """A folder of its own for each distinct calibration, so that the same command finds it again."""
    name = "-".join(source.label.replace(" ", "-") for source in sources)
    return home() / "covariance" / f"{name}-{manifest.fingerprint[:8]}"


def each_category(profile: Profile) -> Profile:
    """The profile with calibrate.count samples of each of onevision's categories, not of all together."""
    section = profile.calibrate
    whole = f"onevision:{len(ONEVISION_SUBSETS) * section.count}"
    samples = [whole if text == "onevision" else text for text in section.samples]
    return profile.model_copy(update={"calibrate": section.model_copy(update={"samples": samples})})


def read_new(path: Path | None) -> list[Sample]:
    """The samples to learn, for layers = auto.

    Raises:
        UsageError: none named. MissingArtefact: no such file.
    """
    from kore.data.read import read_records
    from kore.data.records import Sample

    if path is None:
        raise UsageError(
            "layers = auto weighs new samples against old ones", hint="name the new ones: --new FILE.jsonl"
        )
    if not path.is_file():
        raise MissingArtefact(f"no such file: {path}", hint="make samples with: kore augment ITEMS -o FOLDER")
    return list(read_records(Sample, path))
