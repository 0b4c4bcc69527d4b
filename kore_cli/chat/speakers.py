"""Who answers in the chat: base, retrieval, the adapter that is on, or another that is put on first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kore.artifacts.run import title_of
from kore_cli.chat.transcript import SAME_WEIGHTS

BASE, KORE = "base", "kore"


class Voices:
    """Who answers the next question.

    Args:
        opened: what the child has opened. others: more runs or adapters to switch to.

    Attributes:
        models: whom the child can ask, first the one whom it asks unless told; empty while it loads.
        who: whom to ask instead. compare: ask all.
    """

    def __init__(self, opened: str, others: Sequence[str] = (), *, who: str | None, compare: bool) -> None:
        self.models: list[str] = []
        self.who, self.compare = who, compare
        self._adapters = [opened, *others]
        self._who_before = who
        self._bare = False
        # which adapter is on, which is to be put on with the next question, which with the present one
        self._on = 0
        self._next: int | None = None
        self._using: int | None = None

    @property
    def source(self) -> str:
        """The adapter that answers the question asked last, as it was named: two may share a title."""
        return self._adapters[self._on if self._using is None else self._using]

    @property
    def shown(self) -> str:
        """The title of the adapter that is on."""
        return title_of(self._adapters[self._on])

    @property
    def coming(self) -> str | None:
        """The title of the one that is not on yet."""
        coming = self._next if self._next is not None else self._using
        return None if coming is None else title_of(self._adapters[coming])

    @property
    def answering(self) -> list[str]:
        """Who answers now, by name."""
        if self.compare and len(self.models) > 1:
            return self.models[::-1]
        return [self.who] if self.who else self.models[:1]

    def ask(self) -> dict[str, Any]:
        """What a question says of who answers it."""
        self._using, self._next = self._next, None
        fields: dict[str, Any] = {}
        if self._using is not None:
            fields["use"] = self._adapters[self._using]
        if self.compare and (len(self.models) != 1 or self._using is not None):
            fields["compare"] = True
        elif self.who and self._using is None:
            fields["model"] = self.who
        return fields

    def ready(self, models: Sequence[str]) -> None:
        """The child has loaded, or put an adapter on."""
        if not self.models:
            self._bare = set(models) <= set(SAME_WEIGHTS)
        self.models = list(models)
        adapter = next((m for m in models if m not in SAME_WEIGHTS), BASE)
        # kore means the adapter, whatever its method
        self.who, self._who_before = (adapter if w == KORE else w for w in (self.who, self._who_before))
        if self._using is not None:
            self._on, self._using = self._using, None

    def refused(self) -> str | None:
        """A question had an error; if an adapter was not put on with it, all is as it was, in words."""
        if self._using is None:
            return None
        new, self._using, self.who = self._using, None, self._who_before
        return f"{title_of(self._adapters[new])} cannot answer; {self.shown} is still there"

    def turn(self) -> str | None:
        """The next who answers: the adapter, the base, then other adapters; or why there is none."""
        at = self.models.index(self.who) if self.who in self.models else 0
        others = len(self._adapters) > 1
        if self.compare and not others:
            return "both answer; ^b lets one"
        if len(self.models) < 2 and not others:
            return "nobody else can answer" if self.models else "the model is still loading"
        if not self.compare and self._next is None and at + 1 < len(self.models):
            self.who = self.models[at + 1]
        else:
            self._next_adapter()
        return None

    def _next_adapter(self) -> None:
        """The adapter after the one chosen now; the one that is on needs no switch."""
        now = self._on if self._next is None else self._next
        if self._next is None:
            self._who_before = self.who
        self.who = None
        after = (now + 1) % len(self._adapters)
        if self._bare and not after and len(self._adapters) > 1:
            after = 1  # what was opened has no adapter to put on: it answers as the base
        self._next = None if after == self._on else after

    def turn_compare(self) -> str | None:
        """All answer, or one; or why not."""
        if len(self.models) == 1 and self._next is None:
            return "nothing to compare: this model has no adapter"
        self.compare = not self.compare
        return None
