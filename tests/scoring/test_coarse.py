"""A phase whose scores leave in steps: all that is written tells the rounded numbers alone."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers_bundle import make_bundle, read_zip, spec_of, write_submission
from helpers_leaderboard import predictions_of, write_truth, write_zip
from helpers_scoring import IMAGES, OUTPUTS, SCENARIOS, SCORING, Competition, image_python
from mico_competition.scoring import generate_html, intervals_of, score
from mico_competition.scoring.coarse import RATES, average, coarse, digits, to_step
from mico_competition.scoring.curve import shown_curve
from mico_competition.scoring.metrics import SCALARS
from mico_competition.scoring.settings import Settings, parse_settings, read_settings
from test_report import values_of

from mico_competition.cli import main
from mico_competition.hosting.codabench.bundle import write_bundle, write_final_reference
from mico_competition.hosting.codabench.options import Limits, Options
from mico_competition.hosting.codabench.program import program_files
from mico_competition.hosting.codabench.rehearse import rehearse
from mico_competition.hosting.leaderboard.add import About, add
from mico_competition.hosting.leaderboard.build import build
from mico_competition.hosting.leaderboard.entries import Entry, write_entry
from mico_competition.hosting.leaderboard.form import check_values, parse_time
from mico_competition.hosting.leaderboard.truth_tree import read_truth

STEP = 0.005
ABOUT = About("Attack", submitted=parse_time("2027-01-02T03:04:05Z"))


def is_coarse(value, step=STEP):
    return abs(value / step - round(value / step)) < 1e-9


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The scoring program with steps for dev, as a bundle has it."""
    folder = tmp_path_factory.mktemp("program")
    labels = {"cifar10_inf": "No DP", "cifar10_hi": "High", "cifar10_lo": "Low"}
    for name, content in program_files(labels, {"dev": STEP}).items():
        (folder / name).write_bytes(content)
    return folder / "score.py"


def test_numbers_are_rounded_to_the_nearest_step_and_leave_as_short_decimals():
    for value in np.linspace(0, 1, 1001):
        rounded = to_step(float(value), STEP)
        assert is_coarse(rounded) and abs(rounded - value) <= STEP / 2 + 1e-12
        assert len(repr(rounded)) <= 5
    assert to_step(0.98, 0.03) <= 1 and (digits(0.005), digits(0.01), digits(0.0025)) == (3, 2, 4)


@pytest.mark.parametrize("step", [0.005, 0.01, 0.001])
def test_a_coarse_score_is_made_of_its_rounded_numbers_alone(step):
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat([0, 1], 500))
    for gap in (0.0, 0.5, 3.0):
        exact = score(truth, gap * truth + rng.normal(size=1000))
        rounded = coarse(exact, step)
        for key in SCALARS:
            assert is_coarse(rounded[key], step)
            assert abs(rounded[key] - exact[key]) <= step * (1 if key == "accuracy" else 0.5) + 1e-9
        # The accuracy tells nothing that the advantage does not.
        assert rounded["accuracy"] == to_step((1 + rounded["MIA"]) / 2, step)
        curve = shown_curve(rounded)
        assert curve.fpr == list(RATES) and curve.low == curve.high == []
        assert curve.tpr == [rounded[f"TPR_FPR_{round(10_000 * rate)}"] for rate in RATES]
        assert curve.tpr == sorted(curve.tpr)


def test_the_average_is_coarse_as_well():
    scores = {str(i): {"AUC": value, "step": STEP} for i, value in enumerate((0.5, 0.505, 0.52))}
    assert average(scores, "AUC") == 0.51
    exact = {str(i): {"AUC": value} for i, value in enumerate((0.5, 0.505, 0.52))}
    assert average(exact, "AUC") == np.mean([0.5, 0.505, 0.52])


def numbers_in(text):
    """Every decimal that the body of a page shows as text."""
    body = re.sub(r"<svg.*?</svg>", "", text.partition("<main>")[2].partition("</main>")[0])
    return [float(n) for n in re.findall(r"\d+\.\d+", re.sub(r"<[^>]*>", " ", body))]


