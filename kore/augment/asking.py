"""Asking a teacher, with everything around it: cache, limits, retries, one repair, cost and its ceiling."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kore.augment.call import Busy, Call, Refused, Reply, Teacher, Unusable, make_call
from kore.augment.limits import EXPECTED_OUT, Bucket, Cost, Pace, estimate_tokens, price
from kore.augment.parse import parse
from kore.augment.prompts import load_prompts
from kore.augment.replies import ReplyStore
from kore.augment.schemas import ReplyForm
from kore.config.schema import AugmentSection
from kore.data.records import KnowledgeItem
from kore.errors import GateNotMet, ProviderError

F = TypeVar("F", bound=ReplyForm)
REFUSALS = 3  # a model that declines thrice means it
LONGEST_WAIT = 60.0  # seconds between tries of our own; a server may ask for more


@dataclass
class Usage:
    """What one item's replies took, whether paid now or earlier."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, reply: Reply) -> None:
        """Count a reply."""
        self.calls += 1
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out


@dataclass
class Asker:
    """Asks one teacher on behalf of all items.

    Args:
        store: kept replies; None keeps nothing.
        cost: what is counted on; shared with the judge's asker, so that both keep to one limit.
    """

    teacher: Teacher
    settings: AugmentSection
    store: ReplyStore | None
    cost: Cost
    _pace: Pace = field(init=False)
    _gate: asyncio.Semaphore = field(init=False)
    _open: dict[str, asyncio.Future[Reply]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s = self.settings
        self.prompts = load_prompts(Path(s.templates) if s.templates else None)
        self._pace = Pace(Bucket(s.requests_per_minute), Bucket(s.tokens_per_minute))
        self._gate = asyncio.Semaphore(s.concurrency)
        if not self.teacher.cached:
            self.store = None

    def call(self, task: str, form: type[ReplyForm], item: KnowledgeItem, seed: int, **values: Any) -> Call:
        """`make_call` with the prompts of the settings."""
        return make_call(task, form, item, seed, prompts=self.prompts, **values)

    async def ask(self, call: Call, form: type[F], usage: Usage) -> F:
        """The reply to `call`, from the cache or the teacher.

        Raises:
            Refused, Unusable: after all tries. ProviderError: the teacher failed for good.
            GateNotMet: the next call might go past ``max_cost``.
        """
        if self.store is None:
            reply = await self._paid(call)
        else:
            reply = await self._kept(call, self.store)
        usage.add(reply)
        return parse(reply.text, form)

    async def _kept(self, call: Call, store: ReplyStore) -> Reply:
        key = call.key(self.teacher.name, self.teacher.parameters)
        if reply := store.get(key):
            self.cost.cached += 1
            return reply
        if key in self._open:  # the same question is being asked right now
            self.cost.cached += 1
            return await asyncio.shield(self._open[key])
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._open[key] = future
        try:
            reply = await self._paid(call)
            store.put(key, reply, self.teacher.name, call.prompt)
            future.set_result(reply)
            # replies come in bursts: let the calls that wait be sent before this one's reply is worked on, or
            # their slots stand idle for as long as all replies of the burst take
            await asyncio.sleep(0)
            return reply
        except BaseException as error:
            if isinstance(error, Exception):
                future.set_exception(error)
                future.exception()  # seen: others may or may not be waiting for it
            else:
                future.cancel()
            raise
        finally:
            del self._open[key]

    async def _paid(self, call: Call) -> Reply:
        """A reply that parses: tries again when the teacher is busy, refuses or sends something
        unreadable."""
        expected = estimate_tokens(call.system + call.user), EXPECTED_OUT.get(call.task, 200)
        busy = refused = unread = (
            0  # each counted by itself: a server that was busy twice has not refused yet
        )
        repair: tuple[str, str] | None = None
        async with self._gate:
            while True:
                self.cost.retries += bool(busy + refused + unread)
                try:
                    reply = await self._once(call, repair, expected)
                    parse(reply.text, call.form)
                except Busy as error:
                    busy, repair = busy + 1, None
                    if busy > self.settings.retries:
                        raise ProviderError(
                            f"{self.teacher.name} failed {busy} times: {error}",
                            hint="the finished part is kept; the same command goes on from there",
                        ) from error
                    await self._rest(error.wait, busy - 1)
                except Refused:
                    refused, repair = refused + 1, None
                    if refused == REFUSALS or refused > self.settings.retries:
                        raise
                except Unusable as error:
                    unread += 1
                    if unread > self.settings.retries:
                        raise
                    # one repair of each bad reply, then the question afresh
                    self.cost.repairs += repair is None
                    repair = (reply.text, str(error)) if repair is None else None
                else:
                    return reply

    async def _once(self, call: Call, repair: tuple[str, str] | None, expected: tuple[int, int]) -> Reply:
        estimate = price(*expected, self.settings.price_in, self.settings.price_out) or 0.0
        self._reserve(estimate)
        try:
            await self._pace.wait(sum(expected))
            reply = await self.teacher.reply(call, repair)
        finally:
            self.cost.reserved -= estimate
        self.cost.add(reply.tokens_in, reply.tokens_out)
        self._pace.tokens.settle(reply.tokens_in + reply.tokens_out - sum(expected))
        return reply

    def _reserve(self, estimate: float) -> None:
        limit = self.settings.max_cost
        if limit is not None and self.cost.in_all + self.cost.reserved + estimate > limit:
            raise GateNotMet(
                f"the next call might pass the limit of {limit:g} ({self.cost.in_all:.4g} spent)",
                hint="what is finished is kept; a higher --max-cost goes on from there",
            )
        self.cost.reserved += estimate

    async def _rest(self, wait: float | None, attempt: int) -> None:
        if wait is not None:
            self._pace.pause(wait)
            await asyncio.sleep(wait)
            return
        # full jitter: many clients that failed together must not come back together
        await asyncio.sleep(random.uniform(0, min(LONGEST_WAIT, 0.5 * 2**attempt)))
