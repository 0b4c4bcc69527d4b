"""Who answers in the chat: base, retrieval, the loaded adapter, or another that is loaded first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kore.artifacts.run import title_of
from kore_cli.chat.transcript import SAME_WEIGHTS

BASE, KORE = "base", "kore"


class Speakers:
    """Who answers the next question.

    Args:
        opened: the child's target. others: more runs or adapters to switch to.

    Attributes:
        models: the models that the child can prompt, its default first; empty while it loads.
        who: the model to prompt instead. compare: prompt all.
    """

    def __init__(self, opened: str, others: Sequence[str] = (), *, who: str | None, compare: bool) -> None:
        self.models: list[str] = []
        self.who, self.compare = who, compare
        self._adapters = [opened, *others]
        self._who_before = who
        self._bare = False
        # indices: the loaded adapter, the one to load with the next question, with the current question
        self._loaded = 0
        self._next: int | None = None
        self._using: int | None = None

    @property
    def source(self) -> str:
        """The adapter of the current question, as it was named: two may share a title."""
        return self._adapters[self._loaded if self._using is None else self._using]

    @property
    def shown(self) -> str:
        """The title of the loaded adapter."""
        return title_of(self._adapters[self._loaded])

    @property
    def coming(self) -> str | None:
        """The title of the adapter that is loaded next."""
        coming = self._next if self._next is not None else self._using
        return None if coming is None else title_of(self._adapters[coming])

    @property
    def answering(self) -> list[str]:
        """The names of the models that answer now."""
        if self.compare and len(self.models) > 1:
            return self.models[::-1]
        return [self.who] if self.who else self.models[:1]

    def ask(self) -> dict[str, Any]:
        """The fields of a question that name who answers it."""
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
        """The child has loaded its model or another adapter."""
        if not self.models:
            self._bare = set(models) <= set(SAME_WEIGHTS)
        self.models = list(models)
        adapter = next((m for m in models if m not in SAME_WEIGHTS), BASE)
        # "kore" stands for the adapter, whatever its method
        self.who, self._who_before = (adapter if w == KORE else w for w in (self.who, self._who_before))
        if self._using is not None:
            self._loaded, self._using = self._using, None

    def refused(self) -> str | None:
        """A question failed: if its adapter could not be loaded, keep the former one and say so."""
        if self._using is None:
            return None
        new, self._using, self.who = self._using, None, self._who_before
        return f"{title_of(self._adapters[new])} cannot answer; {self.shown} is still there"

    def switch(self) -> str | None:
        """Switch to the adapter, the base, then other adapters in turn; returns why not, if not."""
        at = self.models.index(self.who) if self.who in self.models else 0
        others = len(self._adapters) > 1
        if self.compare and not others:
            return "both answer; ^b switches to one"
        if len(self.models) < 2 and not others:
            return "no other model can answer" if self.models else "the model is still loading"
        if not self.compare and self._next is None and at + 1 < len(self.models):
            self.who = self.models[at + 1]
        else:
            self._next_adapter()
        return None

    def _next_adapter(self) -> None:
        """Choose the adapter after the current choice; the loaded one needs no switch."""
        now = self._loaded if self._next is None else self._next
        if self._next is None:
            self._who_before = self.who
        self.who = None
        after = (now + 1) % len(self._adapters)
        if self._bare and not after and len(self._adapters) > 1:
            after = 1  # the target has no adapter: it answers as the base
        self._next = None if after == self._loaded else after

    def switch_compare(self) -> str | None:
        """Switch between all answering and one; returns why not, if not."""
        if len(self.models) == 1 and self._next is None:
            return "nothing to compare: this model has no adapter"
        self.compare = not self.compare
        return None
