"""The leak check finds every planted secret, names its file, never quotes it, and no other."""

import base64
import gzip
import hashlib
import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_cases import one_in
from helpers_release import CHALLENGE, DEV, Released, faults_of

from mico_competition.competition.table import CHALLENGES
from mico_competition.models.checkpoints import write_state
from mico_competition.release.leak_check.check import check_release


@pytest.mark.slow
@pytest.mark.parametrize("challenge", ["cifar10", "purchase100", "sst2", "ddp"])
def test_real_releases_are_clean(competition, challenge):
    assert check_release(competition.released, competition.trained, [challenge]) == []
    archives = competition.released / f"{challenge}.release" / "archives"
    assert len(list(archives.glob("*.zip"))) == 3 * len(CHALLENGES[challenge])


@pytest.mark.slow
def test_a_release_made_up_again_is_clean(planted):
    planted.made_up()
    assert faults_of(planted) == []


def members_first(planted):
    return [int(index) for index in planted.members]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def int_of(planted, order):
    return str(int.from_bytes(planted.seed, order))


def pairs(planted):
    return [list(p) for p in zip(planted.points.challenge.indices, planted.labels.tolist())]


def nonmembers(planted):
    return [int(planted.points.challenge.indices[i]) for i in planted.points.nonmember.indices]


SEED, SOLUTION = "seed_membership", "solution.csv"
MEMBERS, NONMEMBERS = "the list of members", "the list of non-members"

# name -> what it tells, and the text or JSON value that stands in allowed files
NOTES = {
    "seed in hex": (SEED, lambda p: f"run {p.seed.hex()}"),
    "seed in capitals": (SEED, lambda p: "0x" + p.seed.hex().upper()),
    "seed backwards": (SEED, lambda p: p.seed[::-1].hex()),
    "half a seed": (SEED, lambda p: p.seed.hex()[16:]),
    "seed as a decimal": (SEED, lambda p: int_of(p, "big")),
    "seed as a little-endian number": (SEED, lambda p: int(int_of(p, "little"))),
    "seed in base64": (SEED, lambda p: b64(p.seed)),
    "seed within base64": (SEED, lambda p: base64.urlsafe_b64encode(b"s" + p.seed).decode()),
    "training seed": ("seed_training", lambda p: p.read("seed_training")),
    "seed of the run": ("train_seed", lambda p: "987654321012"),
    "solution": (SOLUTION, lambda p: p.read("solution.csv")),
    "solution with spaces": (SOLUTION, lambda p: p.read("solution.csv").replace(",", ", ")),
    "solution as digits": (SOLUTION, lambda p: p.read("solution.csv").replace(",", "")),
    "solution in lines": (SOLUTION, lambda p: p.read("solution.csv").replace(",", "\n")),
    "solution as a list": (SOLUTION, lambda p: p.labels.tolist()),
    "solution as words": (SOLUTION, lambda p: p.labels.astype(bool).tolist()),
    "solution as floats": (SOLUTION, lambda p: p.labels.astype(float).tolist()),
    "solution inverted": (SOLUTION, lambda p: (1 - p.labels).tolist()),
    "half a solution": (SOLUTION, lambda p: p.labels[37:140].tolist()),
    "solution by record": (SOLUTION, pairs),
    "solution as bits": (SOLUTION, lambda p: np.packbits(p.labels).tobytes().hex()),
    "bits from the low end": (
        SOLUTION,
        lambda p: b64(np.packbits(1 - p.labels, bitorder="little").tobytes()),
    ),
    "solution in base64": (SOLUTION, lambda p: b64(p.labels.astype("<i8").tobytes())),
    "solution compressed": (SOLUTION, lambda p: b64(gzip.compress(p.read(SOLUTION).encode()))),
    "solution deflated": (SOLUTION, lambda p: b64(zlib.compress(p.labels.astype("u1").tobytes()))),
    "hash of the solution": (
        "an unsalted hash of solution.csv",
        lambda p: hashlib.sha256(p.read(SOLUTION).encode()).hexdigest(),
    ),
    "members": (MEMBERS, members_first),
    "members sorted": (MEMBERS, lambda p: " ".join(map(str, np.sort(p.members)))),
    "some members": (MEMBERS, lambda p: members_first(p)[41:57]),
    "places of members": (MEMBERS, lambda p: np.flatnonzero(p.labels).tolist()),
    "members as int32": (MEMBERS, lambda p: b64(np.sort(p.members).astype("<i4").tobytes())),
    "members as int64": (MEMBERS, lambda p: p.members.astype("<i8").tobytes().hex()),
    "non-members": (NONMEMBERS, nonmembers),
    "places of non-members": (NONMEMBERS, lambda p: list(map(int, p.points.nonmember.indices))),
    "training records": (
        "the list of training records",
        lambda p: p.points.train_indices[100:].tolist(),
    ),
    "evaluation records": (
        "the list of evaluation records",
        lambda p: p.points.evaluation_indices[:20].tolist(),
    ),
    "the organiser's folder": ("a path of the organiser's machine", lambda p: str(p.trained)),
}


