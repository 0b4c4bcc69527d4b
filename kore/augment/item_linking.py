"""Which items are near each other: hard negatives for recognition, and the links of the forest."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from kore.augment.text import calendar_words, content_words, fold, names
from kore.data.records import KnowledgeItem

COMMON = 0.1  # a name in more than this share of the items links nothing
NEAREST = 5


class Neighbours:
    """Finds the most similar other items of the same kind, by weighted words of title, type and text."""

    def __init__(self, items: Sequence[KnowledgeItem]) -> None:
        self.items = items
        bags = [_bag(item) for item in items]
        seen: Counter[str] = Counter(word for bag in bags for word in bag)
        weight = {w: math.log(1 + len(items) / n) for w, n in seen.items()}
        self._rows: list[dict[str, float]] = []
        self._index: dict[str, list[int]] = defaultdict(list)
        for number, bag in enumerate(bags):
            row = {w: weight[w] for w in bag}
            size = math.sqrt(sum(v * v for v in row.values())) or 1.0
            self._rows.append({w: v / size for w, v in row.items()})
            for word in bag:
                # words that a quarter of a large collection has tell nothing apart and cost the most time
                if len(items) < 200 or seen[word] <= len(items) / 4:
                    self._index[word].append(number)

    def nearest(self, index: int, count: int = NEAREST) -> list[int]:
        """The `count` most similar items of the same kind with another title; same type first."""
        own = self.items[index]
        scores: dict[int, float] = defaultdict(float)
        for word, value in self._rows[index].items():
            for other in self._index.get(word, ()):
                scores[other] += value * self._rows[other][word]
        fits = [
            n
            for n in scores
            if n != index and self.items[n].kind == own.kind and fold(self.items[n].title) != fold(own.title)
        ]
        fits.sort(key=lambda n: (self.items[n].type != own.type, -scores[n], n))
        return fits[:count]

    def negative(self, index: int, share: float, seed: int) -> int | None:
        """For a `share` of the items, one of the most similar others; the draw hangs on the item's id
        alone."""
        rng = random.Random(f"{seed}:{self.items[index].id}:negative")
        if rng.random() >= share:
            return None
        near = self.nearest(index)
        if not near:
            own = self.items[index]
            others = ((n, o) for n, o in enumerate(self.items) if o.kind == own.kind)
            near = [n for n, o in others if n != index and fold(o.title) != fold(own.title)]
        return rng.choice(near) if near else None


def link_items(items: Sequence[KnowledgeItem]) -> dict[int, tuple[int, str]]:
    """For each item, the other item that shares the rarest named thing with it, and that name (forest).

    A name counts when it stands in both texts, or is the other's title, and is rare among all items.
    """
    places: dict[str, set[int]] = defaultdict(set)
    written: dict[str, str] = {}
    for number, item in enumerate(items):
        found = [
            *names(item.text),
            *[v for value in item.facts.values() for v in ([value] if isinstance(value, str) else value)],
        ]
        for name in [*found, item.title]:
            if len(name) > 2 and not calendar_words(name) and not name.isdigit():
                places[fold(name)].add(number)
                written.setdefault(fold(name), name)
    most = max(2, int(COMMON * len(items)))
    links: dict[int, tuple[int, str]] = {}
    shared = [(len(who), name) for name, who in places.items() if 2 <= len(who) <= most]
    for _, name in sorted(shared, key=lambda pair: (pair[0], -len(pair[1]), pair[1])):
        members = sorted(places[name])
        for position, number in enumerate(members):
            other = members[(position + 1) % len(members)]
            if number not in links and fold(items[number].title) != name and other != number:
                links[number] = (other, written[name])
    return links


def _bag(item: KnowledgeItem) -> list[str]:
    """Distinct words, in the text's order: sums over them must not hang on how Python orders a set."""
    values = [v for value in item.facts.values() for v in ([value] if isinstance(value, str) else value)]
    told = content_words(f"{item.title} {item.type} {item.text[:600]}")
    return list(dict.fromkeys([*told, *map(fold, values)]))
