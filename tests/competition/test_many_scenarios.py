"""Challenges of 1 to 20 scenarios with names of their own, from bundle to leaderboard."""

import html
import re
import shlex
from contextlib import ExitStack
from math import inf

import numpy as np
import pytest
from helpers_browser import Browser
from helpers_bundle import (
    SCHEDULE,
    read_zip,
    spec_of,
    with_spec,
    write_files,
    write_submission,
    write_trained,
)
from helpers_competition import competition_text
from helpers_leaderboard import made_up, predictions_of, write_truth, write_zip
from mico_competition.scoring import score
from mico_competition.scoring.metrics import RANKED, SCALARS

from mico_competition.cli import build_parser, main
from mico_competition.competition.table import SCENARIOS, labels_of, using
from mico_competition.hosting.codabench.bundle import write_bundle, write_final_reference
from mico_competition.hosting.codabench.check import check_bundle
from mico_competition.hosting.codabench.facts import METRICS, Facts, short_labels
from mico_competition.hosting.codabench.options import Options
from mico_competition.hosting.codabench.rehearse import rehearse
from mico_competition.hosting.leaderboard.add import About, add
from mico_competition.hosting.leaderboard.build import build
from mico_competition.hosting.leaderboard.entries import write_entry
from mico_competition.hosting.leaderboard.truth_tree import read_truth

ODD = ("plain", "Zeta", "eps4_b", "a.b-c", "inf", "x_", "1", "lo_hi_inf", "two words", "größe")


def scenario_names(count):
    """Odd names first, then plain ones."""
    return [*ODD, *(f"faces_{i}" for i in range(20))][:count]


@pytest.fixture
def table(tmp_path):
    """Uses a competition of one challenge `faces` of so many scenarios; one is without privacy."""
    with ExitStack() as stack:

        def put(count, **fields):
            names = sorted(scenario_names(count))
            epsilons = [inf if i == count // 2 else (8.0, 0.25, 4.0)[i % 3] for i in range(count)]
            rows = {n: {"target_epsilon": e, **fields} for n, e in zip(names, epsilons)}
            file = tmp_path / "competition.toml"
            file.write_text(competition_text(rows), encoding="utf-8")
            stack.enter_context(using(file))
            return names

        yield put


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["codabench", "codalab"])
@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_a_challenge_of_any_size_is_bundled_scored_and_shown(table, tmp_path, count, platform):
    names = table(count)
    root = write_trained(tmp_path / "trained", "faces")
    bundle, final = tmp_path / "bundle.zip", tmp_path / "final.zip"
    write_bundle(root, "faces", bundle, SCHEDULE, Options(platform))
    assert check_bundle(bundle) == []
    write_final_reference(root, "faces", final)
    values = write_submission(tmp_path / "sent.zip", root, "faces")
    rehearsal = rehearse(bundle, tmp_path / "sent.zip", final_reference=final)
    assert rehearsal.sound, [run.outcome for run in rehearsal.phases]
    run = rehearsal.phases[1]
    assert len(run.columns) == 1 + 6 * count
    tenths = []
    for i, name in enumerate(names, start=1):
        places = [place for place in values if place.startswith(f"faces/{name}/final/")]
        truth = [(root / p / "solution.csv").read_text().split(",") for p in places]
        result = score(
            np.concatenate(truth).astype(int), np.concatenate([values[p] for p in places])
        )
        for key in METRICS:
            shown = run.outcome.scores[f"scenario{i}_{key}"]
            assert float(shown) == pytest.approx(result[key], abs=1e-10)
        tenths.append(result[RANKED])
    average = float(run.outcome.scores[f"average_{RANKED}"])
    assert average == pytest.approx(np.mean(tenths), abs=1e-10)


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_columns_and_pages_use_one_set_of_words_in_one_order(table, tmp_path, count):
    names = table(count)
    root = write_trained(tmp_path / "trained", "faces")
    facts = Facts.of(root, "faces")
    ordered = sorted(names, key=lambda name: (-SCENARIOS[name].target_epsilon, name))
    assert list(facts.labels) == ordered
    columns = facts.columns()
    assert (
        len({column.key for column in columns}) == len({c.title for c in columns}) == len(columns)
    )
    assert max(len(column.title) for column in columns) <= 36
    for i, name in enumerate(names, start=1):
        mine = [column for column in columns if column.key.startswith(f"scenario{i}_")]
        assert {column.title.rpartition(": ")[0] for column in mine} == {facts.heads[name]}
    write_bundle(root, "faces", tmp_path / "bundle.zip", SCHEDULE)
    files = read_zip(tmp_path / "bundle.zip")
    overview = files["pages/overview.md"].decode()
    assert f"in {count} scenario{'s' * (count > 1)}." in overview
    places = [overview.index(f"| `{name}` | {label}") for name, label in facts.labels.items()]
    assert places == sorted(places)
    assert ("The mean over" in files["pages/evaluation.md"].decode()) == (count > 1)
    text = files["pages/data.md"].decode()
    assert 'load_digits("data")' in text and "load_faces" not in text  # its built-in loader


