"""Names on the leaderboard: in one form, printable, and no two that look alike.

Two names are one line of the table if they differ by case, width of letters or spaces only
(`name_key`).  Two lines that a reader takes for one are refused: names are compared by what they
look like (`skeleton`), after Unicode Technical Standard 39, "Unicode Security Mechanisms",
section 4.  The table below is made by hand and covers the letters of Greek, Cyrillic, Armenian
and the phonetic alphabet that look like Latin ones in common fonts, letters and digits that look
alike among themselves (I, l and 1; O and 0; rn and m; vv and w), dashes, quotes and dots.  What
Unicode itself relates to a letter (wide, mathematical, circled, superscript; with accents) comes
from its own tables.  Not covered: look-alikes within and between other scripts.
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
_FIRST_JOINED = 0x600  # scripts that are misspelt without joiners begin with Arabic


def is_line(text: object, longest: int, shortest: int = 0) -> bool:
    """Whether `text` is one line in which nothing is invisible, or turns or covers the rest.

    Joiners are invisible too, but stand between letters of scripts that are misspelt without.
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


def is_name(text: object, longest: int = 80) -> bool:
    """Whether `text` can be a name: a line, not empty, in Unicode's form NFKC."""
    return is_line(text, longest, 1) and text == in_one_form(str(text))


def in_one_form(name: str) -> str:
    """`name` in Unicode's form NFKC, with single spaces: as it is kept and shown."""
    return " ".join(unicodedata.normalize("NFKC", name).split(" "))


def name_key(name: str) -> str:
    """`name` as names are compared: not by case, width of letters or spaces."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def looks(name: str) -> frozenset[str]:
    """What `name` may be taken for; names that share one of these look alike.

    >>> looks("Раураl") & looks("PayPaI") != frozenset(), looks("Ada") & looks("Eve")
    (True, frozenset())
    """
    return frozenset({skeleton(name), skeleton(name.casefold())})


def skeleton(name: str) -> str:
    """The letters that `name` looks like, in small: without marks, joiners and spaces' number."""
    for _ in range(2):  # Unicode relates some of the table's letters to others than they look like
        name = unicodedata.normalize("NFKD", name.translate(_PROTOTYPE))
    letters = (char for char in name if unicodedata.category(char) not in ("Mn", "Me", "Cf"))
    return " ".join("".join(letters).casefold().split())


class Taken:
    """Names that stand on a leaderboard, to find those that look like one of them."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def add(self, name: str) -> str | None:
        """Take `name`; gives another that it looks like, and then takes nothing."""
        for look in looks(name):
            other = self._names.get(look, name)
            if name_key(other) != name_key(name):
                return other
        for look in looks(name):
            self._names.setdefault(look, name)
        return None
