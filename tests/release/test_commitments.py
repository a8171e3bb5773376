"""Commitments: what was revealed is what was committed to, or a sentence says that it is not."""

import hashlib
import json
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers_release import CHALLENGE, DEV, copied, write_trained

from mico_competition.cli import main
from mico_competition.competition.layout import release_folder as beside
from mico_competition.competition.splits import permutation
from mico_competition.release.commitments import commitment, read_openings, save_openings
from mico_competition.release.release import release
from mico_competition.release.reveal import as_text, reveal, verify

FINAL = DEV.replace("dev/model_100", "final/model_150")


@pytest.fixture(scope="module")
def released(original, tmp_path_factory):
    """(trained, released challenge folder); only this file's."""
    made = copied(original, tmp_path_factory.mktemp("commitments"))
    return made.trained, made.tree


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
    public = json.loads((beside(folder) / "commitments.json").read_text())
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
    shutil.copytree(beside(folder), beside(alone / CHALLENGE))
    assert verify(alone / CHALLENGE, tmp_path / "dev.json") == (3, [])


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
    path = beside(folder) / "commitments.json"
    clean = path.read_text()
    public = json.loads(clean)
    forged = commitment(CHALLENGE, DEV, bytes.fromhex(opening["salt"]), texts)
    public["commitments"][DEV] = forged
    path.write_text(json.dumps(public))
    try:
        expected = [f"{DEV}: its labels are not those that its seed_membership gives."]
        assert check(changed) == (2, expected)
    finally:
        path.write_text(clean)


