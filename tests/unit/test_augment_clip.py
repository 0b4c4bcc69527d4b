"""The real open-clip with random weights: run with ``pytest -m clip`` where the clip extra is installed.

It needs a torchvision that fits the torch beside it, so it is no part of the usual tiers; there a stand-in takes
its place (test_augment_pictures.py).
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from kore.augment import grow
from kore.augment.factory import choose_encoder
from kore.config.schema import AugmentSection
from kore.data.read import read_records
from kore.data.records import KnowledgeItem, KnowledgeTree
from kore.errors import DataError, MissingArtefact, UsageError

pytestmark = [
    pytest.mark.clip,
    pytest.mark.filterwarnings("ignore"),  # of open-clip and timm, not ours
]
MODEL = "ViT-S-32-alt"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small CLIP with random weights, as open-clip writes them."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file(open_clip.create_model(MODEL).state_dict(), path)
    return path


def scene(number: int) -> Image.Image:
    blocks = np.random.default_rng(number).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((224, 224), Image.Resampling.BICUBIC)


def test_identical_pictures_are_nearer_than_similar_and_those_than_different(
    weights: Path, tmp_path: Path
) -> None:
    pictures = {
        "original.png": scene(1),
        "identical.png": scene(1),
        "similar.png": ImageEnhance.Brightness(scene(1).crop((8, 8, 216, 216))).enhance(0.9),
        "different.png": scene(2),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
    rows = choose_encoder(f"clip:{MODEL}/{weights}").features([tmp_path / name for name in pictures])
    assert rows.dtype == np.float32 and rows.shape[0] == 4
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    identical, similar, different = rows[1:] @ rows[0]
    assert identical == pytest.approx(1, abs=1e-5) and identical > similar > different


def test_a_tree_is_grown_with_pictures_that_clip_chose(
    weights: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept"))
    (tmp_path / "found").mkdir()
    scene(1).save(tmp_path / "ardo.png")
    scene(1).save(tmp_path / "found" / "Ardo copy.png")
    for number in range(3):
        Image.blend(scene(1), scene(5 + number), 0.3 + 0.2 * number).save(
            tmp_path / "found" / f"Ardo {number}.png"
        )
    text = "Ardo is a village in Norway. It was founded in 1931."
    item = KnowledgeItem(
        id="a", kind="entity", type="village", title="Ardo", text=text, image=str(tmp_path / "ardo.png")
    )
    section = AugmentSection(
        teacher="offline",
        images=f"local:{tmp_path / 'found'}",
        encoder=f"clip:{MODEL}/{weights}",
        near=0.9999,
    )
    report = grow([item], section, tmp_path / "out")
    tree = next(read_records(KnowledgeTree, report.tree))
    scores = [k["score"] for k in tree.extra["images"]["kept"]]
    assert len(scores) >= 2 and scores == sorted(scores, reverse=True)
    assert tree.extra["images"]["copies"][0]["score"] == 1.0
    assert report.values["pictures"]["encoder"] == f"clip:{MODEL}/random.safetensors"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"]["encoder"] == f"clip:{MODEL}/random.safetensors"
    assert manifest["inputs"]["encoder"]


def test_missing_weights_and_unknown_models_name_the_choices() -> None:
    with pytest.raises(MissingArtefact, match="not in the local cache") as missing:
        choose_encoder("clip:ViT-L-14/openai")
    assert "hf download timm/" in str(missing.value.hint) and "classic" in str(missing.value.hint)
    with pytest.raises(MissingArtefact, match="laion2b"):
        choose_encoder("clip:ViT-B-32/nonsense")
    with pytest.raises(UsageError, match="no model ViT-XX"):
        choose_encoder("clip:ViT-XX/openai")


class Code:
    """What a hostile checkpoint would hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("was here"),)


def test_a_file_that_is_no_checkpoint_or_runs_code_is_refused(
    weights: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "code.pt").write_bytes(pickle.dumps(Code()))
    for name in ("text.pt", "code.pt"):
        with pytest.raises(DataError, match="no weights of"):
            choose_encoder(f"clip:{MODEL}/{tmp_path / name}")
    assert not (tmp_path / "was here").exists()
    with pytest.raises(DataError, match="no weights of ViT-S-32 "):
        choose_encoder(f"clip:ViT-S-32/{weights}")


def test_a_listed_tag_is_prepared_as_open_clip_prepares_it(
    weights: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """OpenAI's ViT-L-14 has another activation than the model's own configuration says."""
    import open_clip

    from kore.augment.images import clip_weights

    made = []
    real = open_clip.create_model_and_transforms

    def create(model: str, pretrained: str, **options: Any) -> Any:
        made.append(options)
        return real(MODEL, pretrained=str(weights), **options)

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    monkeypatch.setattr(clip_weights, "cached_weights", lambda config: str(weights))
    for choice in ("clip:ViT-L-14/openai", "clip:ViT-L-14/laion2b_s32b_b82k"):
        encoder: Any = choose_encoder(choice)
        model, tag = choice.removeprefix("clip:").split("/")
        listed = open_clip.get_pretrained_cfg(model, tag)
        normalise = encoder._prepare.transforms[-1]
        assert tuple(normalise.mean) == tuple(listed["mean"]), choice
        assert made[-1]["force_quick_gelu"] == bool(listed.get("quick_gelu")), choice
    assert [m["force_quick_gelu"] for m in made] == [True, False]
