"""The leak check finds room for secrets: names, links, times, modes, sizes, containers, values."""

import io
import json
import os
import shutil
import struct
import zipfile

import pytest
import torch
from helpers_release import CHALLENGE, DEV, faults_of

from mico_competition.competition.table import TASKS
from mico_competition.release.leak_check.forms import weights_faults

SIDE = f"{CHALLENGE}.release"
ZIP = f"{SIDE}/archives/digits_inf_dev.zip"


def replace_with(make):
    """A plant that replaces the dev model's seed_challenge by a link that `make` makes."""

    def plant(p):
        path = p.dev / "seed_challenge"
        path.unlink()
        make(p.trained / CHALLENGE / DEV / "seed_challenge", path)
        return f"{CHALLENGE}/{DEV}/seed_challenge"

    return plant


def hard_link(source, path):
    source.chmod(0o644)
    os.link(source, path)


def stray(name, text="1\n"):
    def plant(p):
        (p.root / name).write_text(text)
        return name

    return plant


def empty_folder(p):
    (p.dev / "notes").mkdir()
    return f"{CHALLENGE}/{DEV}/notes"


def undisclosed(name):
    def plant(p):
        shutil.copy(p.trained / CHALLENGE / DEV / name, p.dev / name)
        return f"{CHALLENGE}/{DEV}/{name}"

    return plant


def mode(p):
    (p.dev / "seed_challenge").chmod(0o600)
    return f"{CHALLENGE}/{DEV}/seed_challenge"


def append(name, data):
    def plant(p):
        with (p.root / name).open("ab") as file:
            file.write(data)
        return name

    return plant


def one_metadata(p):
    p.edit_json(
        f"{CHALLENGE}/{DEV}/metadata.json", lambda m: m["settings"].update(secure_mode=True)
    )
    return f"{CHALLENGE}/{DEV}/metadata.json"


def all_metadata(edit):
    def plant(p):
        p.edit_json(f"{CHALLENGE}/digits_inf/*/*/metadata.json", edit)
        return f"{CHALLENGE}/{DEV}/metadata.json"

    return plant


def no_metadata(p):
    (p.dev / "metadata.json").unlink()
    return f"{CHALLENGE}/digits_inf/"


def edit(name, change):
    def plant(p):
        p.edit_json(f"{SIDE}/{name}", change)
        return f"{SIDE}/{name}"

    return plant


def accuracy_over_all(value):
    value["scenarios"]["digits_inf"]["accuracy"] = 0.56


def weights(change):
    return lambda p: p.edit_weights(change)


def slack(state):
    state["mlp.0.bias"] = torch.cat([state["mlp.0.bias"], torch.arange(50.0)])[:256]


DISCLOSES, FORM = "is not among what the table discloses", "holds more than its tensors or has"
TRAINED = "is not the trained model's, in its fixed form"
TENSORS = "does not hold exactly the finite tensors"

PLANTS = {
    "withheld seed": (DISCLOSES, undisclosed("seed_membership")),
    "withheld solution": (DISCLOSES, undisclosed("solution.csv")),
    "note in a model": (DISCLOSES, stray(f"{CHALLENGE}/{DEV}/notes.txt")),
    "note above models": (DISCLOSES, stray(f"{CHALLENGE}/ledger.json")),
    "openings": (DISCLOSES, stray(f"{CHALLENGE}/openings.json")),
    "note beside challenges": (DISCLOSES, stray("notes.txt")),
    "note beside archives": (DISCLOSES, stray(f"{SIDE}/archives/notes.txt")),
    "note beside commitments": (DISCLOSES, stray(f"{SIDE}/notes.txt")),
    "release.json among the models": (DISCLOSES, stray(f"{CHALLENGE}/release.json")),
    "empty folder": (DISCLOSES, empty_folder),
    "symbolic link": ("is a link", replace_with(lambda source, path: path.symlink_to(source))),
    "hard link": ("is a hard link", replace_with(hard_link)),
    "metadata of one model": ("is not the same as those of other models", one_metadata),
    "metadata missing": ("exists for some models", no_metadata),
    "result in metadata": (
        "has a key that is not public",
        all_metadata(lambda m: m.update(results={"accuracy": 0.5})),
    ),
    "run's seed in metadata": (
        "has a key in settings that is not public",
        all_metadata(lambda m: m["settings"].update(train_seed=3)),
    ),
    "spaces in a seed": (TRAINED, append(f"{CHALLENGE}/{DEV}/seed_challenge", b" \n")),
    "spaces in JSON": ("not JSON as it", append(f"{CHALLENGE}/{DEV}/metadata.json", b"\t \t\n")),
    "spaces in a solution": (
        TRAINED,
        append(f"{CHALLENGE}/digits_lo/train/model_1/solution.csv", b"\t"),
    ),
    "size of a seed": ("has another size", append(f"{CHALLENGE}/{DEV}/seed_challenge", b"\n")),
    "accuracy of withheld models": (
        "holds more, or else, than what is disclosed",
        edit("release.json", accuracy_over_all),
    ),
    "more in release.json": (
        "holds more, or else, than what is disclosed",
        edit("release.json", lambda value: value.update(note="")),
    ),
    "more in commitments.json": (
        "holds more, or else, than a commitment",
        edit("commitments.json", lambda v: v["commitments"].update({"digits_lo": "0" * 64})),
    ),
    "no commitment": (
        "holds more, or else, than a commitment",
        edit("commitments.json", lambda value: value["commitments"].pop(DEV)),
    ),
    "further tensor": (TENSORS, weights(lambda state: state.update(note=torch.ones(3)))),
    "further entry": (TENSORS, weights(lambda state: state.update(note="hello"))),
    "other shape": (TENSORS, weights(lambda s: s.update({"mlp.2.bias": torch.ones(11)}))),
    "payload of a NaN": (TENSORS, weights(lambda s: s["mlp.2.bias"].fill_(float("nan")))),
    "longer storage": (FORM, weights(slack)),
    "other order": (
        FORM,
        weights(lambda state: state.update({"mlp.0.bias": state.pop("mlp.0.bias")})),
    ),
    "half precision": (FORM, weights(lambda s: s.update({"mlp.2.bias": s["mlp.2.bias"].half()}))),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLANTS)
