"""The keys are one list: footer, help and docs agree, and every key does something."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input, OptionList

from kore_cli.chat.app import ChatApp
from kore_cli.dashboard.app import KoreApp
from kore_cli.screens.runs import RunsScreen
from kore_cli.screens.spectra import SiteTree, SpectraScreen
from kore_cli.screens.view import View
from kore_cli.widgets.chart import Chart
from kore_cli.widgets.keys import ALL, Key, markdown

PLACES = {
    "everywhere": (KoreApp, View),
    "charts": (Chart,),
    "chat": (ChatApp, Input),
    "runs": (RunsScreen, OptionList),
    "spectra": (SpectraScreen, SiteTree),
}


def test_the_page_in_the_docs_is_the_list() -> None:
    page = Path(__file__).parents[2] / "docs" / "keys.md"
    assert page.read_text(encoding="utf-8") == markdown(), "write it anew: just docs"


@pytest.mark.parametrize("key", ALL, ids=lambda k: f"{k.place}-{k.shown}")
def test_every_key_has_an_action_where_it_works(key: Key) -> None:
    name = key.action.removeprefix("screen.").partition("(")[0]
    owners = PLACES.get(key.place) or (KoreApp.MODES[key.place](),)
    if name == "pan":
        name = "pan_left"
    assert any(hasattr(owner, f"action_{name}") for owner in owners)
    assert key.about and key.words and key.about.lower() != key.words.lower()


def test_no_key_means_two_things_in_one_place() -> None:
    seen: dict[tuple[str, str], str] = {}
    for key in ALL:
        for name in key.keys.split(","):
            assert seen.setdefault((key.place, name), key.action) == key.action