@pytest.mark.parametrize("kind", one_in(4, NOTES))
def test_a_secret_in_metadata_is_found(planted, kind):
    what, value = NOTES[kind]
    name = planted.note(value(planted))
    planted.made_up()
    faults = faults_of(planted)
    assert any(f.startswith(f"{name}: tells {what}") for f in faults), faults
    assert all("digits_inf" in fault and "metadata.json" in fault for fault in faults)
    assert_quotes_nothing(planted, faults)


def assert_quotes_nothing(planted, faults):
    text = "\n".join(faults)
    for secret in (planted.seed.hex(), planted.read(SOLUTION)[:20], int_of(planted, "big")):
        assert secret not in text and secret.upper() not in text


NOT_TRAINED = "does not hold the weights of the trained model."


def set_values(data: bytes):
    """Puts bytes in the place of the first values of a tensor."""

    def edit(state):
        flat = state["mlp.0.weight"].flatten()
        flat[5 : 5 + len(data) // 4] = torch.from_numpy(np.frombuffer(data, "<f4").copy())
        state["mlp.0.weight"] = flat.view_as(state["mlp.0.weight"]).clone()

    return edit


WEIGHTS = {
    "seed": (SEED, lambda p: p.seed),
    "labels as floats": (SOLUTION, lambda p: p.labels.astype("<f4").tobytes()),
    "labels as bytes": (SOLUTION, lambda p: p.labels.astype("u1").tobytes()),
    "labels as text": (SOLUTION, lambda p: p.read(SOLUTION).encode()[:396]),
    "members as int64": (MEMBERS, lambda p: p.members.astype("<i8").tobytes()),
    "sorted members as int32": (MEMBERS, lambda p: np.sort(p.members).astype("<i4").tobytes()),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_secret_among_weights_is_found(planted, kind):
    what, value = WEIGHTS[kind]
    name = planted.edit_weights(set_values(value(planted)))
    planted.made_up()
    faults = faults_of(planted)
    assert faults == [f"{name}: {NOT_TRAINED}", f"{name}: tells {what} of {DEV}."]


@pytest.mark.parametrize("kind", one_in(3, WEIGHTS))
def test_what_training_itself_put_among_weights_is_found(original, planted, tmp_path, kind):
    """The trained model holds it too, so that only the search can see it."""
    what, value = WEIGHTS[kind]
    trained = Path(shutil.copytree(original.trained, tmp_path / "trained"))
    both = Released(trained, planted.root)
    name = both.edit_weights(set_values(value(planted)))
    shutil.copy(both.dev / "model.pt", trained / CHALLENGE / DEV / "model.pt")
    both.made_up()
    assert faults_of(both) == [f"{name}: tells {what} of {DEV}."]


def test_a_seed_among_another_models_weights_is_found(planted):
    other = planted.tree / "digits_hi/train/model_0/model.pt"
    state = torch.load(other, weights_only=True)
    set_values(planted.seed)(state)
    write_state(other, state)
    planted.made_up()
    name = f"{CHALLENGE}/digits_hi/train/model_0/model.pt"
    assert faults_of(planted) == [f"{name}: {NOT_TRAINED}", f"{name}: tells {SEED} of {DEV}."]


def test_a_seed_in_the_place_of_another_is_found(planted):
    for name in ("digits_lo/train/model_0/seed_training", f"{DEV}/seed_challenge"):
        (planted.tree / name).write_text(planted.read(SEED) + "\n")
    planted.made_up()
    faults = faults_of(planted)
    for name in (f"{DEV}/seed_challenge", "digits_lo/train/model_0/seed_training"):
        assert f"{CHALLENGE}/{name}: is not the trained model's, in its fixed form." in faults
        assert f"{CHALLENGE}/{name}: tells {SEED} of {DEV}." in faults
    assert len(faults) == 4


def test_a_disclosed_solution_that_is_another_models_is_found(planted):
    path = planted.tree / "digits_lo/train/model_1/solution.csv"
    path.write_text(planted.read(SOLUTION) + "\n")
    planted.made_up()
    assert faults_of(planted) == [
        f"{CHALLENGE}/digits_lo/train/model_1/solution.csv: is not the trained model's, in its "
        "fixed form.",
        f"{CHALLENGE}/digits_lo/train/model_1/solution.csv: tells solution.csv of {DEV}.",
        f"{CHALLENGE}.release/SHA256SUMS: tells an unsalted hash of solution.csv of {DEV}.",
    ]


@pytest.mark.parametrize("folder", [False, True])
def test_a_name_that_tells_is_not_repeated(planted, folder):
    path = planted.dev / f"x{planted.seed.hex()}"
    path.mkdir() if folder else path.write_text("1")
    planted.made_up()
    faults = faults_of(planted)
    assert any("has a name that reveals a secret" in fault for fault in faults)
    here = f"{CHALLENGE}/{DEV}/(a name that reveals a secret): "
    assert all(f.startswith((here, f"{CHALLENGE}.release/SHA256SUMS: tells")) for f in faults)
    assert_quotes_nothing(planted, faults)


def test_salts_are_searched_for(planted):
    openings = json.loads((planted.trained / CHALLENGE / "openings.json").read_text())["openings"]
    name = planted.note(openings[DEV]["salt"])
    planted.made_up()
    assert f"{name}: tells the salt of a commitment." in faults_of(planted)
    openings[DEV]["salt"] = "ab" * 32
    name = planted.note("ab" * 32)
    planted.made_up()
    found = check_release(planted.root, planted.trained, [CHALLENGE], openings=openings)
    assert f"{name}: tells the salt of a commitment." in found
    assert any("commitments.json: holds more, or else, than a commit" in fault for fault in found)


@pytest.mark.parametrize("text", ["/home/ann/base", "C:\\models", "~/base", "../base", "/tmp/x"])
def test_paths_of_any_machine_are_found(planted, text):
    name = planted.note(text)
    planted.made_up()
    assert f"{name}: has a model_name that is not one of the allowed values." in faults_of(planted)


def test_the_organisers_names_are_found(planted, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "annabel")
    monkeypatch.setattr("socket.gethostname", lambda: "train")  # a word of the table: no name
    name = planted.note("by annabel, on train")
    planted.made_up()
    told = "reveals the name of the organiser's account or machine"
    faults = faults_of(planted)
    assert f"{name}: {told}." in faults
    assert {fault.split(": ")[1] for fault in faults} == {
        f"{told}.",
        "has a model_name that is not one of the allowed values.",
    }


def test_seeds_that_anybody_guesses_are_faults(original, planted, tmp_path):
    trained = shutil.copytree(original.trained, tmp_path / "trained")
    for name, seed in (("challenge", 2**40), ("training", 2**41), ("membership", 42)):
        (trained / CHALLENGE / DEV / f"seed_{name}").write_text(f"{seed}\n")
    faults = check_release(planted.root, trained, [CHALLENGE])
    assert any("under 8 digits, which anybody finds by trying" in fault for fault in faults)


def test_seeds_that_were_counted_up_are_faults(original, planted, tmp_path):
    """Seeds of final are one more than those of dev, which will be revealed."""
    trained = shutil.copytree(original.trained, tmp_path / "trained")
    final = trained / CHALLENGE / "digits_inf/final/model_150"
    for name in ("seed_challenge", "seed_training", "seed_membership"):
        number = int(planted.read(name), 16) + 1
        (final / name).write_text(f"{number:032x}\n")
    faults = check_release(planted.root, trained, [CHALLENGE])
    for place in ("dev/model_100", "final/model_150"):
        fault = (
            f"{CHALLENGE}/digits_inf/{place}: has a withheld seed that is, or nearly is, another"
        )
        assert f"{fault} seed." in faults


def test_what_was_not_trained_cannot_be_checked(planted):
    planted.dev.rename(planted.dev.with_name("model_101"))
    planted.made_up()
    faults = faults_of(planted)
    assert any("model_101: is not among the trained models" in fault for fault in faults)


def test_a_missing_challenge_or_seed_is_one_sentence(planted, tmp_path):
    with pytest.raises(ValueError, match=r"no challenge folder .*name the folder released to"):
        check_release(tmp_path / "nowhere", planted.trained, [CHALLENGE])
    with pytest.raises(ValueError, match="no challenge folder"):
        check_release(planted.root, tmp_path, [CHALLENGE])
