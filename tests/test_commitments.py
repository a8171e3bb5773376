"""Commitments: what was revealed is what was committed to, or a sentence says that it is not."""

import hashlib
import json
import shutil
import stat

import pytest
from helpers_release import CHALLENGE, DEV, write_trained

from mico_competition.cli import main
from mico_competition.releases.commitments import commitment, read_openings
from mico_competition.releases.release import release
from mico_competition.releases.reveal import reveal, verify

FINAL = DEV.replace("dev/model_100", "final/model_150")


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """(trained, released challenge folder); read-only."""
    folder = tmp_path_factory.mktemp("commitments")
    trained = write_trained(folder / "trained")
    release(trained, CHALLENGE, folder / "released", archives=False)
    return trained, folder / "released" / CHALLENGE


@pytest.fixture
def revealed(released, tmp_path):
    """(released challenge folder, value of the revealed file, function that verifies it)."""
    trained, folder = released
    value = reveal(trained, CHALLENGE, "dev")

    def check(changed):
        (tmp_path / "dev.json").write_text(json.dumps(changed))
        return verify(folder, tmp_path / "dev.json")

    return folder, value, check


def test_the_commitment_is_the_documented_hash():
    salt = bytes(range(32))
    message = (
        b"\x00\x00\x00\x00\x00\x00\x00\x11mico commitment 1"
        b"\x00\x00\x00\x00\x00\x00\x00\x06digits"
        b"\x00\x00\x00\x00\x00\x00\x00\x18digits_inf/dev/model_100"
        b"\x00\x00\x00\x00\x00\x00\x00\x20"
        + salt
        + b"\x00\x00\x00\x00\x00\x00\x00\x0fseed_membership"
        b"\x00\x00\x00\x00\x00\x00\x00\x20000102030405060708090a0b0c0d0e0f"
        b"\x00\x00\x00\x00\x00\x00\x00\x0csolution.csv"
        b"\x00\x00\x00\x00\x00\x00\x00\x070,1,1,0"
    )
    texts = {"seed_membership": bytes(range(16)).hex(), "solution.csv": "0,1,1,0"}
    value = commitment("digits", "digits_inf/dev/model_100", salt, texts)
    assert value == hashlib.sha256(message).hexdigest()
    assert value == "65f18a17463925a43419a3b5160b7c359adba93718cefcb745a6cfb4f62b8b9d"


def test_every_withheld_model_is_committed_to_and_no_other(released):
    trained, folder = released
    public = json.loads((folder / "commitments.json").read_text())
    scenarios = ("digits_hi", "digits_inf", "digits_lo")
    phases = ("dev/model_100", "final/model_150")
    assert list(public["commitments"]) == [f"{s}/{p}" for s in scenarios for p in phases]
    assert len(set(public["commitments"].values())) == 6
    openings = read_openings(trained, CHALLENGE)
    assert {p: o["commitment"] for p, o in openings.items()} == public["commitments"]
    assert len({opening["salt"] for opening in openings.values()}) == 6
    mode = (trained / CHALLENGE / "openings.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_revealed_labels_verify_from_the_released_folder_alone(released, revealed, tmp_path):
    folder, value, check = revealed
    assert check(value) == (3, [])
    trained = released[0] / CHALLENGE / DEV
    opening = value["openings"][DEV]
    assert opening["solution.csv"] == (trained / "solution.csv").read_text().strip()
    assert opening["seed_membership"] == (trained / "seed_membership").read_text().strip()
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "commitments.json", alone)
    assert verify(alone, tmp_path / "dev.json") == (3, [])


def tampered(value, change):
    changed = json.loads(json.dumps(value))
    change(changed["openings"])
    return changed


def flip(openings):
    labels = openings[DEV]["solution.csv"].split(",")
    a, b = labels.index("0"), labels.index("1")
    labels[a], labels[b] = "1", "0"
    openings[DEV]["solution.csv"] = ",".join(labels)


def swap(openings):
    other = DEV.replace("_inf", "_lo")
    openings[DEV], openings[other] = openings[other], openings[DEV]


@pytest.mark.parametrize(
    ("change", "sound", "faults"),
    [
        (flip, 2, [f"{DEV}: its labels, seeds or salt are not those committed to."]),
        (
            lambda o: o[DEV].update(salt="00" * 32),
            2,
            [f"{DEV}: its labels, seeds or salt are not those committed to."],
        ),
        (
            lambda o: o[DEV].update(seed_training="00" * 16),
            2,
            [f"{DEV}: its labels, seeds or salt are not those committed to."],
        ),
        (lambda o: o.pop(DEV), 2, [f"{DEV}: it is not revealed."]),
        (
            lambda o: o.update({"digits_inf/dev/model_101": o[DEV]}),
            3,
            ["digits_inf/dev/model_101: there is no commitment to it."],
        ),
        (
            swap,
            1,
            [
                f"{DEV}: its labels, seeds or salt are not those committed to.",
                f"{DEV.replace('_inf', '_lo')}: its labels, seeds or salt are not those "
                "committed to.",
            ],
        ),
    ],
    ids=["labels", "salt", "seed", "missing", "extra", "swapped"],
)
def test_what_was_tampered_with_is_named(revealed, change, sound, faults):
    _, value, check = revealed
    assert check(tampered(value, change)) == (sound, faults)


