"""Sending requests within rate limits and a budget, and again where that helps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from kore.errors import GateNotMet, ProviderError
from kore.llm.rate_limit import Bucket, Cost, Pace, price
from kore.llm.request import Busy, Lasting, NoReply, Refused, Reply, Unusable

REFUSALS = 3  # a model that declines three times means it
LONGEST_BACKOFF = 60.0  # seconds between tries of our own
Repair = tuple[str, str]
"""A reply that could not be read, and what is wrong with it."""


@dataclass(frozen=True)
class Limits:
    """How many requests, how fast, at what price, how often again.

    Attributes:
        retries: further tries of a request that failed, was refused or came back unreadable.
        longest_wait: seconds; a server that asks for more (Retry-After) is asked again after these.
        price_in: money per million input tokens; price_out: output tokens.
        max_cost: money that may be spent.
    """

    concurrency: int = 16
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    price_in: float | None = None
    price_out: float | None = None
    max_cost: float | None = None
    retries: int = 6
    longest_wait: float = 120.0


@dataclass
class Sender:
    """Sends requests to one model.

    Args:
        name: of the model, for errors.
        cost: what is counted on; several senders that keep to one limit share it.
    """

    name: str
    limits: Limits
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        self._pace = Pace(Bucket(self.limits.requests_per_minute), Bucket(self.limits.tokens_per_minute))
        self._gate = asyncio.Semaphore(self.limits.concurrency)

    async def send(
        self,
        attempt: Callable[[Repair | None], Awaitable[Reply]],
        expected: tuple[int, int],
        accept: Callable[[str], object] = lambda text: None,
    ) -> Reply:
        """The first acceptable reply.

        Args:
            attempt: sends the request once, with the unreadable reply to repair if there is one.
            expected: tokens in and out, roughly.
            accept: raises Unusable for a text that cannot be read.

        Raises:
            Refused, Unusable: after all tries. Lasting: nothing usable came back. ProviderError: the model
            failed for good. GateNotMet: the next request might exceed `max_cost`.
        """
        busy = refused = empty = unread = 0  # counted apart: a server that was busy twice has not refused yet
        repair: Repair | None = None
        retries = self.limits.retries
        async with self._gate:
            while True:
                self.cost.retries += bool(busy + refused + empty + unread)
                try:
                    reply = await self._once(attempt, repair, expected)
                    _check(reply, accept)
                except Busy as error:
                    busy, repair = busy + 1, None
                    if busy > retries:
                        raise ProviderError(
                            f"{self.name} failed {busy} times: {error}",
                            hint=error.hint
                            or "the finished part is kept; the same command resumes from there",
                        ) from error
                    await self._rest(error.wait, busy - 1)
                except Refused:
                    refused, repair = refused + 1, None
                    if refused == REFUSALS or refused > retries:
                        raise
                except NoReply as error:
                    empty, repair = empty + 1, None
                    if empty == REFUSALS or empty > retries:
                        raise Lasting(f"{self.name}: {error}", hint="what is finished is kept") from error
                except Unusable as error:
                    unread += 1
                    if unread > retries:
                        raise
                    # one repair of each bad reply, then the request afresh
                    self.cost.repairs += repair is None
                    repair = (reply.text, str(error)) if repair is None else None
                else:
                    return reply

    async def _once(
        self,
        attempt: Callable[[Repair | None], Awaitable[Reply]],
        repair: Repair | None,
        expected: tuple[int, int],
    ) -> Reply:
        estimate = price(*expected, self.limits.price_in, self.limits.price_out) or 0.0
        self._reserve(estimate)
        try:
            await self._pace.wait(sum(expected))
            reply = await attempt(repair)
        finally:
            self.cost.reserved -= estimate
        self.cost.add(reply.tokens_in, reply.tokens_out)
        self._pace.tokens.settle(reply.tokens_in + reply.tokens_out - sum(expected))
        return reply

    def _reserve(self, estimate: float) -> None:
        limit = self.limits.max_cost
        if limit is not None and self.cost.in_all + self.cost.reserved + estimate > limit:
            raise GateNotMet(
                f"the next call might pass the limit of {limit:g} ({self.cost.in_all:.4g} spent)",
                hint="what is finished is kept; a higher --max-cost resumes from there",
            )
        self.cost.reserved += estimate

    async def _rest(self, asked: float | None, attempt: int) -> None:
        if asked is not None:
            wait = min(asked, self.limits.longest_wait)
            self._pace.pause(wait)
            await asyncio.sleep(wait)
            return
        # full jitter: many clients that failed together must not come back together
        await asyncio.sleep(random.uniform(0, min(LONGEST_BACKOFF, 0.5 * 2**attempt)))


def _check(reply: Reply, accept: Callable[[str], object]) -> None:
    try:
        accept(reply.text)
    except Unusable as error:
        if reply.finish == "length":
            raise NoReply(f"the reply was cut off after {reply.tokens_out} tokens: {error}") from error
        raise
