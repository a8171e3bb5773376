"""The linter's own rules: sound truth, and nothing that lets more of it out than it should."""

import json

import pytest
from helpers_breaks import both, drop, edit, find, program, put
from helpers_bundle import (
    SCHEDULE,
    read_zip,
    spec_of,
    with_values,
    write_files,
    write_trained,
    zipped,
)

from mico_competition.cli import main
from mico_competition.hosting.codabench.bundle import write_bundle, write_final_reference
from mico_competition.hosting.codabench.check import check_bundle, has_errors
from mico_competition.hosting.codabench.files import Archive
from mico_competition.hosting.codabench.options import Limits, Options
from mico_competition.hosting.codabench.rules.leaks import leaks_rule
from mico_competition.hosting.codabench.rules.scored import scored_phases
from mico_competition.hosting.codabench.rules.truth import truth_rule

DEV = "digits/{}/dev/model_{}/solution.csv".format
LABELS = {"digits_inf": "No DP", "digits_hi": "High ε = 10", "digits_lo": "Low ε = 4"}


@pytest.fixture(scope="module")
def made(good, bundles, tmp_path_factory):
    """The files of a good bundle in either form, and the truth of Final."""
    final = tmp_path_factory.mktemp("final") / "final.zip"
    write_final_reference(bundles("digits").parent / "trained", "digits", final)
    return {**good, "final": read_zip(final)}


def settings(text):
    return program(**{"settings.json": text})


def settings_of(**values):
    return settings(json.dumps({"scenarios": LABELS, **values}))


def truth(change, phase="dev"):
    """Change a mapping of the truth's files in place."""

    def changed(files):
        name = f"reference_data_{phase}.zip"
        inner = read_zip(files[name])
        change(inner)
        return {**files, name: zipped(inner)}

    return changed


def labels_as(text, place):
    return truth(lambda inner: inner.update({place: text}))


def lost(*places):
    return truth(lambda inner: [inner.pop(place) for place in places])


def final_is_dev(files):
    return {**files, "reference_data_final.zip": files["reference_data_dev.zip"]}


def final_is_dev_renamed(files):
    """The same labels beneath names of Final's models."""
    inner = read_zip(files["reference_data_dev.zip"])
    names = {
        n: n.replace("dev/model_100", "final/model_150").replace("dev/model_101", "final/model_151")
        for n in inner
    }
    return {**files, "reference_data_final.zip": zipped({names[n]: inner[n] for n in inner})}


def dev_closed(files):
    return {**files, "reference_data_dev.zip": files["reference_data_final.zip"]}