@pytest.mark.slow
@pytest.mark.parametrize("version", [None, *IMAGES])
def test_development_lets_multiples_of_the_step_out_and_final_exact_numbers(
    program, tmp_path, version
):
    python = image_python(version) if version else sys.executable
    for phase in ("dev", "final"):
        competition = Competition(tmp_path / phase, phase)
        done = competition.run(python=python, options=(), program=program)
        assert (done.returncode, done.stderr) == (0, "")
        assert competition.written() == OUTPUTS
        row = json.loads((competition.outputs / "scores.json").read_text())
        lines = (competition.outputs / "scores.txt").read_text().splitlines()
        assert {k: float(v) for k, v in (line.split(": ") for line in lines)} == row
        page = (competition.outputs / "detailed_results.html").read_text(encoding="utf-8")
        for i, name in enumerate(SCENARIOS, start=1):
            exact = score(*competition.pooled[name])
            expected = coarse(exact, STEP) if phase == "dev" else exact
            assert all(row[f"scenario{i}_{key}"] == expected[key] for key in SCALARS)
        assert all(map(is_coarse, row.values())) == (phase == "dev")
        assert ("95% interval" in page.partition("<script>")[0]) == (phase == "final")
        assert ("In steps of 0.005" in page) == (phase == "dev")
        assert page.index("No DP") < page.index("High") < page.index("Low")


@pytest.mark.slow
def test_every_number_on_the_page_is_coarse(program, tmp_path):
    competition = Competition(tmp_path)
    assert competition.run(program=program).returncode == 0
    page = (competition.outputs / "detailed_results.html").read_text(encoding="utf-8")
    found = [n for n in numbers_in(page) if n < 1]
    assert len(found) > 30 and all(map(is_coarse, found)), found
    assert len(re.findall(r'class="band"', page)) == 0


def other_truths(competition, tries=100):
    """The truth with one member and one non-member of a model exchanged, in many ways."""
    rng = np.random.default_rng(5)
    for _ in range(tries):
        scenario, i = rng.choice(SCENARIOS), int(rng.choice((99, 100, 101)))
        path = competition.solution(scenario, i)
        before = path.read_text()
        labels = before.strip().split(",")
        one, other = (rng.choice([k for k, x in enumerate(labels) if x == v]) for v in "01")
        labels[one], labels[other] = labels[other], labels[one]
        path.write_text(",".join(labels) + "\n")
        yield scenario
        path.write_text(before)


@pytest.mark.slow
def test_truths_with_the_same_rounded_numbers_cannot_be_told_apart(tmp_path):
    """To the byte: whatever else of the truth the program had let out would show here."""
    competition = Competition(tmp_path)
    folder = tmp_path / "program"
    folder.mkdir()
    for name, content in program_files(dict.fromkeys(SCENARIOS, "x"), {"dev": 0.1}).items():
        (folder / name).write_bytes(content)
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import score\nmain = score.load_main()\n"
        "for line in sys.stdin:\n"
        "    print(main(sys.argv[2:]), flush=True)\n"
    )
    command = [sys.executable, str(runner), str(folder), competition.inputs, competition.outputs]
    process = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def outputs():
        process.stdin.write("go\n")
        process.stdin.flush()
        said = [process.stdout.readline(), process.stdout.readline()]
        assert said[1] == "0\n"
        return said, {name: (competition.outputs / name).read_bytes() for name in OUTPUTS}

    try:
        first, same, differs = outputs(), 0, 0
        for _ in other_truths(competition):
            found = outputs()
            if found[1]["scores.json"] == first[1]["scores.json"]:
                assert found == first
                same += 1
            else:
                differs += 1
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()
    assert same >= 4 and differs >= 4


def test_intervals_are_not_shown_beside_coarse_scores_even_if_they_are_given():
    values = values_of(models=5, points=40)
    exact = {
        name: score(
            np.concatenate([v for k, v in values[0].items() if f"/{name}/" in k]),
            np.concatenate([v for k, v in values[1].items() if f"/{name}/" in k]),
        )
        for name in ("cifar10_hi", "cifar10_inf", "cifar10_lo")
    }
    rounded = {name: coarse(result, STEP) for name, result in exact.items()}
    assert generate_html(rounded, intervals_of(*values)) == generate_html(rounded)


# --- settings


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"steps": {"dev": 0}}',
        '{"steps": {"dev": -0.005}}',
        '{"steps": {"dev": "0.005"}}',
        '{"steps": {"dev": true}}',
        '{"steps": {"dev": NaN}}',
        '{"steps": {"dev": 0.5}}',
        '{"step": {"dev": 0.005}}',
        '{"steps": [0.005]}',
        '{"scenarios": {"cifar10_hi": 1}}',
        '{"scenarios": {"cifar10_hi": ""}}',
    ],
)
def test_damaged_settings_let_no_score_out(tmp_path, text):
    """Scores would otherwise leave exact where they must not."""
    competition = Competition(tmp_path)
    folder = shutil.copytree(SCORING, tmp_path / "program")
    (folder / "settings.json").write_text(text)
    with pytest.raises(ValueError):
        read_settings(str(folder))
    done = competition.run(program=folder / "score.py")
    assert done.returncode == 1 and competition.written() == ["detailed_results.html"]
    assert "Please tell the organisers." in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("version", [None, "3.7"])