@pytest.mark.parametrize("platform", ["codabench", "codalab"])
@pytest.mark.parametrize("repo", ["me/faces", None])
def test_participants_get_the_file_first_and_commands_take_it(table, tmp_path, platform, repo):
    table(1, challenge="my faces")
    root = write_trained(tmp_path / "trained", "my faces")
    write_bundle(root, "my faces", tmp_path / "b.zip", SCHEDULE, Options(platform), repo=repo)
    found = {
        name: re.sub(r"<[^>]*>", "", html.unescape(content.decode()))
        for name, content in read_zip(tmp_path / "b.zip").items()
        if name.startswith("pages/")
    }
    data = next(text for name, text in found.items() if name.startswith("pages/data."))
    lines = re.findall(r"^mico (.+)$", "\n".join(found.values()), flags=re.MULTILINE)
    downloads = [line for line in lines if line.startswith("download ")]
    assert len(downloads) == (2 if repo else 0) and len(lines) >= 5
    if repo:
        assert data.index("competition.toml") < data.index("mico download")
        assert "get it first" in data
    if repo and platform == "codabench":
        page = "https://huggingface.co/datasets/me/faces/blob/main"
        assert f"({page}/my%20faces.release/competition.toml)" in data
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[1] == "my faces" and words[-2:] == ["--competition", "competition.toml"]
        build_parser().parse_args(words[:-2])


def test_labels_are_short_and_different():
    long = "A very long name of a scenario, "
    labels = {"a": "No DP", "b": f"{long}ε = 4", "c": f"{long}ε = 8", "d": f"{long}ε = 4 (again)"}
    short = short_labels(labels, 17)
    assert short["a"] == "No DP" and len(set(short.values())) == 4
    assert all(len(label) <= 17 for label in short.values())
    assert short["b"].endswith("ε = 4") and short["c"].endswith("ε = 8")
    twins = {str(i): f"{long}{i} with the same beginning and end" for i in range(3)}
    assert sorted(short_labels(twins, 17).values()) == ["Scenario 1", "Scenario 2", "Scenario 3"]


def test_titles_of_scenarios_are_free_and_twins_are_told_apart(table):
    names = table(5, title="Faces | 50% off, ε = {epsilon}")
    labels = labels_of(names)
    assert len(set(labels.values())) == 5 and next(iter(labels.values())) == "No DP"
    assert "Faces | 50% off, ε = 0.25" in " ".join(labels.values())


def test_a_bar_in_a_title_does_not_break_a_table(table, tmp_path):
    table(2, title="Faces | ε = {epsilon}")
    root = write_trained(tmp_path / "trained", "faces")
    for platform, kind in (("codabench", "md"), ("codalab", "html")):
        write_bundle(root, "faces", tmp_path / f"{kind}.zip", SCHEDULE, Options(platform))
        text = read_zip(tmp_path / f"{kind}.zip")[f"pages/overview.{kind}"].decode()
        if kind == "md":
            assert r"| Faces \| ε = 8 |" in text
        else:
            assert "<td>Faces | ε = 8</td>" in text


@pytest.mark.slow
def test_truth_that_lacks_a_scenario_is_the_organisers_fault(table, tmp_path):
    names = table(3)
    root = write_trained(tmp_path / "trained", "faces")
    write_bundle(root, "faces", tmp_path / "bundle.zip", SCHEDULE)
    write_submission(tmp_path / "sent.zip", root, "faces")
    write_final_reference(root, "faces", tmp_path / "final.zip")
    kept = {
        name: content
        for name, content in read_zip(tmp_path / "final.zip").items()
        if not name.startswith(f"faces/{names[1]}/")
    }
    write_files(tmp_path / "less.zip", kept)
    run = rehearse(
        tmp_path / "bundle.zip", tmp_path / "sent.zip", final_reference=tmp_path / "less.zip"
    ).phases[1]
    assert not run.complete and "no fault of the submission" in run.outcome.stderr
    assert f"scenario '{names[1]}' is missing" in run.outcome.stderr


