"""Checks names on the leaderboard: printable, in one Unicode form, and no two that look alike.

Names that differ only by case, width of letters or spaces are the same (`name_key`).  Different
names that a reader may confuse are refused: names are compared by their appearance (`skeleton`),
after Unicode Technical Standard 39, "Unicode Security Mechanisms", section 4.  The table below was
made by hand.  It covers letters of Greek, Cyrillic, Armenian and the phonetic alphabet that look
like Latin ones in common fonts, similar letters and digits (I, l and 1; O and 0; rn and m; vv and
w), dashes, quotes and dots.  Variants of a letter (wide, mathematical, circled, superscript, with
accents) come from Unicode's tables.  Look-alikes within and between other scripts are not covered.
"""

from __future__ import annotations

import unicodedata

from mico_competition.scoring.printable import is_plain

_ALIKE = {
    "a": "аαɑ",
    "b": "ƅЬь",
    "c": "сϲᴄ",
    "d": "ԁɗ",
    "e": "еҽє",
    "f": "ƒẝ",
    "g": "ɡցƍ",
    "h": "һհ",
    "i": "іιɩı",
    "j": "јϳյ",
    "k": "κкĸ",
    "l": "I1|ӏӀІΙ",
    "n": "ոռη",
    "o": "0OоοօσОΟՕ",
    "p": "рρϱ",
    "q": "ԛզգ",
    "r": "гᴦ",
    "s": "ѕꜱƽ",
    "t": "τт",
    "u": "υսᴜ",
    "v": "νѵᴠ",
    "x": "хχ×",
    "y": "уγүყʏ",
    "z": "ᴢʐ",
    "A": "АΑ",
    "B": "ВΒв",
    "C": "СϹ",
    "E": "ЕΕ",
    "G": "Ԍ",
    "H": "НΗн",
    "J": "Ј",
    "K": "КΚ",
    "M": "МΜм",
    "N": "Ν",
    "P": "РΡ",
    "Q": "Ԛ",
    "S": "Ѕ",
    "T": "ТΤ",
    "V": "Ѵ",
    "W": "Ԝ",
    "X": "ХΧ",
    "Y": "ΥҮУ",
    "Z": "Ζ",
    "3": "ЗзƷӠ",
    "6": "б",
    "rn": "m",
    "vv": "wѡԝω",
    "-": "‐‑‒–—―−ー",
    "'": "`´‘’ʼʹ′",
    '"': "“”″",
    ".": "·•‧∙",
    "/": "∕⁄",
    ":": "ː∶",
    ",": "‚،",
}
_PROTOTYPE = {ord(other): known for known, others in _ALIKE.items() for other in others}
_JOINERS = "\u200c\u200d"
_FIRST_JOINED = 0x600  # the first code point (Arabic) of scripts that need joiners


def is_line(text: object, longest: int, shortest: int = 0) -> bool:
    """Whether `text` is one line without characters that are invisible or affect others.

    Joiners are invisible too, but are allowed between letters of scripts that need them.
    """
    if not isinstance(text, str) or not shortest <= len(text) <= longest:
        return False
    for at, char in enumerate(text):
        if char in _JOINERS and not (
            0 < at < len(text) - 1 and _is_joined(text[at - 1]) and _is_joined(text[at + 1])
        ):
            return False
    plain = text.translate(dict.fromkeys(map(ord, _JOINERS)))
    return is_plain(plain) and plain == plain.strip()


def _is_joined(char: str) -> bool:
    return ord(char) >= _FIRST_JOINED and unicodedata.category(char)[0] in "LM"


def is_name(text: object) -> bool:
    """Whether `text` can be a name: one line, not empty, in Unicode's form NFKC."""
    return is_line(text, 80, 1) and text == in_one_form(str(text))


def in_one_form(name: str) -> str:
    """`name` in Unicode's form NFKC, with single spaces, as it is stored and shown."""
    return " ".join(unicodedata.normalize("NFKC", name).split(" "))


def name_key(name: str) -> str:
    """`name` in the form for comparison, without case, width of letters and spaces."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def looks(name: str) -> frozenset[str]:
    """The forms that `name` looks like; two names that share a form look alike.

    >>> looks("Раураl") & looks("PayPaI") != frozenset(), looks("Ada") & looks("Eve")
    (True, frozenset())
    """
    return frozenset({skeleton(name), skeleton(name.casefold())})


def skeleton(name: str) -> str:
    """The letters that `name` looks like, in lower case, without marks and joiners."""
    for _ in range(2):  # Unicode relates some of the table's letters to others than they look like
        name = unicodedata.normalize("NFKD", name.translate(_PROTOTYPE))
    letters = (char for char in name if unicodedata.category(char) not in ("Mn", "Me", "Cf"))
    return " ".join("".join(letters).casefold().split())


class Taken:
    """The names on a leaderboard, to find new names that look like one of them."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def add(self, name: str) -> str | None:
        """Add `name`, or return another name that it looks like."""
        for look in looks(name):
            other = self._names.get(look, name)
            if name_key(other) != name_key(name):
                return other
        for look in looks(name):
            self._names.setdefault(look, name)
        return None