@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "{", "{}", "[]", '{"steps": {}}', '{"scenarios": {}}'),
        *('{"steps": {"Dev": 0.005}}', '{"steps": {"final": 0.005}}'),
        *('{"steps": {"dev": 0.000001}}', '{"steps": {"dev": 0.005}, "steps": {}}'),
    ],
)
def test_a_bundles_program_rounds_whatever_becomes_of_its_settings(
    program, tmp_path, text, version
):
    python = image_python(version) if version else sys.executable
    folder = shutil.copytree(program.parent, tmp_path / "program")
    (folder / "settings.json").unlink()
    if text is not None:
        (folder / "settings.json").write_text(text)
    competition = Competition(tmp_path)
    done = competition.run(python=python, options=(), program=folder / "score.py")
    assert done.returncode == 0 and "Please tell the organisers." in done.stderr
    row = json.loads((competition.outputs / "scores.json").read_text())
    assert len(row) == 28 and all(map(is_coarse, row.values()))
    page = (competition.outputs / "detailed_results.html").read_text(encoding="utf-8")
    found = [n for n in numbers_in(page) if n < 1]
    assert len(found) > 30 and all(map(is_coarse, found))


def test_a_bundle_with_exact_scores_rounds_as_well_once_its_settings_are_lost(tmp_path):
    """And with truth beneath the name of another phase than dev or final."""
    competition = Competition(tmp_path)
    labels = dict.fromkeys(SCENARIOS, "x")
    for steps, damage, coarse_ones in (
        ({}, False, False),
        ({}, True, True),
        ({"dev": STEP}, False, True),
    ):
        folder = tmp_path / f"{damage}-{len(steps)}"
        folder.mkdir()
        for name, content in program_files(labels, steps).items():
            (folder / name).write_bytes(content)
        if damage:
            (folder / "settings.json").unlink()
        assert competition.run(program=folder / "score.py").returncode == 0
        row = json.loads((competition.outputs / "scores.json").read_text())
        assert all(map(is_coarse, row.values())) == coarse_ones
    for tree in (competition.ref, competition.res):
        for scenario in SCENARIOS:
            (tree / scenario / "dev").rename(tree / scenario / "Dev")
    assert competition.run(program=folder / "score.py").returncode == 0
    row = json.loads((competition.outputs / "scores.json").read_text())
    assert all(map(is_coarse, row.values()))


def test_a_bundles_program_does_not_start_without_the_file_that_says_what_it_is(program, tmp_path):
    folder = shutil.copytree(program.parent, tmp_path / "program")
    (folder / "bundled.py").unlink()
    competition = Competition(tmp_path)
    done = competition.run(program=folder / "score.py")
    assert done.returncode == 1 and competition.written() == []


