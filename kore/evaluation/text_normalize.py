"""Text normalisation that the metrics and benchmarks share. Standard library only."""

from __future__ import annotations

import re
import string
import unicodedata

VQA_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_NUMBER = re.compile(r"\d,\d")
_LONE_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
_PERIOD_BEFORE_NO_DIGIT = re.compile(r"\.(?!\d)")
_PERIODS_AT_MOST = 32  # a regex flag stands where the original expects a count; kept, it decides results
ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd "
    "how'll how's i'd i'm i've isn't it'd it'll ma'am mightn't might've mustn't must've needn't "
    "o'clock oughtn't shan't she'd she's should've shouldn't somebody's someone's something's that's "
    "there'd there're there's they'd they'll they're they've wasn't we'd we've weren't what'll what're "
    "what's what've when's where'd where's where've who'd who'll who's who've why'll why're why's "
    "won't would've wouldn't y'all you'd you'll you're you've"
)
_RESTORED = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}
# Words that are English without their apostrophe; restoring one in both texts changes nothing, but
# the released list leaves these alone.
for _word in ("hell", "hes", "ill", "id", "shed", "shell", "well", "were", "wed", "its"):
    _RESTORED.pop(_word, None)
_QUOTES = {"'": "'", '"': '"', "`": "`", "‘": "’", "“": "”", "«": "»", "„": "“", "「": "」", "『": "』"}


def vqa_punctuation(text: str, *, lone_periods_only: bool = False) -> str:
    """The punctuation rule of the VQA evaluation.

    Each of 21 characters is removed if it has a space on either side somewhere in the text, or if the
    text holds digit-comma-digit; else it becomes a space. Then periods go: those not followed by a
    digit, or (`lone_periods_only`) those with no digit on either side; at most 32 of them.
    """
    out = text
    joined = _COMMA_NUMBER.search(text) is not None
    for mark in VQA_PUNCTUATION:
        spaced = mark + " " in text or " " + mark in text
        out = out.replace(mark, "" if spaced or joined else " ")
    pattern = _LONE_PERIOD if lone_periods_only else _PERIOD_BEFORE_NO_DIGIT
    return pattern.sub("", out, count=_PERIODS_AT_MOST)


def vqa_normalise(text: str) -> str:
    """Newlines and tabs to spaces, VQA punctuation, lower case, number words to digits, no articles,
    contractions restored."""
    text = vqa_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_RESTORED.get(word, word) for word in words if word not in ARTICLES)


def unquote(text: str) -> str:
    """Strip matching quotes that enclose the whole text, however many pairs."""
    text = text.strip()
    while len(text) >= 2 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def spaceless(char: str) -> bool:
    """Whether a character belongs to a script that is written without spaces between words (Han,
    Kana, Thai, Lao, Khmer, Myanmar)."""
    code = ord(char)
    return (
        0x0E00 <= code <= 0x0EFF
        or 0x1000 <= code <= 0x109F
        or 0x1780 <= code <= 0x17FF
        or 0x3040 <= code <= 0x30FF
        or 0x3400 <= code <= 0x4DBF
        or 0x4E00 <= code <= 0x9FFF
        or 0xF900 <= code <= 0xFAFF
        or 0xFF66 <= code <= 0xFF9D
        or 0x20000 <= code <= 0x3FFFF
    )


def has_spaceless(text: str) -> bool:
    """Whether any character is of such a script."""
    return any(map(spaceless, text))


_PUNCTUATION_GONE = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def f1_words(text: str) -> list[str]:
    """Lower case, ASCII punctuation deleted, articles dropped, split at spaces."""
    return _ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION_GONE)).split()


def f1_characters(text: str) -> list[str]:
    """As `f1_words`, but each character of a script without spaces is a token of its own (with the
    marks that combine with it), and punctuation of every script is dropped."""
    tokens: list[str] = []
    for word in f1_words(unicodedata.normalize("NFC", text)):
        fresh = True
        for char in word:
            kind = unicodedata.category(char)
            if kind.startswith(("P", "Z")):
                fresh = True
            elif kind.startswith("M") and tokens and not fresh:
                tokens[-1] += char
            elif fresh or spaceless(char) or spaceless(tokens[-1][0]):
                tokens.append(char)
                fresh = False
            else:
                tokens[-1] += char
    return tokens
