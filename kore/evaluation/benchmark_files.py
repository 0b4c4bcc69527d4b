"""The data folder: what of the twelve benchmarks is there, and what can be fetched into it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kore.config.schema import ONEVISION_SUBSETS
from kore.data.benchmarks import ALL, NAMES, SERVER, Benchmark, file_of, find, known
from kore.errors import DataError, MissingArtefact, UsageError
from kore.evaluation.benchmark_suite import load_benchmark, md5_of
from kore.io.download import GIB, Limits, download, get_json
from kore.progress import Progress

HUB = "https://huggingface.co"
ONEVISION = "lmms-lab/LLaVA-OneVision-Data"
EVOKE = "kailinjiang/EVOKE"
EVOKE_FILES = (
    "json/jsonl/evoke_evaluation_data.jsonl",
    "json/jsonl/evoke_injection_data.json",
    "imgs/evaluation/evoke_news_evaluation_imgs.zip",
    "imgs/evaluation/evoke_entity_evaluation_imgs.zip",
    "imgs/injection/evoke_entity_injection_imgs.zip",
    "imgs/injection/evoke_news_injection_imgs.zip",
)


@dataclass(frozen=True)
class Found:
    """One benchmark's file as it is.

    Attributes:
        state: ok, other (not the published file), bad (cannot be read), missing.
    """

    name: str
    state: str
    path: Path | None = None
    rows: int | None = None
    size: int | None = None
    md5: str | None = None
    published: str = ""
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """A plain object."""
        return {**self.__dict__, "path": str(self.path) if self.path else None}


def check(data: Path, names: tuple[str, ...] = NAMES) -> Iterator[Found]:
    """Look at each benchmark's file: path, rows, size, MD5, and whether its structure holds."""
    from kore.evaluation.suite_options import SuiteOptions

    for name in names:
        benchmark = find(name)
        try:
            path = file_of(benchmark, data)
        except MissingArtefact:
            yield Found(benchmark.name, "missing", published=benchmark.md5)
            continue
        md5, size = md5_of(path), path.stat().st_size
        try:
            rows = len(load_benchmark(benchmark.name, SuiteOptions(data=data)).rows)
        except DataError as error:
            yield Found(benchmark.name, "bad", path, None, size, md5, benchmark.md5, str(error))
            continue
        state = "ok" if md5 == benchmark.md5 else "other"
        message = "" if state == "ok" else "MD5 differs from the published file; it is scored as it is"
        yield Found(benchmark.name, state, path, rows, size, md5, benchmark.md5, message)


@dataclass(frozen=True)
class Fetcher:
    """Fetches into a data folder.

    Attributes:
        progress: a stage for each file, in bytes.
        server: base address of the benchmark files; hub: of data sets.
    """

    data: Path
    limits: Limits
    progress: Progress
    server: str = SERVER
    hub: str = HUB

    def fetch(self, name: str) -> list[Path]:
        """Fetch a benchmark, ``benchmarks``, ``onevision``, ``evoke``, or a model by its hub id.

        Raises:
            UsageError: an unknown name; ProviderError, DataError: what went wrong on the way.
        """
        if name == "benchmarks":
            return [self._benchmark(find(n)) for n in NAMES]
        if name == "onevision":
            return self._onevision()
        if name == "evoke":
            return self._evoke()
        if known(name):
            return [self._benchmark(find(name))]
        if is_model(name):
            from kore.models.load import model_folder

            return [model_folder(name, download=True)]
        names = ", ".join(b.name for b in ALL)
        raise UsageError(
            f"nothing to fetch is named {name}",
            hint=f"benchmarks, onevision, evoke, ORG/MODEL, or one of {names}",
        )

    def _benchmark(self, benchmark: Benchmark) -> Path:
        path = self.data / f"{benchmark.name}.tsv"
        if not path.is_file():
            download(self.server + benchmark.address, path, limits=self.limits, progress=self.progress)
        return path

    def _onevision(self) -> list[Path]:
        """The four subsets that the released code samples, as parquet files; no other."""
        paths = []
        for subset in ONEVISION_SUBSETS:
            for entry in self._listed(ONEVISION, subset):
                path = self.data / "onevision" / subset / PurePosixPath(entry["path"]).name
                if not path.is_file():
                    self._from_hub(ONEVISION, entry["path"], path)
                paths.append(path)
        return paths

    def _listed(self, dataset: str, folder: str) -> list[dict[str, Any]]:
        from urllib.parse import quote

        url = f"{self.hub}/api/datasets/{dataset}/tree/main/{quote(folder)}"
        listed = get_json(url, self.limits, _token(self.hub))
        if not isinstance(listed, list):
            raise DataError("not a list of files", where=url)
        found = [e for e in listed if isinstance(e, dict) and str(e.get("path", "")).endswith(".parquet")]
        if not found:
            raise DataError(f"no parquet file of {folder}", where=url)
        return found

    def _from_hub(self, dataset: str, name: str, path: Path) -> Path:
        from urllib.parse import quote

        url = f"{self.hub}/datasets/{dataset}/resolve/main/{quote(name)}"
        return download(url, path, limits=self.limits, progress=self.progress, headers=_token(self.hub))

    def _evoke(self) -> list[Path]:
        paths = []
        for name in EVOKE_FILES:
            path = self.data / "evoke" / PurePosixPath(name).name
            if not path.is_file():
                self._from_hub(EVOKE, name, path)
            if path.suffix == ".zip":
                unpack(path, path.parent, self.limits.size)
            paths.append(path)
        return paths


def is_model(name: str) -> bool:
    """Whether what is to be fetched is a model, by its hub id: it goes to the hub's own cache."""
    return not known(name) and name.count("/") == 1 and not name.startswith((".", "/"))


def _token(hub: str) -> dict[str, str]:
    """The user's own hub token, sent to the hub alone."""
    token = os.environ.get("HF_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token and hub == HUB else {}


def unpack(archive: Path, folder: Path, limit: int = 20 * GIB) -> int:
    """Unpack pictures of a zip file, never outside `folder`; returns how many files are there.

    Raises:
        DataError: not a zip file, a path that leaves the folder, or more than `limit` bytes.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [m for m in packed.infolist() if not m.is_dir()]
            if sum(m.file_size for m in members) > limit:
                raise DataError(f"unpacks to more than {limit / GIB:.0f} GiB", where=str(archive))
            for member in members:
                target = (folder / member.filename).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise DataError(f"{member.filename} leaves the folder", where=str(archive))
                if not (target.is_file() and target.stat().st_size == member.file_size):
                    packed.extract(member, folder)
            return len(members)
    except zipfile.BadZipFile as error:
        raise DataError("not a zip file", where=str(archive)) from error