PHASE = ("phases", 0)
WAYS = [
    (settings(None), "error", "settings.json", "is missing"),
    (settings("{"), "error", "settings.json", "does not take it"),
    (settings("[" * 9999), "error", "settings.json", "does not take it"),
    (settings_of(steps={"Dev": 0.005}), "error", "settings.json", "Expected steps of dev and"),
    (settings_of(steps={"development": 0.005}), "error", "settings.json", "steps of dev and"),
    (settings_of(), "error", "settings.json", "Expected steps"),
    (settings('{"steps": {}}'), "warning", "settings.json", "Scores of dev leave exact"),
    (settings('{"steps": {}}'), "error", "bundled.py", "does not state the steps"),
    (settings_of(steps={"final": 0.005}), "warning", "settings.json", "Scores of dev leave exact"),
    (settings_of(steps={"dev": 1e-6}), "warning", "settings.json", "in steps of 1e-06"),
    (
        settings('{"steps": {"dev": 0.005}, "steps": {}}'),
        *("error", "settings.json", "each key once, got 'steps' twice"),
    ),
    (
        settings('{"steps": {"dev": 0.005, "dev": 0.000001}}'),
        *("error", "settings.json", "each key once, got 'dev' twice"),
    ),
    (
        settings(json.dumps({"scenarios": {"digits_hi": "x"}, "steps": {"dev": 0.005}})),
        *("error", "settings.json", "no scenario digits_inf"),
    ),
    (program(**{"bundled.py": None}), "error", "bundled.py", "does not state the steps"),
    (program(**{"bundled.py": "STEPS = {}\n"}), "error", "bundled.py", "does not state the steps"),
    (program(**{"coarse.py": "x = 1\n"}), "warning", "scoring_program", "instance coarse.py"),
    (edit(*PHASE, "max_submissions", to=100_000), "warning", ".max_submissions", "100 is usual"),
    (edit(*PHASE, "max_submissions", to=1000), "warning", ".max_submissions", "1,000, where 100"),
    (edit(*PHASE, "max_submissions", to="1000"), "warning", ".max_submissions", "1,000, where"),
    (edit(*PHASE, "max_submissions_per_day", to=5000), "warning", "per_day", "5 is usual"),
    (edit("phases", 1, "max_submissions", to=500), "warning", "phases[1].max_s", "1 is usual"),
    (edit("phases", 1, "hide_output", to=False), "warning", "phases[1].hide_output", "exact"),
    (edit("phases", 1, "hide_score_output", to=False), "warning", "hide_score_output", "exact"),
    (edit("phases", 1, "hide_output", to="false"), "warning", "phases[1].hide_output", "exact"),
    (drop("phases", 1, "hide_prediction_output"), "warning", "hide_prediction_output", "exact"),
    (edit("registration_auto_approve", to=True), "warning", "auto_approve", "each account"),
    (final_is_dev, "error", "phases[1], reference", "same truth as phases[0], that of dev"),
    (final_is_dev_renamed, "error", "phases[1], reference", "same truth as phases[0]"),
    (edit("tasks", 1, "reference_data", to="reference_data_dev.zip"), "error", "phases[1]", "same"),
    (edit("phases", 1, "tasks", to=[0]), "error", "phases[1], reference", "same truth"),
    (dev_closed, "error", "phases[0], reference", "every submission refused"),
    (labels_as(",".join(["1"] * 20), DEV("digits_hi", 100)), "error", "phases[0]", "are the same"),
    (labels_as(",".join(["0"] * 20), DEV("digits_lo", 101)), "error", "phases[0]", "are the same"),
    (labels_as("1,0,1,1", DEV("digits_lo", 101)), "error", "phases[0]", "number of labels"),
    (labels_as(",".join("1110" * 5), DEV("digits_hi", 100)), "warning", "[0]", "as many members"),
    (labels_as("0,2,1", DEV("digits_hi", 100)), "error", "phases[0]", "cannot be used"),
    (labels_as("", DEV("digits_hi", 100)), "error", "phases[0]", "cannot be used"),
    (lost(DEV("digits_lo", 101)), "error", "phases[0]", "model_101 is missing"),
    (
        lost(*(DEV(name, 101) for name in LABELS)),
        *("error", "phases[0], ref", "truth of 3 models; the description says 6"),
    ),
    (
        lost(*(DEV("digits_lo", i) for i in (100, 101))),
        *("error", "phases[0], ref", "truth of 4 models; the description says 6"),
    ),
    (
        truth(lambda inner: inner.update({DEV("digits_hi", 105): inner[DEV("digits_hi", 100)]})),
        *("error", "phases[0], ref", "model_102 and 2 more is missing"),
    ),
    (truth(lambda inner: inner.clear() or inner.update(a="b")), "error", "[0], ref", "no solution"),
    (put("pages/solution.csv", b"1,0"), "error", "pages/solution.csv", "holds labels"),
    (put("solution.csv", b"x"), "error", "solution.csv", "holds labels"),
    (put("pages/key.md", b"0, 1, 1, 0\n1, 0\n"), "error", "pages/key.md", "holds labels"),
    (put("notes.txt", b"seeds"), "warning", "notes.txt", "does not name it"),
    (
        program(**{"digits/digits_hi/final/model_150/solution.csv": "0,1"}),
        *("error", "scoring_program.zip", "is not reference data"),
    ),
]