def test_a_board_that_lacks_a_scenario_is_warned_of(table, tmp_path):
    table(5)
    root = write_trained(tmp_path / "trained", "faces")
    write_bundle(root, "faces", tmp_path / "bundle.zip", SCHEDULE)
    files = read_zip(tmp_path / "bundle.zip")
    spec = spec_of(files)
    board = spec["leaderboards"][0]
    board["columns"] = [c for c in board["columns"] if not c["key"].startswith("scenario5_")]
    write_files(tmp_path / "less.zip", with_spec(files, spec))
    (fault,) = check_bundle(tmp_path / "less.zip")
    assert fault.severity == "warning" and "scenario5" in fault.what


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_entries_and_pages_of_the_leaderboard(table, tmp_path, count):
    names = table(count)
    truth = write_truth(tmp_path / "truth", "faces", models=3, phases=["dev"])
    sent = write_zip(tmp_path / "sent.zip", predictions_of(truth))
    truths = [read_truth(tmp_path / "truth", "faces", "dev")]
    (values,) = add(sent, truths, About("Ours"), resamples=50)
    assert set(values["scenarios"]) == set(names)
    assert set(values["scenarios"][names[0]]["scores"]) == set(SCALARS)
    write_entry(tmp_path / "entries", values)
    build(tmp_path / "entries", tmp_path / "site")
    text = (tmp_path / "site" / "index.html").read_text()
    heads = re.findall(r'class="group s" data-s="(\d+)">([^<]*)<', text)
    labels = list(labels_of(names).values())
    assert heads == [(str(i), label) for i, label in enumerate(labels, start=1)]


@pytest.mark.slow
def test_the_table_of_five_scenarios_works_in_a_browser(table, tmp_path):
    table(5)
    for i, value in enumerate((0.1, 0.2, 0.3), start=1):
        write_entry(tmp_path / "entries", made_up(f"Team {i}", value, challenge="faces", day=i))
    build(tmp_path / "entries", tmp_path / "site")
    browser = Browser()
    try:
        browser.show(1400, 900)
        browser.open(tmp_path / "site" / "index.html")
        options = browser.js("[...document.querySelector('#scenario').options].map(o => o.text)")
        assert len(options) == 6 and options[0] == "Average"
        browser.js(
            "(() => { const s = document.querySelector('#scenario'); s.value = '5';"
            "s.dispatchEvent(new Event('change')); })()"
        )
        seen = "[...document.querySelectorAll('thead th.group')].filter(h => h.checkVisibility())"
        assert browser.js(f"{seen}.map(h => h.textContent)") == options[5:]
        browser.js("document.querySelector(\"th[data-col='14'] button\").click()")
        assert browser.js("document.querySelector('tbody th').textContent") == "Team 3"
        for width in (400, 1400):
            browser.show(width, 900)
            assert browser.js("document.documentElement.scrollWidth") <= width
        assert browser.complaints() == []
    finally:
        browser.close()


def test_mico_score_prints_scenarios_in_the_order_for_people(table, tmp_path, capsys):
    names = table(4)
    root = write_trained(tmp_path / "trained", "faces")
    write_predictions(root, names)
    page = tmp_path / "report.html"
    line = ["score", str(root / "faces"), "--phase", "dev", "--html", str(page)]
    assert main(line) == 0, capsys.readouterr()
    shown = capsys.readouterr().out
    for words in zip(*labels_of(names).items()):
        places = [shown.index(word) for word in words]
        assert places == sorted(places)
    for words in ("Advantage", "Balanced accuracy", "TPR at 10% FPR"):
        assert words in shown and words in page.read_text()
    assert "MIA" not in shown and "MIA" not in page.read_text()


def write_predictions(root, names):
    """Random predictions beside the solutions."""
    rng = np.random.default_rng(0)
    for name in names:
        for path in (root / "faces" / name).rglob("solution.csv"):
            count = len(path.read_text().split(","))
            line = ",".join(map(str, rng.random(count)))
            path.with_name("prediction.csv").write_text(line + "\n")
