"""The work behind `kore calibrate`: sources, model and output folder from a profile."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.manifest import Manifest
from kore.nullspace.calibrate import Calibration, LayerDone
from kore.nullspace.covariance import Covariance
from kore.nullspace.parallel import Ranks
from kore.nullspace.sources import Source, collect, parse_source
from kore.nullspace.spectra import write_spectra
from kore.run import home

if TYPE_CHECKING:
    from kore.models.load import Backbone
    from kore.profile import Profile
    from kore.records import Sample

SPECTRA = "spectra.json"


class CalibrateJob:
    """One calibration as a profile describes it, checked and planned, ready to run.

    Args:
        out: where to write; default ``$KORE_HOME/covariance/LABEL-FINGERPRINT``.
        offload: read weights from disk, one decoder layer at a time.
        on_note: told about skipped samples.
        backbone: the model, if it is loaded already.
        samples: the samples, if they are drawn already.
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
    ) -> None:
        section = profile.calibrate
        self.profile = profile
        self.sources: list[Source] = [parse_source(text, section.count) for text in section.samples]
        self._pictures = tempfile.TemporaryDirectory(prefix="kore-samples-")
        Ranks.join()
        drawn = samples or collect(
            self.sources,
            section.seed,
            Path(self._pictures.name),
            onevision=section.onevision,
            on_skip=on_note,
        )
        options: dict[str, Any] = {}
        if offload and backbone is None:
            from kore.models.shards import open_skeleton

            backbone, options["weights"] = open_skeleton(profile.model, download=download)
        if backbone is None:
            from kore.models.load import load

            backbone = load(profile.model, download=download)
        label = " + ".join(f"{s.label} {s.count}" for s in self.sources)
        self.calibration = Calibration(backbone, drawn, section, label=label, **options)
        self.plan = self.calibration.plan
        self.manifest: Manifest = self.calibration.manifest()
        self.out = out or default_folder(self.sources, self.manifest)

    @property
    def widest(self) -> int:
        """The largest d_in of the model's sites."""
        return self.calibration.widest

    def run(
        self, *, restart: bool = False, on_layer: Callable[[LayerDone], None] | None = None
    ) -> Covariance:
        """Sum, write, and draw the spectra."""
        covariance = self.calibration.run(self.out, restart=restart, on_layer=on_layer)
        spectra = self.out / SPECTRA
        if self.calibration.ranks.rank == 0 and not spectra.exists():
            write_spectra(covariance, spectra, self.profile.adapter)
        return covariance


def default_folder(sources: list[Source], manifest: Manifest) -> Path:
    """A folder of its own for each distinct calibration, so that the same command finds it again."""
    name = "-".join(source.label.replace(" ", "-") for source in sources)
    return home() / "covariance" / f"{name}-{manifest.fingerprint[:8]}"
