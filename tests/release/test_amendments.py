"""Amendments: models replaced after publication are on record, and the record cannot be altered."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch
from helpers_release import CHALLENGE, DEV, copied, files_below, write_model

from mico_competition.cli import main
from mico_competition.competition.splits import draw_seeds
from mico_competition.competition.table import TASKS
from mico_competition.models.architectures import new_model, save_model
from mico_competition.release import amend as amend_module
from mico_competition.release.add_labels import add_labels
from mico_competition.release.amend import amend
from mico_competition.release.amendments import commitments_digest, read_amendments
from mico_competition.release.check_files import check_files
from mico_competition.release.commitments import read_history, read_openings
from mico_competition.release.descent import descent
from mico_competition.release.leak_check.check import check_release
from mico_competition.release.release import release
from mico_competition.release.stale import amendment_notes

FINAL = DEV.replace("dev/model_100", "final/model_150")
PRIVATE = DEV.replace("inf", "lo")
SIDE = f"{CHALLENGE}.release"
RECORD = f"{SIDE}/amendments.jsonl"
WHY = "trained on other records"


def train_again(trained, relative_path, *, seeds=True):
    """Replace a model by one with other weights, and with new seeds, given ones, or the same."""
    folder = trained / CHALLENGE / relative_path
    scenario, _, name = relative_path.split("/")
    if seeds:
        drawn = draw_seeds() if seeds is True else seeds
        shutil.rmtree(folder, ignore_errors=True)
        write_model(folder, scenario, int(name.removeprefix("model_")), drawn)
    torch.manual_seed(int.from_bytes(os.urandom(4), "big"))
    save_model(TASKS["digits"], new_model(TASKS["digits"]), folder)


def sound(trained, out, revealed=()):
    assert check_files(out / CHALLENGE)[1] == []
    assert check_release(out, trained, [CHALLENGE], revealed=revealed) == []


@pytest.fixture(scope="module")
def amended(original, tmp_path_factory):
    """(trained, released to, copies of the release before and after amendment 1); read-only.

    Amendment 1 replaces a model of dev, amendment 2 one of final and one of train.
    """
    folder = tmp_path_factory.mktemp("amended")
    trained = shutil.copytree(original.trained, folder / "trained")
    out = shutil.copytree(original.root, folder / "released")
    copies = [shutil.copytree(out, folder / "before")]
    train_again(trained, DEV)
    amend(trained, CHALLENGE, out, WHY, day="2026-11-01")
    copies.append(shutil.copytree(out, folder / "between"))
    train_again(trained, FINAL)
    train_again(trained, "digits_lo/train/model_1")
    amend(trained, CHALLENGE, out, "a damaged disk", day="2026-11-03")
    return trained, out, copies


@pytest.fixture
def changed(amended, tmp_path):
    """(trained, copy of the amended release), the copy to be changed."""
    return amended[0], shutil.copytree(amended[1], tmp_path / "released")


def test_only_what_was_amended_changes(amended, original):
    trained, out, (before, between) = amended
    old, new = files_below(before), files_below(between)
    assert new.keys() - old.keys() == {RECORD}
    zips = {f"{SIDE}/archives/digits_inf_dev.zip", f"{SIDE}/archives/SHA256SUMS"}
    of_release = {f"{SIDE}/{name}" for name in ("release.json", "commitments.json", "SHA256SUMS")}
    assert {name for name in old if old[name] != new[name]} == {
        *zips,
        *of_release,
        *(f"{CHALLENGE}/{DEV}/{name}" for name in ("model.pt", "seed_challenge")),
    }
    sound(trained, out)
    assert {path.stat().st_mtime for path in out.rglob("*")} == {315532800}
    assert json.loads((out / SIDE / "release.json").read_text())["amendments"] == 2
    assert "amendments" not in json.loads((before / SIDE / "release.json").read_text())
    again = out.parent / "again"
    release(trained, CHALLENGE, again)  # the same models give the same bytes
    assert files_below(again) == files_below(out)


def test_the_chain_is_the_documented_one(amended):
    _, out, (before, between) = amended
    first, second = (out / RECORD).read_bytes().splitlines(keepends=True)
    sums = [
        hashlib.sha256(part).hexdigest()
        for part in ((before / SIDE / "commitments.json").read_bytes(), first)
    ]
    one, two = json.loads(first), json.loads(second)
    assert [one["previous"], two["previous"]] == sums
    for folder, record in ((between, one), (out, two)):
        content = (folder / SIDE / "commitments.json").read_bytes()
        assert record["commitments"] == hashlib.sha256(content).hexdigest()
    (change,) = one["changes"].values()
    old = before / CHALLENGE / DEV
    assert change["before"]["files"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(old.iterdir())
    }
    assert list(two["changes"]) == [FINAL, "digits_lo/train/model_1"]
    assert two["changes"]["digits_lo/train/model_1"]["before"]["commitment"] is None
    assert (between / RECORD).read_bytes() == first  # lines are only added


def test_old_openings_stay_with_the_organiser_and_nowhere_else(amended, original):
    trained, out, _ = amended
    old = read_openings(original.trained, CHALLENGE)
    kept = [past["replaced"] for past in read_history(trained, CHALLENGE)]
    assert kept == [{DEV: old[DEV]}, {FINAL: old[FINAL]}]
    assert (trained / CHALLENGE / "openings.json").stat().st_mode & 0o777 == 0o600
    public = b"".join(files_below(out).values())
    for path in (DEV, FINAL):
        for secret in (old[path]["salt"], read_openings(trained, CHALLENGE)[path]["salt"]):
            assert secret.encode() not in public


def test_participants_verify_and_are_told(amended, capsys):
    _, out, (before, between) = amended
    folder = str(out / CHALLENGE)
    assert main(["verify", folder]) == 0
    line = (
        f"2 amendments: 1 (2026-11-01) replaced {DEV}: {WHY} | 2 (2026-11-03) replaced {FINAL}, "
        "digits_lo/train/model_1: a damaged disk\n"
    )
    assert line in capsys.readouterr().out
    for earlier, since in (
        (before / CHALLENGE, 2),
        (before / SIDE, 2),
        (between / CHALLENGE, 1),
        (between / RECORD, 1),
        (before / SIDE / "commitments.json", 2),
        (between / SIDE / "commitments.json", 1),
        (out / CHALLENGE, 0),
    ):
        assert main(["verify", folder, "--since", str(earlier)]) == 0
        count = "1 amendment since" if since == 1 else f"{since} amendments since"
        assert f"It descends from {earlier}: {count}" in capsys.readouterr().out
    assert main(["verify", str(before / CHALLENGE), "--since", str(between / RECORD)]) == 1
    assert "Amendment 1 of" in capsys.readouterr().err


def rewritten(out, edit):
    """Change the record, and make its checksum and count those of the changed one."""
    lines = (out / RECORD).read_text().splitlines(keepends=True)
    lines = edit(lines)
    path, sums = out / SIDE / "SHA256SUMS", (out / SIDE / "SHA256SUMS").read_text()
    summary = out / SIDE / "release.json"
    if lines:
        (out / RECORD).write_text("".join(lines))
    else:
        (out / RECORD).unlink()
    value = json.loads(summary.read_text())
    value["amendments"] = len(lines)
    if not lines:
        del value["amendments"]
    summary.write_text(json.dumps(value, indent=2) + "\n")
    kept = [line for line in sums.splitlines() if line[66:] not in (RECORD, f"{SIDE}/release.json")]
    for file in (out / RECORD, summary):
        if file.exists():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            kept.append(f"{digest}  {file.relative_to(out).as_posix()}")
    path.write_text("\n".join(sorted(kept, key=lambda line: line[66:])) + "\n")


def edited(number, edit):
    """A change of one line's object."""

    def change(lines):
        value = json.loads(lines[number])
        edit(value)
        lines[number] = json.dumps(value, separators=(",", ":")) + "\n"
        return lines

    return change


