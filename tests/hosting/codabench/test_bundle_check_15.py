"""The linter on CodaLab's form, by the rules of legacy CodaLab and by Codabench's."""

import pytest
from helpers_breaks import NOON, both, drop, edit, find, program, without
from helpers_bundle import make_bundle, read_zip, write_files

from mico_competition.hosting.codabench.check import check_bundle


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The files of a good bundle in CodaLab's form."""
    return read_zip(make_bundle(tmp_path_factory.mktemp("good"), "digits", "codalab")[0])


RESULTS = ("leaderboard", "columns", "average_TPR_FPR_1000")
# The same for CodaLab's form; the last word says by whose rules, legacy CodaLab's or Codabench's.
VERSION_15 = [
    (drop("html"), "error", "html", "HTML pages could not be found", "codabench"),
    (drop("html", "terms"), "error", "html", "terms of the competition could not be", "codabench"),
    (drop("html", "data"), "error", "html", "crashes without a page `data`", "codalab"),
    (without("pages/data.html"), "error", "html.data", "find file for page: data", "codabench"),
    (drop("phases"), "error", "phases", "No phases could be found", "codabench"),
    (drop("phases", 1, "label"), "error", "phases.1", "error log: 'label'", "codabench"),
    (drop("phases", 2, "start_date"), "error", "phases.2", "log: 'start_date'", "codalab"),
    (drop("phases", 2, "scoring_program"), "error", "phases.2", "#2079", "codabench"),
    (drop("phases", 2, "reference_data"), "error", "phases.2", "no reference data", "codalab"),
    (edit("phases", 1, "auto_migration", to=True), "warning", "phases.1.a", "migrates", "codalab"),
    (edit("phases", 1, "auto_migration", to=True), "error", "phases.1.a", "first", "codabench"),
    (edit("phases", 1, "hide_output", to=True), "error", "phases.1.hide", "crashes", "codalab"),
    (edit("phases", 1, "label", to="x" * 51), "error", "phases.1.label", "than 50", "codalab"),
    (
        edit("phases", 2, "leaderboard_management_mode", to="hidden"),
        *("warning", "phases.2.lead", "does not know the mode", "codalab"),
    ),
    (edit("version", to=1.5), "error", "version", "crashes on a key", "codalab"),
    (edit("title", to="x" * 101), "error", "title", "more than 100", "codalab"),
    (drop("competition_docker_image"), "warning", "competition_d", "#3263", "codalab"),
    (edit("allow_teams", to=True), "warning", "allow_teams", "ignores", "codabench"),
    (edit("phases", 2, "max_submission_size", to=1), "warning", "phases.2.max", "ig", "codabench"),
    (edit("phases", 2, "start_date", to=NOON), "warning", "phases.2.start", "midn", "codabench"),
    (
        edit("phases", 2, "start_date", to="2027-01-02 00:00:00"),
        *("warning", "phases.2.start_date", "has no length", "codabench"),
    ),
    (
        edit("phases", 2, "start_date", to="2026-01-02 00:00:00"),
        *("error", "phases.2.start_date", "starts no later than", "codalab"),
    ),
    (edit("end_date", to="then"), "error", "end_date", "guessed at", "codalab"),
    (drop("leaderboard"), "error", "leaderboard", "Could not find leaderboard in", "codabench"),
    (drop("leaderboard", "leaderboards"), "error", "leaderboard.l", "declared on", "codabench"),
    (drop("leaderboard", "columns"), "error", "leaderboard.columns", "columns decl", "codabench"),
    (
        drop("leaderboard", "leaderboards", "results", "rank"),
        *("error", "leaderboard.leaderboards.results", "'rank'", "codalab"),
    ),
    (
        edit("leaderboard", "leaderboards", "more", to={"label": "More", "rank": 2}),
        *("warning", "leaderboard.leaderboards.more", "are lost", "codabench"),
    ),
    (edit(*RESULTS, "leaderboard", to="x"), "error", "1000.leaderboard", "error log", "codabench"),
    (
        edit(*RESULTS, "leaderboard", to={"label": "x"}),
        *("error", "1000.leaderboard", "no leaderboard has that label", "codabench"),
    ),
    (edit(*RESULTS, "label", to="x" * 51), "error", "1000.label", "keeps 50", "codalab"),
    (edit(*RESULTS, "label", to="x" * 45), "warning", "1000.label", "refused", "codalab"),
    (edit(*RESULTS, "label", to="x" * 45), "error", "1000.label", "than 36", "codabench"),
    (edit(*RESULTS, "computed", to={}), "warning", "1000.computed", "stays empty", "codabench"),
    (edit(*RESULTS, "numeric_format", to="%.4f"), "error", "1000.num", "integer", "codabench"),
    (edit(*RESULTS, "sort", to="down"), "error", "1000.sort", '"down" is not', "codabench"),
    (edit(*RESULTS, "column_group", to={"label": "x"}), "error", "1000.c", "declared", "codalab"),
    (lambda files: {"a.yaml": b"", **files}, "error", "competition.yaml", "a.yaml", "codalab"),
    (
        both(program(metadata=None), program(**{"metadata.yaml": "command: python3 x\n"})),
        *("error", "phases.1, sc", "There is no metadata at its root", "codalab"),
    ),
]


@pytest.mark.parametrize(("change", "severity", "where", "words", "platform"), VERSION_15)
def test_a_bundle_of_version_15_broken_in_one_way(
    good, tmp_path, change, severity, where, words, platform
):
    path = write_files(tmp_path / "bundle.zip", change(good))
    faults = check_bundle(path, platform)
    assert find(faults, severity, where, words), "\n".join(map(str, faults))
