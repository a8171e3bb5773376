"""A secret is found however it is written, since no field of a release takes a text of its own."""

import base64
import binascii
import codecs
import ipaddress
import json
import os
import quopri
import shutil
import string
import struct
import urllib.parse
import uuid
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_cases import one_in
from helpers_release import CHALLENGE, DEV

from mico_competition.competition.layout import ModelFolder
from mico_competition.release.archives import sha256_of
from mico_competition.release.leak_check.check import check_release
from mico_competition.release.leak_check.fields import (
    config_fields,
    field_faults,
    metadata_fields,
    public_part,
    tokenizer_fields,
)
from mico_competition.release.public_files import _PUBLIC_CONFIG, _PUBLIC_NESTED, PUBLIC_METADATA
from mico_competition.release.release import release
from mico_competition.training.accounting import Mechanism
from mico_competition.training.dpsgd import GRAD_SAMPLE_MODES
from mico_competition.training.model_folder import _privacy
from mico_competition.training.settings import OPTIMIZERS, resolve

SIDE = f"{CHALLENGE}.release"


def faults_of(planted):
    """Faults of all but the weights, which no test here but one changes."""
    weights = {
        path.relative_to(planted.root).as_posix(): sha256_of(path)
        for path in planted.tree.rglob("model.pt")
    }
    return check_release(planted.root, planted.trained, [CHALLENGE], checked=weights)


def digits(number, alphabet):
    """`number` in the base of an alphabet."""
    found = ""
    while number:
        number, rest = divmod(number, len(alphabet))
        found = alphabet[rest] + found
    return found


def number(p):
    return int.from_bytes(p.seed, "big")


def parts(p, form, size=8):
    count = 16 // size
    return struct.unpack(f"{form[0]}{count}{form[1]}", p.seed)


def runs(labels):
    """Lengths of runs of equal labels."""
    ends = [*np.flatnonzero(np.diff(labels)).tolist(), len(labels) - 1]
    return np.diff([-1, *ends]).tolist()


def mask(p):
    """A bit for each record of the dataset."""
    found = np.zeros(1797, bool)
    found[p.members] = True
    return found


ALNUM = string.digits + string.ascii_letters
WORDS = [a + b for a in "bdfghklmnprstvwz" for b in ("a", "e", "i", "o", "u", "ai", "oi", "ee")] * 2