@pytest.mark.parametrize(("change", "severity", "where", "words"), WAYS)
def test_what_lets_truth_out_or_cannot_be_scored_is_named(
    made, tmp_path, change, severity, where, words
):
    faults = check_bundle(write_files(tmp_path / "bundle.zip", change(made["codabench"])))
    assert find(faults, severity, where, words), "\n".join(map(str, faults))
    assert has_errors(faults) or severity == "warning"
    assert len(faults) <= 4 and all(fault.fix for fault in faults)


def test_the_truth_of_final_must_not_lie_in_a_zip_that_nobody_reads(made, tmp_path):
    files = {**made["codabench"], "later.zip": zipped(made["final"])}
    (fault,) = check_bundle(write_files(tmp_path / "bundle.zip", files))
    assert (fault.severity, fault.where) == ("error", "later.zip")


def test_the_same_in_codalabs_form(made, tmp_path):
    changes = [
        (edit("phases", 1, "max_submissions", to=9999), "warning", "phases.1.max_submissions"),
        (
            edit("phases", 2, "leaderboard_management_mode", to="default"),
            "warning",
            "phases.2.lead",
        ),
        (settings(None), "error", "settings.json"),
        (final_is_dev, "error", "phases.2, reference_data_final.zip"),
        (lost(DEV("digits_lo", 101)), "error", "phases.1, reference_data_dev.zip"),
        (put("html/solution.csv", b"1,0"), "error", "html/solution.csv"),
    ]
    for change, severity, where in changes:
        faults = check_bundle(write_files(tmp_path / "b.zip", change(made["codalab"])))
        assert find(faults, severity, where, ""), "\n".join(map(str, faults))
    assert check_bundle(write_files(tmp_path / "b.zip", made["codalab"])) == []


def test_no_label_is_in_a_fault(made, tmp_path):
    text = "1,0,1,1,0,1,0,0,1,1,1,0,1,0,1,1,1,1,0,1"
    change = both(labels_as(text, DEV("digits_hi", 100)), put("pages/x.txt", text.encode()))
    path = write_files(tmp_path / "b.zip", change(made["codabench"]))
    told = "\n".join(map(str, check_bundle(path)))
    assert told and "1,0" not in told and "13" not in told


def test_the_verb_says_so_and_a_bundle_that_was_asked_for_is_written(made, tmp_path, capsys):
    path = write_files(tmp_path / "b.zip", settings(None)(made["codabench"]))
    assert main(["bundle", "--check", str(path)]) == 1
    shown = capsys.readouterr()
    assert "error: scoring_program.zip, settings.json: It is missing" in shown.err
    root = write_trained(tmp_path / "trained", "digits")
    options = Options(step=0.0, limits=Limits(30, 1000))
    faults = write_bundle(root, "digits", tmp_path / "open.zip", SCHEDULE, options)
    assert len(faults) == 3 and not has_errors(faults)
    assert [str(f) for f in check_bundle(tmp_path / "open.zip")] == [str(f) for f in faults]


def test_no_value_makes_these_rules_stumble(made):
    """Each part of competition.yaml replaced by each kind of value: faults, never a traceback."""
    odd = [None, -1, "x", [], [None], {"a": 1}, [[0]]]
    for platform in ("codabench", "codalab"):
        files = {**made[platform], "reference_data_dev.zip": zipped({"x": "y"})}
        spec = {k: v for k, v in spec_of(files).items() if k in ("version", "tasks", "phases")}
        archive = Archive(zipped(files), "bundle")
        spec = json.loads(json.dumps(spec))
        count = 0
        for broken in with_values(spec, odd):
            phases = scored_phases(broken)
            list(truth_rule(phases, archive))
            list(leaks_rule(broken, phases, archive, platform))
            count += 1
        assert count > 150


@pytest.mark.parametrize(
    "names", [["solution.csv"], ["a/b/solution.csv"], ["../../x/solution.csv"], ["a/" * 300 + "x"]]
)
def test_odd_trees_of_truth_are_faults_and_no_traceback(made, tmp_path, names):
    change = truth(lambda inner: inner.clear() or inner.update(dict.fromkeys(names, "0,1")))
    faults = check_bundle(write_files(tmp_path / "b.zip", change(made["codabench"])))
    assert has_errors(faults), faults
