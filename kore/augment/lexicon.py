"""Small lists of words in English, Chinese and Arabic: numbers, months, negations, words without a meaning of
their own."""

from __future__ import annotations

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_LARGER = (
    "thirty:30 forty:40 fifty:50 sixty:60 seventy:70 eighty:80 ninety:90 hundred:100 thousand:1000 dozen:12"
)
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth"
NUMBER_WORDS = {
    **{word: str(value) for value, word in enumerate(_UNITS.split())},
    **{word: digits for word, _, digits in (pair.partition(":") for pair in _LARGER.split())},
    **{word: str(value) for value, word in enumerate(_ORDINALS.split(), 1)},
    "million": "1000000",
    "billion": "1000000000",
}
_MONTHS = "january february march april may june july august september october november december"
MONTHS = _MONTHS.split()
_DAYS = "monday tuesday wednesday thursday friday saturday sunday"
DAYS = _DAYS.split()
_NEGATIONS = (
    "no not never none nobody nothing neither nor cannot without n't don't doesn't didn't "
    "isn't aren't wasn't weren't won't wouldn't can't couldn't shouldn't hasn't haven't hadn't "
    "不 没 未 非 无 لا لم لن ليس ليست ما غير "
)
NEGATIONS = frozenset(_NEGATIONS.split())
_STOP_WORDS = (
    "a an the of in on at to for from by with and or as is are was were be been being it its "
    "this that these those he she they them his her their who whom which what when where why "
    "how do does did has have had will would can could may might should shall than then there "
    "here so such into over under about after before between during also not no very more most "
    "some any all both each other one i you we us our your my me if but while up down out 的 "
    "了 是 在 和 与 于 有 为 这 那 个 一 也 都 而 及 被 他 她 它 们 吗 呢 什 么 من في على إلى "
    "عن هو هي أن إن كان كانت التي الذي و ما هذا هذه ذلك مع "
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