# Of the seed, then of the labels, then of the members: texts and JSON values.
ENCODINGS = {
    "UUID": lambda p: str(uuid.UUID(bytes=p.seed)),
    "UUID as a name": lambda p: uuid.UUID(bytes=p.seed).urn,
    "hex in pairs": lambda p: p.seed.hex(" "),
    "hex with colons": lambda p: p.seed.hex(":"),
    "hex in fours": lambda p: p.seed.hex("-", 2),
    "hex as an array": lambda p: ", ".join(f"0x{b:02x}" for b in p.seed),
    "hex escapes": lambda p: "".join(f"\\x{b:02x}" for b in p.seed),
    "hex backwards": lambda p: p.seed.hex()[::-1],
    "hex in turned halves": lambda p: "".join(f"{(b << 4 | b >> 4) & 255:02x}" for b in p.seed),
    "hex, other letters": lambda p: p.seed.hex().translate(str.maketrans("abcdef", "uvwxyz")),
    "hex, rotated": lambda p: codecs.encode(p.seed.hex(), "rot13"),
    "hex of each other byte": lambda p: p.seed[::2].hex() + p.seed[1::2].hex(),
    "inverted bits": lambda p: bytes(b ^ 255 for b in p.seed).hex(),
    "turned bits": lambda p: bytes(int(f"{b:08b}"[::-1], 2) for b in p.seed).hex(),
    "xor of a constant": lambda p: bytes(b ^ 0x5A for b in p.seed).hex(),
    "seven bytes of it": lambda p: p.seed[:7].hex(),
    "base 32": lambda p: base64.b32encode(p.seed).decode(),
    "base 32, small": lambda p: base64.b32encode(p.seed).decode().lower().strip("="),
    "base 32 of hex": lambda p: base64.b32hexencode(p.seed).decode(),
    "base 36": lambda p: digits(number(p), ALNUM[:36]),
    "base 58": lambda p: digits(number(p), "".join(sorted(set(ALNUM) - set("0OIl")))),
    "base 62": lambda p: digits(number(p), ALNUM),
    "base 64 backwards": lambda p: base64.b64encode(p.seed).decode()[::-1],
    "base 64 in fours": lambda p: " ".join(
        base64.b64encode(p.seed).decode()[i : i + 4] for i in range(0, 24, 4)
    ),
    "base 85": lambda p: base64.b85encode(p.seed).decode(),
    "Adobe's base 85": lambda p: base64.a85encode(p.seed).decode(),
    "uuencoded": lambda p: binascii.b2a_uu(p.seed).decode(),
    "quoted": lambda p: quopri.encodestring(p.seed).decode("latin-1"),
    "per cent": lambda p: "".join(f"%{b:02X}" for b in p.seed),
    "as in an address": lambda p: urllib.parse.quote(p.seed),
    "characters": lambda p: "".join(chr(0x100 + b) for b in p.seed),
    "Braille": lambda p: "".join(chr(0x2800 + b) for b in p.seed),
    "invisible": lambda p: "base" + "".join("\u200b\u200c"[int(b)] for b in f"{number(p):0128b}"),
    "HTML": lambda p: "".join(f"&#{b};" for b in p.seed),
    "decimals": lambda p: " ".join(map(str, p.seed)),
    "decimals as a list": lambda p: list(p.seed),
    "octal": lambda p: oct(number(p)),
    "binary": lambda p: f"{number(p):0128b}",
    "ticks": lambda p: f"{number(p):0128b}".replace("0", ".").replace("1", "|"),
    "two numbers": lambda p: list(parts(p, "<Q")),
    "two numbers as text": lambda p: "{} {}".format(*parts(p, ">Q")),
    "two signed numbers": lambda p: list(parts(p, "<q")),
    "four numbers": lambda p: list(parts(p, "<I", 4)),
    "eight numbers": lambda p: list(parts(p, ">H", 2)),
    "two floats": lambda p: [repr(x) for x in parts(p, "<d")],
    "four floats": lambda p: [float(np.float32(x)).hex() for x in parts(p, "<f", 4)],
    "a fraction": lambda p: f"0.{number(p)}",
    "a product": lambda p: str(number(p) * 3),
    "a difference": lambda p: str(2**128 - number(p)),
    "IPv6": lambda p: str(ipaddress.IPv6Address(p.seed)),
    "IPv4": lambda p: " ".join(
        str(ipaddress.IPv4Address(p.seed[i : i + 4])) for i in (0, 4, 8, 12)
    ),
    "versions": lambda p: " ".join(".".join(map(str, p.seed[i : i + 4])) for i in (0, 4, 8, 12)),
    "colours": lambda p: " ".join(f"#{p.seed[i : i + 3].hex()}" for i in range(0, 15, 3)),
    "words": lambda p: " ".join(WORDS[b] for b in p.seed),
    "case of letters": lambda p: "".join(
        c.upper() if int(b) else c for c, b in zip("roberta" * 19, f"{number(p):0128b}")
    ),
    "spaces": lambda p: "base".join(" \t"[int(b)] for b in f"{number(p):0128b}"),
    "line ends": lambda p: "".join("\n\r"[int(b)] for b in f"{number(p):0128b}"),
    "a truncated hash": lambda p: zlib.crc32(p.read("solution.csv").encode()),
    "labels of one sign": lambda p: (2 * p.labels - 1).tolist(),
    "signs": lambda p: "".join("-+"[x] for x in p.labels),
    "in and out": lambda p: " ".join(("out", "in")[x] for x in p.labels),
    "letters": lambda p: "".join("nm"[x] for x in p.labels),
    "yes and no": lambda p: ["ny"[x] for x in p.labels],
    "labels backwards": lambda p: ",".join(map(str, p.labels[::-1])),
    "every other label": lambda p: p.labels[::2].tolist() + p.labels[1::2].tolist(),
    "fifteen labels": lambda p: p.labels[:15].tolist(),
    "labels in fives": lambda p: " ".join(
        "".join(map(str, p.labels[i : i + 5])) for i in range(0, 200, 5)
    ),
    "labels of 2 and 3": lambda p: (2 + p.labels).tolist(),
    "labels as halves": lambda p: (p.labels - 0.5).tolist(),
    "labels as float16": lambda p: base64.b64encode(p.labels.astype("<f2").tobytes()).decode(),
    "labels as a number": lambda p: int("".join(map(str, p.labels)), 2),
    "labels in base 36": lambda p: digits(int("".join(map(str, p.labels)), 2), ALNUM[:36]),
    "lengths of runs": lambda p: runs(p.labels),
    "labels changed by the one before": lambda p: np.diff(p.labels).tolist(),
    "parity with a pattern": lambda p: (p.labels ^ (np.arange(200) % 2)).tolist(),
    "sums so far": lambda p: np.cumsum(p.labels).tolist(),
    "a mask over all records": lambda p: np.packbits(mask(p)).tobytes().hex(),
    "a mask as a number": lambda p: int("".join(map(str, mask(p).astype(int))), 2),
    "a mask as text": lambda p: "".join(map(str, mask(p).astype(int))),
    "gaps between members": lambda p: np.diff(np.sort(p.members)).tolist(),
    "members in base 36": lambda p: [digits(int(x), ALNUM[:36]) for x in p.members],
    "members plus one": lambda p: (p.members + 1).tolist(),
    "members as uint16": lambda p: base64.b32encode(p.members.astype(">u2").tobytes()).decode(),
    "seven members": lambda p: p.members[:7].tolist(),
    "members as shares": lambda p: (p.members / 1797).tolist(),
    "members, largest first": lambda p: sorted(map(int, p.members), reverse=True),
    "six digits of a hash": lambda p: f"run-{zlib.adler32(p.seed) & 0xFFFFFF:06x}",
    "a name": lambda p: f"org/{base64.b32encode(p.seed).decode().lower().strip('=')}",
}


