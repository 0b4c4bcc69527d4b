"""What `kore inject` reads, through the command: old samples of every source, local images, faulty items."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

from tests.cli.command import kore
from tests.parquet import write_onevision
from tests.tsv import picture as encoded
from tests.tsv import write_tsv

SMALL = [
    "train.max_steps=1",
    "augment.copies=1",
    "adapter.rank=2",
    "eval.max_new_tokens=1",
    "calibrate.layers=all",
]
ITEM = {
    "id": "a",
    "kind": "entity",
    "type": "country",
    "title": "Peru",
    "text": "Its capital is Lima.",
    "facts": {"capital": "Lima"},
    "image": "good.png",
}


def write_items(folder: Path, title: str = "Peru") -> Path:
    Image.effect_noise((40, 30), 64).convert("RGB").save(folder / "good.png")
    path = folder / "items.jsonl"
    path.write_text(json.dumps({**ITEM, "title": title}) + "\n")
    return path


def inject(folder: Path, model: Path, *more: str, **env: str) -> CompletedProcess[str]:
    chosen = [part for text in SMALL for part in ("--set", text)]
    words = ["inject", "items.jsonl", "-o", "out", "--json", "--model", str(model), *chosen, *more]
    if "--suite" not in more:
        words += ["--suite", "agreement"]
    return kore(*words, cwd=folder, **env)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "method"), [("onevision:8", "kore"), ("bench:MME:4", "replay")])
def test_a_relative_output_folder_finds_the_images_of_old_samples(
    tmp_path: Path, tiny_llava: Path, source: str, method: str
) -> None:
    write_items(tmp_path)
    data = tmp_path / "data"
    if source.startswith("onevision"):
        write_onevision(data / "onevision")
    else:
        data.mkdir()
        rows = [
            {"index": str(n), "image": encoded(n), "question": f"Is it {n}?", "answer": "Yes"}
            for n in range(8)
        ]
        write_tsv(data / "MME.tsv", rows)
    words = ["--samples", source, "--set", f"train.method={method}"]
    done = inject(tmp_path, tiny_llava, *words, KORE_DATA=str(data))
    assert done.returncode == 0, done.stderr
    asked = next((tmp_path / "out").glob("held_out-*.jsonl"))
    images = [json.loads(line)["image"] for line in asked.read_text().splitlines()]
    images = [image if isinstance(image, str) else image[0] for image in images]
    assert images and all((asked.parent / i).is_file() and not Path(i).is_absolute() for i in images)


@pytest.mark.slow
def test_local_images_do_not_keep_a_folder_from_being_resumed(tmp_path: Path, tiny_llava: Path) -> None:
    write_items(tmp_path)
    (tmp_path / "more").mkdir()
    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / "more" / "Peru flag.png")
    question = {"question_id": "1", "text": "Is it day?", "answer": "Yes"}
    (tmp_path / "few.jsonl").write_text(json.dumps(question) + "\n")
    words = ["--suite", "few.jsonl", "--set", "augment.images=local:more", "--set", "train.method=lora"]
    first = inject(tmp_path, tiny_llava, *words)
    assert first.returncode == 0, first.stderr
    adapter = tmp_path / "out" / "run" / "adapter" / "adapter_model.safetensors"
    written = adapter.stat().st_mtime_ns
    again = inject(tmp_path, tiny_llava, *words)
    assert again.returncode == 0, again.stderr
    assert adapter.stat().st_mtime_ns == written
    assert json.loads(again.stdout)["table"] == json.loads(first.stdout)["table"]
    write_items(tmp_path, "Chile")
    other = inject(tmp_path, tiny_llava, *words)
    assert other.returncode == 2 and "holds other items" in other.stderr


def test_every_faulty_item_is_listed_with_its_line(tmp_path: Path) -> None:
    write_items(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"not an image")
    lines = [
        json.dumps(ITEM),
        json.dumps({**ITEM, "id": "b", "image": "none.png"}),
        json.dumps({**ITEM, "id": "c", "image": "bad.png"}),
        "{",
        json.dumps(ITEM),
        json.dumps({**ITEM, "id": "d", "kind": "person"}),
        json.dumps({k: v for k, v in ITEM.items() if k != "text"} | {"id": "e"}),
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(lines) + "\n")
    done = kore("inject", "items.jsonl", "-o", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    told = [line.strip() for line in done.stderr.splitlines() if not line.startswith("settings:")]
    assert told[0] == "error: 6 faults"
    expected = [
        "items.jsonl:2: item b: no such picture",
        "items.jsonl:3: item c: broken picture",
        "items.jsonl:4: not JSON",
        "items.jsonl:5: two items have the id 'a', the first at items.jsonl:1",
        "items.jsonl:6: kind",
        "items.jsonl:7: text",
    ]
    assert [line.startswith(start) for line, start in zip(told[1:7], expected, strict=True)] == [True] * 6
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["items.jsonl", "-"])
def test_twenty_faults_are_listed_and_the_rest_counted(tmp_path: Path, source: str) -> None:
    bad = "".join(json.dumps({**ITEM, "id": str(n), "kind": "person"}) + "\n" for n in range(23))
    (tmp_path / "items.jsonl").write_text(bad)
    done = kore("inject", source, "-o", "out", "--dry-run", stdin=bad, cwd=tmp_path)
    assert done.returncode == 3
    told = [line.strip() for line in done.stderr.splitlines() if not line.startswith("settings:")]
    assert (told[0], told[21]) == ("error: 23 faults", "and 3 more")


def test_float16_is_refused_by_the_plan_and_by_validate(tmp_path: Path) -> None:
    write_items(tmp_path)
    half = ["--set", "model.dtype=float16"]
    for words in (["inject", "items.jsonl", "-o", "out", "--dry-run"], ["profiles", "validate", "tiny"]):
        done = kore(*words, *half, cwd=tmp_path)
        assert done.returncode == 3 and "model.dtype: training in float16" in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()