def opened(**changes):
    """A revealed file of one model, changed."""
    value = {"format": 1, "challenge": "digits", "phase": "dev"}
    value["openings"] = {DEV: {"salt": "00" * 32, "solution.csv": "0,1"}}
    return json.dumps({**value, **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        ("{}", "not what `mico reveal` writes"),
        ('{"openings": {"a": {"salt": "00"}}}', "not what `mico reveal` writes"),
        ('{"openings": {"a": 3}}', "not what `mico reveal` writes"),
        (opened(challenge="ddp"), "not of the challenge that .* holds: digits"),
        (opened(phase="devel"), r"does not say which phase it reveals \(dev or final\)"),
        (opened(phase=None), "does not say which phase"),
        (opened(phase=["dev"]), "does not say which phase"),
        (opened(phase="Dev"), "does not say which phase"),
        (opened(phase="train"), "does not say which phase"),
        (opened(phase=""), "does not say which phase"),
        (opened(phase="final"), "reveals final, but names a model of another phase"),
        (opened(openings={}), "not what `mico reveal` writes"),
        (opened(openings=[]), "not what `mico reveal` writes"),
        (opened(note=1), "not what `mico reveal` writes"),
        (opened(format="1"), "not what `mico reveal` writes"),
        (opened().replace('"salt"', '"salt": "00", "salt"'), "a key stands twice"),
        (opened()[:-1] + ', "phase": "final"}', "a key stands twice"),
    ],
)
def test_a_file_of_another_form_is_one_sentence(released, tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        verify(released[1], tmp_path / "x.json")
    with pytest.raises(ValueError, match="There is no file .*commitments.json"):
        verify(tmp_path / CHALLENGE, tmp_path / "x.json")


def test_another_release_keeps_the_commitments(released, tmp_path):
    trained, folder = released
    release(trained, CHALLENGE, tmp_path)
    again = (beside(tmp_path / CHALLENGE) / "commitments.json").read_bytes()
    assert again == (beside(folder) / "commitments.json").read_bytes()


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
    assert DEV in captured.err and "2 label sets verified; 1 fault\n" in captured.out
    assert main(["reveal", str(tmp_path), "--phase", "dev", "--to", file]) == 1
    assert "There is no challenge folder below" in capsys.readouterr().err


def spoilt(released, tmp_path, edit):
    """A copy of the release whose commitments.json `edit` has changed."""
    folder = tmp_path / "spoilt" / CHALLENGE
    shutil.copytree(released[1], folder)
    shutil.copytree(beside(released[1]), beside(folder))
    path = beside(folder) / "commitments.json"
    value = json.loads(path.read_text())
    path.write_text(edit(value) or json.dumps(value))
    return folder


SPOILT = {
    "left out": (lambda v: v["commitments"].pop(DEV) and None, "there is no commitment to it"),
    "empty": (lambda v: v["commitments"].clear(), "commits to nothing, so nothing can be"),
    "none of the phase": (
        lambda v: v.update(commitments={FINAL: v["commitments"][FINAL]}),
        "commits to nothing of phase dev, so nothing can be verified",
    ),
    "a list": (lambda v: v.update(commitments=[]), "is not a release's commitments"),
    "null": (lambda v: v["commitments"].update({DEV: None}), "is not a release's commitments"),
    "short": (lambda v: v["commitments"].update({DEV: "00"}), "is not a release's commitments"),
    "a phase that is none": (
        lambda v: v["commitments"].update({"digits_inf/devel/model_1": "0" * 64}),
        "is not a release's commitments",
    ),
    "a model twice": (
        lambda v: json.dumps(v).replace(f'"{DEV}"', f'"{FINAL}"', 1),
        "a key stands twice",
    ),
    "another challenge": (lambda v: v.update(challenge="baskets"), "is not a release's commitm"),
    "further keys": (lambda v: v.update(note=1), "is not a release's commitments"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_commitments_that_leave_something_out_verify_nothing(released, tmp_path, kind, capsys):
    edit, words = SPOILT[kind]
    folder = spoilt(released, tmp_path, edit)
    file = tmp_path / "dev.json"
    file.write_text(as_text(reveal(released[0], CHALLENGE, "dev")))
    assert main(["verify", str(folder), str(file)]) == 1
    assert words in capsys.readouterr().err
    assert main(["verify", str(folder)]) == 1


def test_the_number_of_labels_is_that_of_the_release(released, tmp_path):
    """A cheat: labels of another number of points, and a commitment to them."""
    value = reveal(released[0], CHALLENGE, "dev")
    opening = value["openings"][DEV]
    seed = bytes.fromhex(opening["seed_membership"])
    members = set(permutation(20, seed).tolist()[10:])
    opening["solution.csv"] = ",".join(str(int(i in members)) for i in range(20))
    texts = {name: text for name, text in opening.items() if name != "salt"}
    forged = commitment(CHALLENGE, DEV, bytes.fromhex(opening["salt"]), texts)
    folder = spoilt(released, tmp_path, lambda v: v["commitments"].update({DEV: forged}))
    (tmp_path / "dev.json").write_text(as_text(value))
    found = verify(folder, tmp_path / "dev.json")
    assert found == (2, [f"{DEV}: it has 20 labels, but the release says 200."])


def test_a_model_that_was_released_and_never_committed_to_is_named(released, tmp_path):
    folder = spoilt(released, tmp_path, lambda v: None)
    shutil.copytree(folder / DEV, folder / DEV.replace("100", "101"))
    (tmp_path / "dev.json").write_text(as_text(reveal(released[0], CHALLENGE, "dev")))
    place = DEV.replace("100", "101")
    fault = f"{place}: it was released, and there is no commitment to it."
    assert verify(folder, tmp_path / "dev.json") == (3, [fault])


def without_a_model(folder, side):
    lines = (side / "SHA256SUMS").read_text().splitlines(True)
    kept = [line for line in lines if "digits_hi/train/model_1/" not in line]
    (side / "SHA256SUMS").write_text("".join(kept))
    shutil.rmtree(folder / "digits_hi/train/model_1")


FILES = {
    "empty SHA256SUMS": (lambda f, s: (s / "SHA256SUMS").write_text(""), "lists no files"),
    "a line left out": (
        lambda f, s: (s / "SHA256SUMS").write_text(
            "".join((s / "SHA256SUMS").read_text().splitlines(True)[1:])
        ),
        "is not part of the release",
    ),
    "a model left out everywhere": (
        without_a_model,
        "digits_hi has {'train': 1, 'dev': 1, 'final': 1} models and release.json says",
    ),
    "a withheld model left out": (
        lambda f, s: shutil.rmtree(f / DEV),
        "it was committed to, and is missing",
    ),
    "a file outside": (lambda f, s: (s / "notes").write_text(""), "is not part of the release"),
    "another N": (
        lambda f, s: (f / DEV / "metadata.json").write_text(
            (f / DEV / "metadata.json").read_text().replace("1797", "1798")
        ),
        "has another len_dataset than release.json says",
    ),
    "no release.json": (lambda f, s: (s / "release.json").unlink(), "There is no file"),
    "no commitments.json": (lambda f, s: (s / "commitments.json").unlink(), "There is no file"),
    "nothing beside": (lambda f, s: shutil.rmtree(s), "There is no file"),
    "labels": (lambda f, s: (f / DEV / "solution.csv").write_text("0,1\n"), "is not part of"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_not_the_releases_are_faults(released, tmp_path, kind, capsys):
    change, words = FILES[kind]
    clean = (beside(released[1]) / "commitments.json").read_text()
    folder = spoilt(released, tmp_path, lambda value: clean)
    assert main(["verify", str(folder)]) == 0
    change(folder, beside(folder))
    assert main(["verify", str(folder)]) == 1
    assert words in capsys.readouterr().err


def test_a_challenge_folder_alone_is_no_release(released, tmp_path, capsys):
    folder = shutil.copytree(released[1], tmp_path / CHALLENGE)
    assert main(["verify", str(folder)]) == 1
    assert "`<challenge>.release` lies beside" in capsys.readouterr().err
    assert main(["leaks", str(tmp_path), "--trained", str(released[0])]) == 1
    assert "run `mico release` again" in capsys.readouterr().err


@pytest.mark.slow
def test_two_releases_at_once_commit_to_the_same(released, tmp_path, caplog):
    trained = write_trained(tmp_path / "trained")
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(release, trained, CHALLENGE, tmp_path / str(n)) for n in range(3)]
        assert [job.result() for job in jobs] == [12] * 3
    public = {(tmp_path / f"{n}/digits.release/commitments.json").read_bytes() for n in range(3)}
    assert len(public) == 1
    kept = {p: o["commitment"] for p, o in read_openings(trained, CHALLENGE).items()}
    assert json.loads(public.pop())["commitments"] == kept
    assert sum("Waiting for another `mico release`" in text for text in caplog.messages) == 2


def test_two_releases_to_one_place(tmp_path):
    trained = write_trained(tmp_path / "trained")
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(release, trained, CHALLENGE, tmp_path / "out") for _ in range(2)]
        errors = [str(job.exception()) for job in jobs if job.exception()]
    assert len(errors) == 1 and "digits exists already: remove it" in errors[0]
    assert main(["verify", str(tmp_path / "out" / CHALLENGE)]) == 0
    assert main(["leaks", str(tmp_path / "out"), "--trained", str(trained)]) == 0


def test_a_part_of_a_release_is_told_by_its_numbers(released, tmp_path, capsys):
    clean = (beside(released[1]) / "commitments.json").read_text()
    folder = spoilt(released, tmp_path, lambda value: clean)
    shutil.rmtree(folder / "digits_hi")
    assert main(["verify", str(folder)]) == 1
    err = capsys.readouterr().err
    assert "digits/digits_hi/train lacks 2 models, from model_0 to model_1: fetch it again" in err
    assert "model.pt" not in err


def test_without_locks_the_last_does_not_win(released, tmp_path):
    openings = read_openings(released[0], CHALLENGE)
    trained = write_trained(tmp_path / "trained")
    save_openings(trained, CHALLENGE, openings)
    openings[DEV] = {**openings[DEV], "salt": "00" * 32}
    with pytest.raises(ValueError, match="was changed by another release meanwhile: release again"):
        save_openings(trained, CHALLENGE, openings)
    assert read_openings(trained, CHALLENGE) != openings