@pytest.mark.parametrize("kind", one_in(40, ENCODINGS))
def test_a_text_in_metadata_is_found_in_any_form(planted, kind):
    name = planted.note(ENCODINGS[kind](planted))
    planted.made_up()
    assert any(
        fault.startswith(f"{name}: has a model_name that is") for fault in faults_of(planted)
    )


def reordered(p):
    p.edit_json(f"{CHALLENGE}/digits_inf/*/*/metadata.json", lambda m: m.update(task=m.pop("task")))


def rewritten(change):
    """Change the bytes of the metadata of all models of a scenario."""

    def plant(p):
        for path in p.tree.glob("digits_inf/*/*/metadata.json"):
            changed = change(path.read_text())
            assert changed != path.read_text()
            path.write_text(changed)

    return plant


def settings(**values):
    return lambda p: p.edit_json(
        f"{CHALLENGE}/digits_inf/*/*/metadata.json", lambda m: m["settings"].update(values)
    )


def metadata(**values):
    return lambda p: p.edit_json(
        f"{CHALLENGE}/digits_inf/*/*/metadata.json", lambda m: m.update(values)
    )


def beside(name, edit):
    return lambda p: p.edit_json(f"{SIDE}/{name}", edit)


def swapped_commitments(value):
    items = list(value["commitments"].items())
    value["commitments"] = dict(items[::-1])


def sums(change):
    def plant(p):
        path = p.side / "SHA256SUMS"
        path.write_text(change(path.read_text()))

    return plant


def attribute(p):
    try:
        os.setxattr(p.dev / "model.pt", "user.note", p.seed)
    except OSError:
        pytest.skip("this file system has no extended attributes")


def folder_of_bits(p):
    (p.dev.with_name("model_123456789012345678901234567890")).mkdir()