def other_commitment(value):
    value["changes"][DEV]["before"]["commitment"] = "0" * 64


FORGED = {
    "another reason": (edited(0, lambda v: v.update(reason="x")), "does not follow"),
    "another date": (edited(0, lambda v: v.update(date="2026-10-01")), "does not follow"),
    "an old commitment swapped": (edited(0, other_commitment), "does not follow"),
    "the first record dropped": (lambda lines: lines[1:], "has number 2"),
    "the last record dropped": (lambda lines: lines[:1], "does not lead to the commitments"),
    "records in another order": (lambda lines: lines[::-1], "has number 2"),
    "a record twice": (lambda lines: [*lines, lines[1]], "does not lead to|has number 2"),
    "other files": (
        edited(1, lambda v: v["changes"][FINAL]["after"]["files"].update({"model.pt": "0" * 64})),
        "its files are not those of its last amendment",
    ),
    "an earlier date": (edited(1, lambda v: v.update(date="2026-10-01")), "has an earlier date"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_record_that_was_altered_is_found(changed, kind):
    trained, out = changed
    edit, words = FORGED[kind]
    rewritten(out, edit)
    faults = check_files(out / CHALLENGE)[1]
    assert any(re.search(words, fault) for fault in faults), faults
    leaks = check_release(out, trained, [CHALLENGE])
    assert f"{RECORD}: is not the organiser's record of amendments." in leaks


MALFORMED = {
    "a key too many": edited(0, lambda v: v.update(note="x")),
    "no changes": edited(0, lambda v: v.update(changes={})),
    "a model of another challenge": edited(0, lambda v: v["changes"].update({"a/dev/model_1": {}})),
    "spaces": lambda lines: [lines[0].replace(":", ": "), lines[1]],
    "a reason in two lines": edited(0, lambda v: v.update(reason="a\nb")),
    "no digest": edited(0, lambda v: v.update(previous="x" * 64)),
    "a changed model that stays": edited(
        0, lambda v: v["changes"][DEV].update(after=v["changes"][DEV]["before"])
    ),
    "half a line": lambda lines: [lines[0], lines[1][:50]],
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_record_of_another_form_is_refused(changed, kind):
    _, out = changed
    (out / RECORD).write_text(
        "".join(MALFORMED[kind]((out / RECORD).read_text().splitlines(keepends=True)))
    )
    with pytest.raises(ValueError, match=r"Line [12] of .* is not an amendment"):
        read_amendments(out / CHALLENGE)


def test_a_release_without_its_record_is_found_by_who_kept_the_earlier_one(changed, amended):
    trained, out = changed
    before, between = amended[2]
    rewritten(out, lambda lines: [])
    assert check_files(out / CHALLENGE)[1] == []  # in itself it is consistent
    assert f"{RECORD}: is missing." in check_release(out, trained, [CHALLENGE])
    (first, *_) = descent(out / CHALLENGE, before / SIDE / "commitments.json").faults
    assert first == (
        f"{DEV}: its commitment is not that of {before / SIDE / 'commitments.json'}, and no "
        "amendment says so."
    )
    assert descent(out / CHALLENGE, between / RECORD).faults == [
        f"Amendment 1 of {between / RECORD} is missing in the release."
    ]
    assert descent(out / CHALLENGE, between / CHALLENGE).faults
    (out / SIDE / "release.json").write_bytes((amended[1] / SIDE / "release.json").read_bytes())
    assert (
        "release.json states 2 amendments, and amendments.jsonl holds 0."
        in (check_files(out / CHALLENGE)[1])
    )


def test_weights_that_changed_without_an_amendment_are_found(original, amended, tmp_path):
    out = copied(original, tmp_path).root
    weights = out / CHALLENGE / DEV / "model.pt"
    weights.write_bytes((amended[1] / CHALLENGE / DEV / "model.pt").read_bytes())
    sums = out / SIDE / "SHA256SUMS"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    name = f"{CHALLENGE}/{DEV}/model.pt"
    lines = [f"{digest}  {name}" if name in line else line for line in sums.read_text().split("\n")]
    sums.write_text("\n".join(lines))
    earlier = original.root / CHALLENGE
    assert descent(out / CHALLENGE, earlier).faults == [
        f"{name} is not what it was in {earlier}, and no amendment says so."
    ]


def test_a_chain_made_up_anew_is_found_by_who_kept_the_record(changed, amended):
    """Somebody rewrites amendment 1 with another reason, and all hashes after it."""
    _, out = changed

    def forge(lines):
        one, two = map(json.loads, lines)
        one["reason"] = "no reason"
        first = json.dumps(one, separators=(",", ":")) + "\n"
        two["previous"] = hashlib.sha256(first.encode()).hexdigest()
        return [first, json.dumps(two, separators=(",", ":")) + "\n"]

    rewritten(out, forge)
    assert check_files(out / CHALLENGE)[1] == []
    kept = amended[2][1] / RECORD
    assert descent(out / CHALLENGE, kept).faults == [f"Amendment 1 is another one than in {kept}."]


@pytest.mark.parametrize(
    "moved", [3, *(pytest.param(moved, marks=pytest.mark.slow) for moved in (0, 1, 2, 5, 6))]
)
def test_a_killed_amendment_is_completed_by_the_same_command(copy, monkeypatch, moved, capsys):
    trained, out = copy
    before = files_below(out)
    train_again(trained, DEV)
    rename, count = os.replace, 0

    def stop(source, target):
        nonlocal count
        if str(target).startswith(str(out)) and ".aside" not in str(target):
            count += 1
            if count > moved:
                raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", stop)
    command = ["release", str(trained), "--to", str(out), "--amend", WHY, "--date", "2026-11-01"]
    assert main(command) == 130
    said = f"mico: stopped; {out} is changed in part, and the same command completes it.\n"
    assert capsys.readouterr().err.endswith(said)
    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(ValueError, match="lacks amendment 1 of 2026-11-01, which was begun"):
        add_labels(trained, CHALLENGE, out, "dev")
    amendment = amend(trained, CHALLENGE, out, "another reason", day="2026-11-20")
    assert (amendment.number, amendment.reason, amendment.date) == (1, WHY, "2026-11-01")
    sound(trained, out)
    assert len(read_amendments(out / CHALLENGE)) == 1 and files_below(out) != before
    with pytest.raises(ValueError, match="there is nothing to amend"):
        amend(trained, CHALLENGE, out, WHY)


@pytest.mark.slow
def test_models_are_withdrawn_and_added(copy):
    trained, out = copy
    model = "digits_inf/train/model_1"
    away = shutil.move(trained / CHALLENGE / model, trained.parent / "away")
    with pytest.raises(ValueError, match=f"withdraw it with --withdraw {model}"):
        amend(trained, CHALLENGE, out, WHY)
    with pytest.raises(ValueError, match="so it cannot be withdrawn"):
        amend(trained, CHALLENGE, out, WHY, withdraw=["digits_inf/train/model_99"])
    assert amend(trained, CHALLENGE, out, WHY, withdraw=[model]).sentence() == f"withdrew {model}"
    assert not (out / CHALLENGE / model).exists()
    sound(trained, out)
    shutil.move(away, trained / CHALLENGE / model)
    before = files_below(out)
    dry = amend(trained, CHALLENGE, out, WHY, dry_run=True)
    assert (dry.number, dry.sentence()) == (2, f"added {model}")
    assert files_below(out) == before and len(read_history(trained, CHALLENGE)) == 1
    amend(trained, CHALLENGE, out, WHY)
    sound(trained, out)
    shutil.rmtree(trained / CHALLENGE / DEV)
    with pytest.raises(ValueError, match="No model of digits_inf/dev would be left"):
        amend(trained, CHALLENGE, out, WHY, withdraw=[DEV])


def test_what_must_not_be_amended_is_refused(copy):
    trained, out = copy
    before = files_below(out)
    for reason in ("", "two\nlines", "x" * 301):
        with pytest.raises(ValueError, match="write one line of 1 to 300 printable"):
            amend(trained, CHALLENGE, out, reason)
    with pytest.raises(ValueError, match="'1.11.2026' is no date"):
        amend(trained, CHALLENGE, out, WHY, day="1.11.2026")
    with pytest.raises(ValueError, match="there is nothing to amend"):
        amend(trained, CHALLENGE, out, WHY)
    train_again(trained, PRIVATE, seeds=False)
    with pytest.raises(ValueError, match="train it with new seeds"):
        amend(trained, CHALLENGE, out, WHY)
    assert files_below(out) == before
    train_again(trained, PRIVATE)
    train_again(trained, FINAL, seeds=False)  # without privacy, damaged weights may be replaced
    seed = (trained / CHALLENGE / PRIVATE / "seed_membership").read_text().strip()
    with pytest.raises(ValueError, match=r"amendments.jsonl: tells seed_membership"):
        amend(trained, CHALLENGE, out, f"it has the seed {seed}")
    assert files_below(out) == before and not read_history(trained, CHALLENGE)
    change = amend(trained, CHALLENGE, out, WHY).changes[FINAL]
    assert change["before"]["commitment"] == change["after"]["commitment"]
    sound(trained, out)


def test_the_seeds_of_any_earlier_private_model_are_refused(copy):
    """A fleet would train the model again with the seeds of its ledger."""
    trained, out = copy
    first = shutil.copytree(trained / CHALLENGE / PRIVATE, trained.parent / "first")
    train_again(trained, PRIVATE)
    amend(trained, CHALLENGE, out, WHY)
    shutil.rmtree(trained / CHALLENGE / PRIVATE)
    shutil.move(first, trained / CHALLENGE / PRIVATE)
    with pytest.raises(ValueError, match="with the seeds of a model that it replaces"):
        amend(trained, CHALLENGE, out, WHY)


@pytest.mark.parametrize("again", [DEV, DEV.replace("100", "101")])
def test_a_secret_seed_of_a_replaced_model_is_refused(copy, again):
    """The reveal of the new model would tell the labels of the old one, whoever has its place."""
    trained, out = copy
    old = (trained / CHALLENGE / DEV / "seed_membership").read_text().strip()
    train_again(trained, DEV)
    if again != DEV:
        amend(trained, CHALLENGE, out, WHY)
    seeds = replace(draw_seeds(), membership=bytes.fromhex(old))
    train_again(trained, again, seeds=seeds)
    before = files_below(out)
    with pytest.raises(ValueError, match=f"a secret seed of {DEV}, which was repl") as refused:
        amend(trained, CHALLENGE, out, WHY)
    assert files_below(out) == before and old not in str(refused.value)
    train_again(trained, again)
    amend(trained, CHALLENGE, out, WHY)
    sound(trained, out)


def test_a_model_that_was_added_without_an_amendment_is_found(copy):
    """Models of train have no commitment, so only their files show it."""
    trained, out = copy
    kept = shutil.copytree(out, out.parent / "kept")
    add_labels(trained, CHALLENGE, out, "dev")  # adds files that are no fault
    assert descent(out / CHALLENGE, kept / CHALLENGE).faults == []
    sums, model = kept / SIDE / "SHA256SUMS", f"{CHALLENGE}/digits_lo/train/model_1/"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if model not in line))
    faults = descent(out / CHALLENGE, kept / CHALLENGE).faults
    assert f"{model}model.pt was not in {kept / CHALLENGE}, and no amendment says so." in faults
    assert len(faults) == len(list((out / model).iterdir()))


def test_another_accuracy_without_an_amendment_is_found(copy):
    _, out = copy
    kept = shutil.copytree(out, out.parent / "kept")
    path = out / SIDE / "release.json"
    summary = json.loads(path.read_text())
    summary["scenarios"]["digits_lo"]["accuracy"] = 0.99
    path.write_text(json.dumps(summary, indent=2) + "\n")
    (fault,) = descent(out / CHALLENGE, kept / CHALLENGE).faults
    assert "states another accuracy of digits_lo than" in fault


def test_a_model_that_is_as_before_is_never_recorded(copy, monkeypatch):
    """Say that a comparison failed, as a signal in the middle of an import makes it fail."""
    trained, out = copy
    plain = "digits_inf/train/model_1"
    monkeypatch.setattr(amend_module, "_differs", lambda work, model: model == plain)
    with pytest.raises(ValueError, match=f"{plain} could not be compared with the release"):
        amend(trained, CHALLENGE, out, WHY)
    assert not (out / RECORD).exists()


def test_an_amendment_is_not_of_a_day_to_come(copy):
    trained, out = copy
    train_again(trained, DEV)
    with pytest.raises(ValueError, match=r"2999-01-01 is after today, .* \(UTC\)"):
        amend(trained, CHALLENGE, out, WHY, day="2999-01-01")


def test_after_the_reveal_a_model_stays(copy):
    trained, out = copy
    train_again(trained, DEV)
    amend(trained, CHALLENGE, out, WHY, day="2026-11-01")
    add_labels(trained, CHALLENGE, out, "dev")
    sound(trained, out, ["dev"])
    train_again(trained, PRIVATE)
    with pytest.raises(ValueError, match="the labels of dev are public: a model whose labels"):
        amend(trained, CHALLENGE, out, WHY)


def test_another_date_of_the_same_day_or_an_earlier_one(amended, tmp_path):
    trained, out, _ = amended
    copy = shutil.copytree(trained, tmp_path / "trained")
    train_again(copy, PRIVATE)
    released = shutil.copytree(out, tmp_path / "released")
    with pytest.raises(ValueError, match="2026-11-02 is before amendment 2 of 2026-11-03"):
        amend(copy, CHALLENGE, released, WHY, day="2026-11-02")


def test_a_release_of_other_models_is_not_amended(amended, original, tmp_path):
    trained = shutil.copytree(original.trained, tmp_path / "trained")
    train_again(trained, DEV)
    with pytest.raises(ValueError, match="The amendments of .* are not those in"):
        amend(trained, CHALLENGE, amended[1], WHY)
    value = json.loads((trained / CHALLENGE / "openings.json").read_text())
    value["openings"][FINAL]["commitment"] = "0" * 64
    (trained / CHALLENGE / "openings.json").write_text(json.dumps(value))
    out = shutil.copytree(original.root, tmp_path / "released")
    with pytest.raises(ValueError, match="put back what was released"):
        amend(trained, CHALLENGE, out, WHY)


def test_the_digest_of_commitments_needs_no_order():
    committed = {"digits_lo/dev/model_100": "1" * 64, "digits_hi/final/model_150": "2" * 64}
    turned = dict(reversed(committed.items()))
    assert commitments_digest("digits", committed) == commitments_digest("digits", turned)


def test_the_command_line(copy, capsys):
    trained, out = copy
    train_again(trained, DEV)
    command = ["release", str(trained), "--to", str(out)]
    assert main([*command, "--withdraw", DEV]) == 2
    assert main([*command, "--amend", WHY, "--reveal", "dev"]) == 2
    capsys.readouterr()
    assert main([*command, "--amend", WHY, "--date", "2026-11-01", "--dry_run"]) == 0
    what = f"Amendment 1 of 2026-11-01: replaced {DEV}. "
    assert capsys.readouterr().out == f"{what}Nothing was changed\n"
    assert main([*command, "--amend", WHY, "--date", "2026-11-01"]) == 0
    assert capsys.readouterr().out.startswith(f"{what}It is recorded in {out / RECORD}; publish")


def test_participants_learn_that_predictions_are_of_another_model(changed, capsys):
    _, out = changed
    folder = out / CHALLENGE
    for place in folder.glob("*/*/model_*"):
        target = out / f"{CHALLENGE}.predictions" / place.relative_to(folder)
        target.mkdir(parents=True)
        (target / "prediction.csv").write_text(",".join(["0.5", "0.25"] * 100) + "\n")
    old = datetime(2026, 10, 20, tzinfo=UTC).timestamp()
    os.utime(out / f"{CHALLENGE}.predictions" / DEV / "prediction.csv", (old, old))
    early = f"{DEV} was replaced by amendment 1 of 2026-11-01, and its prediction is of 2026-10-20"
    other = f"{FINAL} was replaced by amendment 2 of 2026-11-03"
    zipped = str(out / "p.zip")
    for command in (["check"], ["score"], ["submit", "--zip", zipped], ["check", "--zip", zipped]):
        assert main([command[0], str(folder), *command[1:]]) == 0
        said = capsys.readouterr().out
        assert f"{early}: attack it again." in said and other in said
    os.utime(out / f"{CHALLENGE}.predictions" / FINAL / "prediction.csv", (old, old))
    assert amendment_notes(folder)[1].endswith(
        "and its prediction is of 2026-10-20: attack it again."
    )
