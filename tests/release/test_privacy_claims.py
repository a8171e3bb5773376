"""A row of the table or of a file that was changed after training is not released as if it held."""

import json
import re
import shutil
from contextlib import contextmanager
from importlib.resources import files

import pytest

from mico_competition.cli import main
from mico_competition.competition.layout import walk_challenge
from mico_competition.competition.table import using
from mico_competition.release.privacy_claims import check_privacy_claims
from mico_competition.release.release import write_reference

ROW = "target_epsilon = 4\ntarget_delta = 1e-5\nmax_grad_norm = 1.0"
LO = "digits/digits_lo/train/model_0"


def digits_file(folder, *changes):
    """The demonstration as a file of one's own, with texts replaced."""
    text = (files("mico_competition.competition") / "digits.toml").read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    file = folder / "own.toml"
    file.write_text(text, encoding="utf-8")
    return file


@contextmanager
def edited(path):
    """The JSON object in `path`, which is written again at the end."""
    value = json.loads(path.read_text())
    yield value
    path.write_text(json.dumps(value))


@pytest.fixture
def root(trained, tmp_path):
    """A copy of the trained digits, to change."""
    shutil.copytree(trained, tmp_path / "trained" / "digits")
    return tmp_path / "trained"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ROW.replace("= 4", "= 0.5"), "with epsilon = 4.0, and .* states target_epsilon = 0.5,"),
        (ROW.replace("= 4", "= 5"), "with target_epsilon = 4.0, and .* target_epsilon = 5.0,"),
        (ROW.replace("1e-5", "1e-6"), "with delta = 1e-05, and .* states target_delta = 1e-06,"),
        (ROW.replace("1e-5", "1e-4"), "with target_delta = 1e-05, and .* target_delta = 0.0001,"),
        (ROW.replace("1.0", "2.0"), "with max_grad_norm = 1.0, and .* states max_grad_norm = 2.0,"),
        ("target_epsilon = inf\ntarget_delta = 1e-5", "with privacy, and .* trained without,"),
    ],
)
def test_a_row_of_ones_own_file_that_was_changed_after_training_is_refused(
    root, tmp_path, row, said, capsys
):
    file = digits_file(tmp_path, (ROW, row))
    to = tmp_path / "released"
    assert main(["release", str(root), "--to", str(to), "--competition", str(file)]) == 1
    complaint = capsys.readouterr().err
    assert re.search(f"{LO} was trained {said} which would be a false claim", complaint)
    assert str(file) in complaint
    assert not (to / "digits").exists() and not (to / "digits.release").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found["privacy"].update(epsilon=8.0), "with epsilon = 8.0, and "),
        (lambda found: found["privacy"].update(delta=0.1), "with delta = 0.1, and "),
        (lambda found: found["privacy"].pop("epsilon"), "with epsilon = None, and "),
        (lambda found: found.update(privacy=None), "without privacy, and "),
    ],
)
def test_models_of_the_packages_own_scenarios_are_as_private_as_their_rows(root, change, said):
    path = root / LO / "metadata.json"
    with edited(path) as found:
        change(found)
    with pytest.raises(ValueError, match=f"{LO} was trained {said}.*correct the row in the table"):
        check_privacy_claims(walk_challenge(root / "digits"))


def test_more_privacy_than_the_table_states_and_no_metadata_are_no_contradiction(root):
    with edited(root / LO / "metadata.json") as found:
        found["privacy"].update(epsilon=1.0)
        found["settings"].update(target_epsilon=1.0)
    (root / "digits/digits_lo/train/model_1/metadata.json").unlink()
    check_privacy_claims(walk_challenge(root / "digits"))


def test_other_settings_than_those_of_the_file_are_told(root, tmp_path, capsys):
    file = digits_file(tmp_path)
    for path in root.glob("digits/digits_lo/*/*/metadata.json"):
        with edited(path) as found:
            found["settings"].update(learning_rate=0.25, num_epochs=60, batch_size=7)
    line = ["release", str(root), "--to", str(tmp_path / "released"), "--quiet"]
    assert main([*line, "--competition", str(file)]) == 0
    *lacking, said = capsys.readouterr().out.splitlines()[1:]
    assert all("lacks models that its challenge has: train 2-99, " in line for line in lacking)
    assert [said] == [
        f"Scenario digits_lo was trained with other settings than {file} states: learning_rate = "
        "0.25 (there 0.002), batch_size = 7 (there 30)."
    ]


def test_models_outside_the_range_of_their_phase_are_refused(root, tmp_path, capsys):
    changes = [
        ("[phase.train]\nmodels = [0, 99]", "[phase.train]\nmodels = [0, 100]"),
        ("models = [100, 149]", "models = [101, 149]"),
    ]
    file = digits_file(tmp_path, *changes)
    said = (
        "digits_hi/dev/model_100 lies in phase dev, which has the models 101 to 149 in "
        f"{file}: put the range back"
    )
    line = ["release", str(root), "--to", str(tmp_path / "released")]
    assert main([*line, "--competition", str(file)]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "released" / "digits").exists()
    with using(file), pytest.raises(ValueError, match=re.escape(said)):
        write_reference(root, "digits", "dev", tmp_path / "reference")
    model = root / "digits/digits_lo/train/model_1"
    model.rename(model.with_name("model_150"))
    assert main(line) == 1
    said = "train/model_150 lies in phase train, which has the models 0 to 99: rename the folder"
    assert said in capsys.readouterr().err