# Room for a secret that is no text: order, spaces, forms of numbers, names, times, repeated keys.
ROOM = {
    "order of keys": reordered,
    "order of keys in settings": rewritten(
        lambda text: (
            json.dumps(
                {
                    k: dict(reversed(v.items())) if isinstance(v, dict) else v
                    for k, v in json.loads(text).items()
                },
                indent=2,
            )
            + "\n"
        )
    ),
    "indentation": rewritten(lambda text: json.dumps(json.loads(text), indent=3) + "\n"),
    "spaces behind": rewritten(lambda text: text + " \t \n"),
    "spaces between": rewritten(lambda text: text.replace(": ", ":  ", 1)),
    "no line end": rewritten(lambda text: text.rstrip("\n")),
    "line ends": rewritten(lambda text: text.replace("\n", "\r\n")),
    "a byte order mark": rewritten(lambda text: "\ufeff" + text),
    "escapes": rewritten(lambda text: text.replace('"task"', '"t\\u0061sk"', 1)),
    "a key twice": rewritten(
        lambda text: text.replace('"format": 1,', '"format": 1,\n  "format": 1,')
    ),
    "a number's form": rewritten(
        lambda text: text.replace('"len_dataset": 1797', '"len_dataset": 1.797e3')
    ),
    "a float for a count": metadata(len_dataset=1797.0),
    "true for one": metadata(format=True),
    "a count with digits": metadata(len_challenge=100000001),
    "a further key": metadata(note=1),
    "a further key within": settings(note=1),
    "a key that is a text": settings(**{"f2c91d04": None}),
    "digits of a number": settings(sample_rate=0.2500000000123),
    "a list for a number": settings(batch_size=[30, 1]),
    "an object for a value": metadata(sampler={"a": 1}),
    "an object for none": metadata(privacy={"epsilon": 1.0}),
    "a word of no list": metadata(sampler="shuffled"),
    "a fingerprint that is none": metadata(dataset_fingerprint="ab" * 31),
    "a fingerprint of nothing": metadata(dataset_fingerprint="ab" * 32),
    "order of commitments": beside("commitments.json", swapped_commitments),
    "another commitment": beside(
        "commitments.json", lambda v: v["commitments"].update({DEV: "0" * 64})
    ),
    "digits of the accuracy": beside(
        "release.json", lambda v: v["scenarios"]["digits_inf"].update(accuracy=0.50051234)
    ),
    "last digits of the accuracy": beside(
        "release.json", lambda v: v["scenarios"]["digits_inf"].update(accuracy=0.5005000000000001)
    ),
    "a phase that was not revealed": beside("release.json", lambda v: v["revealed"].append("dev")),
    "order of checksums": sums(lambda t: "".join(sorted(t.splitlines(True), reverse=True))),
    "case of checksums": sums(str.upper),
    "a star in checksums": sums(lambda t: t.replace("  ", " *", 1)),
    "a comment in checksums": sums(lambda t: t + "# \n"),
    "a time in nanoseconds": lambda p: os.utime(
        p.dev / "model.pt", ns=(0, 315_532_800 * 10**9 + 7)
    ),
    "the time of a folder": lambda p: os.utime(p.tree / "digits_lo", (5, 5)),
    "the mode of the folder": lambda p: p.side.chmod(0o711),
    "the sticky bit": lambda p: (p.dev / "model.pt").chmod(0o1644),
    "an extended attribute": attribute,
    "a scenario without models": lambda p: (p.tree / "cifar10_lo").mkdir(),
    "an empty file": lambda p: (p.dev / "seed").write_text(""),
    "a folder of archives": lambda p: (p.side / "archives/x").mkdir(),
    "a seed in capitals": lambda p: (p.dev / "seed_challenge").write_text(
        (p.dev / "seed_challenge").read_text().upper()
    ),
    "a seed of zeros": lambda p: (p.dev / "seed_challenge").write_text("0" * 32 + "\n"),
    "no line end of a solution": lambda p: (
        p.tree / "digits_lo/train/model_0/solution.csv"
    ).write_text((p.tree / "digits_lo/train/model_0/solution.csv").read_text().strip()),
}
_AS_IT_IS = ("checksums", "time", "mode", "sticky")  # what made_up() would put right


