"""The linter on CodaLab's form, by the rules of legacy CodaLab."""

import pytest
from helpers_breaks import NOON, both, drop, edit, find, program, without
from helpers_bundle import write_files

from mico_competition.hosting.codabench.check import check_bundle

RESULTS = ("leaderboard", "columns", "average_TPR_FPR_1000")
VERSION_15 = [
    (drop("html"), "error", "html", "HTML pages could not be found"),
    (drop("html", "data"), "error", "html", "crashes without a page `data`"),
    (without("pages/data.html"), "error", "html.data", "find file for page: data"),
    (drop("phases"), "error", "phases", "No phases could be found"),
    (drop("phases", 1, "label"), "error", "phases.1", "error log: 'label'"),
    (drop("phases", 2, "start_date"), "error", "phases.2", "log: 'start_date'"),
    (drop("phases", 2, "scoring_program"), "error", "phases.2", "no scoring_program"),
    (drop("phases", 2, "reference_data"), "error", "phases.2", "no reference_data"),
    (edit("phases", 1, "hide_output", to=True), "error", "phases.1.hide", "crashes"),
    (edit("phases", 1, "label", to="x" * 51), "error", "phases.1.label", "than 50"),
    (
        edit("phases", 2, "leaderboard_management_mode", to="hidden"),
        *("warning", "phases.2.lead", "does not know the mode"),
    ),
    (edit("version", to=1.5), "error", "version", "crashes on a key"),
    (edit("title", to="x" * 101), "error", "title", "more than 100"),
    (drop("competition_docker_image"), "warning", "competition_d", "#3263"),
    (edit("phases", 2, "start_date", to=NOON), "warning", "phases.2.start", "midn"),
    (
        edit("phases", 2, "start_date", to="2026-01-02 00:00:00"),
        *("error", "phases.2.start_date", "starts no later than"),
    ),
    (edit("end_date", to="then"), "error", "end_date", "guessed at"),
    (drop("leaderboard"), "error", "leaderboard", "Could not find leaderboard in"),
    (drop("leaderboard", "leaderboards"), "error", "leaderboard", "declared on"),
    (drop("leaderboard", "columns"), "error", "leaderboard", "columns declared"),
    (edit("phases", 1, "auto_migration", to=True), "warning", "phases.1.auto", "migrates nothing"),
    (drop(*RESULTS[:1], "leaderboards", "results", "label"), "error", "results", "log: 'label'"),
    (drop(*RESULTS[:1], "leaderboards", "results", "rank"), "error", "results", "log: 'rank'"),
    (edit(*RESULTS, "numeric_format", to="%.4f"), "warning", "1000.numeric_format", "whole"),
    (edit(*RESULTS, "leaderboard", to="x"), "error", "1000.leaderboard", "not one of the"),
    (
        edit(*RESULTS, "leaderboard", to={"label": "x"}),
        "error",
        "1000.leaderboard",
        "not one of the",
    ),
    (edit(*RESULTS, "label", to="x" * 51), "error", "1000.label", "keeps 50"),
    (edit(*RESULTS, "sort", to="down"), "error", "1000.sort", '"down" is not'),
    (edit(*RESULTS, "column_group", to={"label": "x"}), "error", "1000.column_group", "not one of"),
    (lambda files: {"a.yaml": b"", **files}, "error", "competition.yaml", "a.yaml"),
    (
        both(program(metadata=None), program(**{"metadata.yaml": "command: python3 x\n"})),
        *("error", "phases.1, sc", "There is no metadata at its root"),
    ),
]


@pytest.mark.parametrize(("change", "severity", "where", "words"), VERSION_15)
def test_a_bundle_of_version_15_broken_in_one_way(good, tmp_path, change, severity, where, words):
    faults = check_bundle(write_files(tmp_path / "bundle.zip", change(good["codalab"])), "codalab")
    assert find(faults, severity, where, words), "\n".join(map(str, faults))


def test_codabench_ignores_much_of_this_form(good, tmp_path):
    path = write_files(tmp_path / "bundle.zip", good["codalab"])
    (fault,) = check_bundle(path, "codabench")
    assert (fault.severity, fault.where) == ("warning", "version")
    assert check_bundle(path) == []