def test_room_for_a_secret_is_found(planted, kind):
    sentence, plant = PLANTS[kind]
    name = plant(planted)
    if "link" not in kind:  # giving a link another time would change what it leads to
        planted.made_up()
    faults = faults_of(planted)
    assert any(f.startswith(name) and sentence in f for f in faults), faults


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "change", "sentence"),
    [
        (f"{CHALLENGE}/{DEV}/model.pt", lambda p: os.utime(p, (1, 1)), "at another time"),
        (f"{CHALLENGE}/{DEV}", lambda p: os.utime(p), "at another time"),
        (ZIP, lambda p: os.utime(p), "at another time"),
        (f"{CHALLENGE}/{DEV}/model.pt", lambda p: p.chmod(0o600), "has an unusual mode"),
        (f"{CHALLENGE}/{DEV}", lambda p: p.chmod(0o700), "has an unusual mode"),
    ],
)
def test_times_and_modes(planted, path, change, sentence):
    change(planted.root / path)
    assert [f.split(": ")[0] for f in faults_of(planted)] == [path]
    assert sentence in faults_of(planted)[0]


def test_checksums_are_those_of_the_files(planted):
    for name in (f"{SIDE}/SHA256SUMS", f"{SIDE}/archives/SHA256SUMS"):
        path = planted.root / name
        path.write_text(path.read_text().replace("a", "b", 1))
        planted_time(path)
        assert f"{name}: does not hold exactly the checksums" in "\n".join(faults_of(planted))


def planted_time(path):
    os.utime(path, (315532800, 315532800))


def test_bytes_around_a_checkpoint(planted):
    """Before it, behind it, in its zip's comment: none of them changes what torch reads."""
    path = planted.dev / "model.pt"
    clean = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(clean)) as archive:
        names = archive.namelist()
    changed = {"behind": clean + b"hello", "before": b"hello" + clean}
    path.write_bytes(clean)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"hello"
    changed["comment"] = path.read_bytes()
    path.write_bytes(clean)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(names[0].split("/")[0] + "/extra/note", "hello")
    changed["member"] = path.read_bytes()
    for kind, content in changed.items():
        path.write_bytes(content)
        assert len(list(weights_faults(TASKS["digits"], path))) == 1, kind
    path.write_bytes(clean)
    assert not list(weights_faults(TASKS["digits"], path))


def header_of(content):
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header, data, *, indent=None, more=0):
    text = json.dumps(header, indent=indent, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8 + more)
    return struct.pack("<Q", len(text)) + text + data


def test_room_in_safetensors(competition, tmp_path):
    source = competition.released / "sst2/sst2_inf/dev/model_100"
    folder = shutil.copytree(source, tmp_path / "model_100")
    path, task = folder / "model.safetensors", TASKS["sst2"]
    trained = competition.trained / "sst2/sst2_inf/dev/model_100"
    clean = path.read_bytes()
    header, data = header_of(clean)
    assert with_header(header, data) == clean and not list(weights_faults(task, path, trained))
    name = "classifier.out_proj.bias"
    more = {**header, "note": {"dtype": "F32", "shape": [1], "data_offsets": [len(data)] * 2}}
    more["note"]["data_offsets"] = [len(data), len(data) + 4]
    moved = json.loads(json.dumps(header))
    end = header[name]["data_offsets"]
    moved[name]["data_offsets"] = [len(data), len(data) + end[1] - end[0]]
    tensors, form = "finite tensors", "holds more than its tensors or has them in another"
    backwards = dict(reversed(header.items()))
    changed = {
        "other metadata": (form, with_header({**header, "__metadata__": {"format": "x"}}, data)),
        "another layout": (form, with_header(header, data, indent=1)),
        "another order of names": (form, with_header(backwards, data)),
        "spaces behind the header": (form, with_header(header, data, more=8)),
        "a further tensor": (tensors, with_header(more, data + b"hell")),
        "room between": ("", with_header(moved, data + data[end[0] : end[1]])),
        "bytes behind": ("", clean + b"hello"),
        "a payload": (tensors, clean[:-4] + struct.pack("<f", float("nan"))),
        "a larger number": ("weights of the trained model", clean[:-4] + struct.pack("<f", 1.5)),
    }
    for kind, (sentence, content) in changed.items():
        path.write_bytes(content)
        assert any(sentence in f for f in weights_faults(task, path, trained)), kind
    (folder / "config.json").write_text("{}")
    assert "was not checked" in next(weights_faults(task, path))