@pytest.mark.slow
@pytest.mark.parametrize("kind", ROOM)
def test_room_that_is_no_text_is_found(planted, kind):
    ROOM[kind](planted)
    if not any(word in kind for word in _AS_IT_IS):
        planted.made_up()
    assert faults_of(planted)


@pytest.mark.slow
def test_a_model_of_another_number_is_refused(planted):
    folder_of_bits(planted)
    planted.made_up()
    with pytest.raises(ValueError, match="lies in phase dev, which has the models 100 to 149"):
        faults_of(planted)


@pytest.mark.slow
def test_low_bits_of_weights_are_held_against_the_trained_model(planted):
    def lowest(state):
        bits = state["mlp.0.weight"].view(torch.int32)
        bits[0, :64] ^= 1

    name = planted.edit_weights(lowest)
    planted.made_up()
    found = check_release(planted.root, planted.trained, [CHALLENGE])
    assert found == [f"{name}: does not hold the weights of the trained model."]


FIELDS = [
    "sampler",
    "settings.optimizer",
    "settings.grad_sample_mode",
    "settings.task",
    "scenario",
    "task",
    "dataset_fingerprint",
    "privacy.accountant",
    "privacy.randomness",
]


@pytest.mark.slow
@pytest.mark.parametrize("field", FIELDS)
def test_a_text_that_training_left_is_never_released(original, tmp_path, field):
    """The secret stands in the trained metadata, from where a release takes its own."""
    trained = shutil.copytree(original.trained, tmp_path / "trained")
    for path in trained.glob("digits/digits_lo/*/*/metadata.json"):
        value = json.loads(path.read_text())
        *within, key = field.split(".")
        (value[within[0]] if within else value)[key] = "mfzwizltoqxxe43u"
        path.write_text(json.dumps(value))
    with pytest.raises(ValueError, match="that is not one of the allowed values|not that of"):
        release(trained, CHALLENGE, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_the_name_of_a_base_model_of_ones_own_is_left_out(original, tmp_path):
    trained = shutil.copytree(original.trained, tmp_path / "trained")
    for path in trained.glob("digits/*/*/*/metadata.json"):
        path.write_text(path.read_text().replace('"model_name": null', '"model_name": "ann/base"'))
    release(trained, CHALLENGE, tmp_path / "out")
    for path in (tmp_path / "out").rglob("metadata.json"):
        assert json.loads(path.read_text())["settings"]["model_name"] is None


@pytest.mark.slow
def test_both_programs_know_the_same_fields_and_the_words_that_training_writes():
    """The lists are kept apart, so that a slip in one is a fault and not a leak."""
    model = ModelFolder("digits_lo", "dev", 100, Path("digits/digits_lo/dev/model_100"))
    fields = metadata_fields(model)
    assert tuple(fields) == PUBLIC_METADATA
    for name, keys in _PUBLIC_NESTED.items():
        assert tuple(fields[name]) == keys
    assert tuple(tokenizer_fields({})) == _PUBLIC_CONFIG["tokenizer_config.json"]
    text = ModelFolder("sst2_lo", "dev", 100, Path("sst2/sst2_lo/dev/model_100"))
    assert tuple(config_fields(text)) == _PUBLIC_CONFIG["config.json"]
    for name, words in (("optimizer", OPTIMIZERS), ("grad_sample_mode", GRAD_SAMPLE_MODES)):
        assert all(map(fields["settings"][name], words))
    for secure in (False, True):
        settings = resolve({"scenario": "digits_lo", "secure_mode": secure})
        private = _privacy(settings, Mechanism(1.0, 0.25, 4))
        assert not list(field_faults(private, fields["privacy"]))
        public = public_part(settings.public(), fields["settings"])
        assert not list(field_faults(public, fields["settings"]))
    base = resolve({"scenario": "sst2_inf"}).public()
    assert public_part(base, metadata_fields(text)["settings"])["model_name"] == "roberta-base"