def test_settings_of_a_file_state_their_steps_once_and_for_phases_that_there_are():
    for text, words in (
        ("{}", "Expected steps"),
        ('{"scenarios": {}}', "Expected steps"),
        ('{"steps": {"Dev": 0.005}}', "dev and final"),
        ('{"steps": {"train": 0.005}}', "dev and final"),
        ('{"steps": {}, "steps": {}}', "'steps' twice"),
        ('{"steps": {"dev": 0.005, "dev": 0.001}}', "'dev' twice"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_settings(text)
    with pytest.raises(ValueError, match="dev and final"):
        program_files({"a": "b"}, {"Dev": 0.005})


def test_settings_name_the_scenarios_that_must_be_there(program, tmp_path):
    competition = Competition(tmp_path)
    shutil.rmtree(competition.ref / "cifar10_lo")
    done = competition.run(program=program)
    assert done.returncode == 1 and "scenario 'cifar10_lo' is missing" in done.stderr
    assert "no fault of the submission" in done.stderr
    (competition.ref / "cifar10_hi").rename(competition.ref / "cifar10_new")
    assert "unexpected scenario 'cifar10_new'" in competition.run(program=program).stderr


def test_the_program_as_it_lies_in_scoring_has_no_settings():
    assert not (SCORING / "settings.json").exists()
    assert read_settings(str(SCORING)) == Settings()


# --- the bundle


@pytest.mark.slow
def test_a_bundle_sets_the_step_and_the_limits(tmp_path):
    path, root = make_bundle(tmp_path)
    files = read_zip(path)
    settings = json.loads(read_zip(files["scoring_program.zip"])["settings.json"])
    labels = {"digits_inf": "No DP", "digits_hi": "High ε = 10", "digits_lo": "Low ε = 4"}
    assert settings == {"scenarios": labels, "steps": {"dev": STEP}}
    assert list(settings["scenarios"]) == list(labels)
    dev, final = spec_of(files)["phases"]
    assert (dev["max_submissions_per_day"], dev["max_submissions"]) == (5, 100)
    assert (final["max_submissions_per_day"], final["max_submissions"]) == (1, 1)
    page = files["pages/evaluation.md"].decode()
    assert "multiples of 0.005" in page and "| Development | 5 | 100 |" in page
    write_final_reference(root, "digits", tmp_path / "final.zip")
    write_submission(tmp_path / "sent.zip", root, "digits")
    rehearsal = rehearse(path, tmp_path / "sent.zip", final_reference=tmp_path / "final.zip")
    assert rehearsal.sound
    dev, final = (run.outcome.scores for run in rehearsal.phases)
    assert all(is_coarse(float(value)) for value in dev.values())
    assert not all(is_coarse(float(value)) for value in final.values())


def test_an_organiser_may_set_other_steps_and_limits(tmp_path):
    root = make_bundle(tmp_path)[1]
    schedule = make_bundle.__globals__["SCHEDULE"]
    options = Options(step=0.0, limits=Limits(2, 40))
    write_bundle(root, "digits", tmp_path / "exact.zip", schedule, options)
    files = read_zip(tmp_path / "exact.zip")
    assert json.loads(read_zip(files["scoring_program.zip"])["settings.json"])["steps"] == {}
    assert "All numbers are exact" in files["pages/evaluation.md"].decode()
    assert "| Development | 2 | 40 |" in files["pages/evaluation.md"].decode()
    with pytest.raises(ValueError, match="step of dev"):
        write_bundle(root, "digits", tmp_path / "x.zip", schedule, Options(step=0.7))
    with pytest.raises(ValueError, match="per_day=9 <= in_all=3"):
        Limits(9, 3)


# --- the leaderboard


def test_entries_of_development_are_as_coarse_and_those_of_final_exact(tmp_path):
    truth = write_truth(tmp_path / "truth")
    sent = write_zip(tmp_path / "a.zip", predictions_of(truth, skill=0.1))
    truths = [read_truth(tmp_path / "truth", "cifar10", phase) for phase in ("dev", "final")]
    dev, final = add(sent, truths, ABOUT, resamples=50)
    assert check_values(dev) == check_values(final) == []
    assert is_coarse(dev["average"]["score"]) and dev["average"]["interval"] is None
    for result in dev["scenarios"].values():
        assert all(map(is_coarse, [*result["scores"].values(), *result["roc"]["tpr"]]))
        assert set(result["intervals"].values()) == {None} and len(result["roc"]["fpr"]) == 6
    assert not all(map(is_coarse, final["scenarios"]["cifar10_hi"]["scores"].values()))
    assert Entry("a", dev).step == STEP and Entry("a", final).step == 0
    (exact,) = add(sent, truths[:1], ABOUT, resamples=50, exact=True)
    assert exact["average"]["interval"] is not None and Entry("a", exact).step == 0


def test_the_site_says_that_scores_are_coarse_and_how_to_repeat_them(tmp_path):
    truth = write_truth(tmp_path / "truth", phases=["dev"])
    sent = write_zip(tmp_path / "a.zip", predictions_of(truth, skill=0.1))
    truths = [read_truth(tmp_path / "truth", "cifar10", "dev")]
    for exact in (False, True):
        folder = tmp_path / str(exact)
        (values,) = add(sent, truths, ABOUT, resamples=50, exact=exact)
        write_entry(folder / "entries", values)
        build(folder / "entries", folder / "site")
        index = (folder / "site" / "index.html").read_text()
        page = next((folder / "site" / "cifar10").glob("*.html")).read_text()
        assert ("multiples of 0.005" in index) == ("multiples of 0.005" in page) == (not exact)
        assert ("--exact" in page) == exact
        assert (f"<b>{values['average']['score']:.3f}</b>" in index) == (not exact)


@pytest.mark.slow
def test_the_verbs_give_coarse_entries_unless_asked_for_exact_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    truth = write_truth(tmp_path / "truth", phases=["dev"])
    write_zip(tmp_path / "sent" / "a.zip", predictions_of(truth, 0.1))
    line = ["score-all", "sent", "--truth", "truth", "--resamples", "50"]
    found = {}
    for name, flags in (("coarse", []), ("exact", ["--exact"])):
        assert main([*line, "--out", name, *flags]) == 0, capsys.readouterr()
        (path,) = (tmp_path / name / "cifar10").glob("*.json")
        found[name] = json.loads(path.read_text())["scenarios"]["cifar10_hi"]["scores"]
    assert all(map(is_coarse, found["coarse"].values()))
    assert not all(map(is_coarse, found["exact"].values()))