def test_labels_that_no_seed_gives_are_named(revealed):
    """Committed to by hand, against what `mico release` would do."""
    folder, value, check = revealed
    changed = tampered(value, flip)
    opening = changed["openings"][DEV]
    texts = {name: text for name, text in opening.items() if name != "salt"}
    public = json.loads((folder / "commitments.json").read_text())
    clean = (folder / "commitments.json").read_text()
    forged = commitment(CHALLENGE, DEV, bytes.fromhex(opening["salt"]), texts)
    public["commitments"][DEV] = forged
    (folder / "commitments.json").write_text(json.dumps(public))
    try:
        expected = [f"{DEV}: its labels are not those that its seed_membership gives."]
        assert check(changed) == (2, expected)
    finally:
        (folder / "commitments.json").write_text(clean)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        ("{}", "not what `mico reveal` writes"),
        ('{"openings": {"a": {"salt": "00"}}}', "not what `mico reveal` writes"),
        ('{"openings": {"a": 3}}', "not what `mico reveal` writes"),
        ('{"openings": {}, "challenge": "ddp", "phase": "dev"}', "not of the challenge"),
    ],
)
def test_a_file_of_another_form_is_one_sentence(released, tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        verify(released[1], tmp_path / "x.json")
    with pytest.raises(ValueError, match="There is no file .*commitments.json"):
        verify(tmp_path, tmp_path / "x.json")


def test_another_release_keeps_the_commitments(released, tmp_path):
    trained, folder = released
    release(trained, CHALLENGE, tmp_path, archives=False)
    again = (tmp_path / CHALLENGE / "commitments.json").read_bytes()
    assert again == (folder / "commitments.json").read_bytes()


def test_a_changed_solution_is_refused(released, tmp_path):
    trained = shutil.copytree(released[0], tmp_path / "trained")
    model, other = trained / CHALLENGE / DEV, trained / CHALLENGE / FINAL
    for name in ("seed_membership", "solution.csv"):
        shutil.copy(other / name, model / name)
    for call in (
        lambda: release(trained, CHALLENGE, tmp_path / "out"),
        lambda: reveal(trained, CHALLENGE, "dev"),
    ):
        with pytest.raises(ValueError, match=rf"{DEV} is not what was committed to: put back"):
            call()
    shutil.copy(released[0] / CHALLENGE / DEV / "solution.csv", model / "solution.csv")
    with pytest.raises(ValueError, match="solution.csv in .* is not what its seed_membership"):
        release(trained, CHALLENGE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_reveal_needs_a_release_of_the_very_models(released, tmp_path):
    trained = write_trained(tmp_path / "trained")
    with pytest.raises(ValueError, match="Nothing of phase dev .* release first"):
        reveal(trained, CHALLENGE, "dev")
    shutil.copy(released[0] / CHALLENGE / "openings.json", trained / CHALLENGE)
    assert len(reveal(trained, CHALLENGE, "final")["openings"]) == 3
    model = trained / CHALLENGE / DEV
    shutil.copytree(model, model.with_name("model_101"))
    with pytest.raises(ValueError, match="model_101 was not released"):
        reveal(trained, CHALLENGE, "dev")
    model.rename(model.with_name("model_102"))
    with pytest.raises(ValueError, match=f"{DEV} was released, but is not below"):
        reveal(trained, CHALLENGE, "dev")
    (trained / CHALLENGE / "openings.json").write_text('{"openings": {"a": {}}}')
    with pytest.raises(ValueError, match="openings.json is damaged: restore it"):
        reveal(trained, CHALLENGE, "final")


def test_the_verbs(released, tmp_path, capsys):
    trained, folder = released
    file = str(tmp_path / "dev.json")
    assert main(["reveal", str(trained), "--phase", "dev", "--to", file]) == 0
    assert main(["verify", str(folder), file]) == 0
    assert main(["verify", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "3 label sets verified" in printed and "files match SHA256SUMS" in printed
    value = tampered(json.loads((tmp_path / "dev.json").read_text()), flip)
    (tmp_path / "dev.json").write_text(json.dumps(value))
    assert main(["verify", str(folder), file]) == 1
    captured = capsys.readouterr()
    assert DEV in captured.err and "2 label sets verified; 1 faults" in captured.out
    assert main(["reveal", str(tmp_path), "--phase", "dev", "--to", file]) == 1
    assert "There is no challenge folder below" in capsys.readouterr().err
