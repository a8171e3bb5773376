"""The linter on Codabench's form: a good bundle is broken in each way, and each fault is found."""

import struct
import zlib

import pytest
from helpers_breaks import (
    COLUMN,
    EAST,
    FINAL_TRUTH,
    NOON,
    both,
    command,
    drop,
    edit,
    find,
    in_top_folder,
    one_phase,
    program,
    program_in_top_folder,
    put,
    second_board,
    without,
    yaml_as,
)
from helpers_bundle import write_files, zipped
from helpers_cases import one_in

from mico_competition.hosting.codabench.check import check_bundle, has_errors


def png(width, height):
    """How a PNG of that size begins."""
    head = b"IHDR" + struct.pack(">II", width, height) + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def computed(computation, indexes):
    """Compute column 4 of the leaderboard from those at `indexes`."""
    return both(
        edit(*COLUMN, 4, "computation", to=computation),
        edit(*COLUMN, 4, "computation_indexes", to=indexes),
    )


# How to break it, what is then wrong (error or warning), where, and words of the sentence.
VERSION_2 = [
    (edit("version", to=2.0), "error", "version", "A suitable version could not be found"),
    (edit("version", to="1.8"), "error", "version", "A suitable version could not be found"),
    (drop("version"), "error", "html", "HTML pages could not be found in the yaml file"),
    (in_top_folder, "error", "competition.yaml", "is missing from zip, check your folder"),
    (yaml_as("version: 2\n  title: [x\n"), "error", "competition.yaml", "Here is the error log"),
    (yaml_as("- version: 2\n"), "error", "competition.yaml", "'list' object has no attribute"),
    (yaml_as("[" * 500), "error", "competition.yaml", "Here is the error log"),
    (yaml_as("title: Größe".encode("latin-1")), "error", "competition.yaml", "codec can't decode"),
    (drop("title"), "error", "title", "This field is required"),
    (edit("title", to=None), "error", "title", "may not be null"),
    (edit("title", to="x" * 257), "error", "title", "no more than 256 characters., and"[:28]),
    (edit("colour", to="red"), "warning", "colour", "ignores a key that it does not know"),
    (drop("docker_image"), "warning", "docker_image", "codalab-legacy:py37"),
    (edit("docker_image", to=""), "error", "docker_image", "may not be blank"),
    (edit("docker_image", to="x" * 129), "error", "docker_image", "no more than 128 characters"),
    (drop("image"), "error", "image", "An image for this competition could not be found"),
    (edit("image", to="no.png"), "error", "image", "Unable to find image: no.png"),
    (put("logo.png", b"<svg xmlns=''/>"), "error", "image", "logo: Please upload a valid image."),
    (
        put("logo.png", png(400_000, 400_000)),
        "error",
        "image",
        "logo: Please upload a valid image.",
    ),
    (drop("terms"), "error", "terms", "A file containing the terms of this competition has not"),
    (edit("terms", to="t.md"), "error", "terms", "Unable to find page: t.md"),
    (drop("pages"), "error", "pages", "'NoneType' object is not iterable"),
    (edit("pages", 0, to="overview"), "error", "pages[0]", "is not a mapping"),
    (drop("pages", 0, "file"), "error", "pages[0]", "Here is the error log: 'file'"),
    (without("pages/data.md"), "error", "pages[2].file", "Unable to find page: pages/data.md"),
    (put("pages/data.md", b""), "error", "pages[2].file", "is empty, it must contain content."),
    (put("pages/data.md", b" \n"), "warning", "pages[2].file", "white space"),
    (put("pages/data.md", b"\xff"), "error", "pages[2].file", "codec can't decode byte 0xff"),
    (drop("tasks"), "error", "tasks", "No tasks listed in this competition"),
    (edit("tasks", to=[]), "error", "tasks", "accepts this in silence"),
    (drop("tasks", 1, "index"), "error", "tasks[1]", "ERROR: No index for task: MICO"),
    (
        edit("tasks", 1, "index", to=0),
        "error",
        "tasks[1].index",
        "task indexes. Index: 0",
    ),
    (drop("tasks", 0, "scoring_program"), "error", "tasks[0]", "does not have a scoring program"),
    (drop("tasks", 0, "name"), "error", "tasks[0].name", "This field is required"),
    (drop("tasks", 0, "reference_data"), "warning", "tasks[0]", "gets no truth"),
    (edit("tasks", 0, "reference_data", to="x.zip"), "error", "tasks[0].", 'find dataset: "x.zip"'),
    (put("reference_data_dev.zip", b"PK"), "error", "tasks[0].ref", "every submission then fails"),
    (put("reference_data_dev.zip", zipped({})), "warning", "tasks[0].ref", "an empty zip"),
    (put("reference_data_final.zip", FINAL_TRUTH), "warning", "tasks[1].ref", "solutions of phase"),
    (
        edit("tasks", 0, "scoring_program", to="pages"),
        "warning",
        "tasks[0].sc",
        "zips the folder",
    ),
    (program_in_top_folder, "error", "tasks[0], sc", "Could not find scores file, did the scoring"),
    (program(metadata=None), "error", "tasks[0], sc", "There is no metadata at its root"),
    (program(metadata="description: x\n"), "error", "tasks[0], sc", "It has no `command`"),
    (command("[python3, a]"), "error", "tasks[0], sc", "Codabench cannot run a list"),
    (command("python3 $program/score.py && ls"), "error", "tasks[0], sc", "&& becomes an argument"),
    (command("python3 $program/score.py > x"), "error", "tasks[0], sc", "> becomes an argument"),
    (command("./run.sh $input"), "error", "tasks[0], sc", "Permission denied"),
    (
        command("python3 $program/go.py"),
        "error",
        "tasks[0], sc",
        "$program/go.py, which is not",
    ),
    (command("python3 'x"), "error", "tasks[0], sc", "cannot be split into words"),
    (drop("phases"), "error", "phases", "Unable to find any phases"),
    (edit("phases", to=[]), "error", "phases", "must have at least one phase"),
    (edit("phases", 1, "index", to="b"), "error", "phases", "not supported between instances"),
    (drop("phases", 0, "name"), "error", "phases[0].name", "This field is required"),
    (edit("phases", 0, "name", to="x" * 257), "error", "phases[0].name", "no more than 256"),
    (drop("phases", 0, "start"), "error", "phases[0]", "Without a `start`"),
    (
        drop("phases", 0, "end"),
        "error",
        "phases[0].end",
        "Development must have an end",
    ),
    (edit("phases", 1, "start", to=NOON), "warning", "phases[1].start", "for midnight: 2027-03-01"),
    (edit("phases", 1, "start", to=EAST), "warning", "phases[1].start", "drops the offset +02:00"),
    (edit("phases", 1, "start", to="soon"), "error", "phases[1].start", "'soon' is guessed at"),
    (
        edit("phases", 1, "start", to="2027-13-01 00:00"),
        "error",
        "phases[1].start",
        "month must",
    ),
    (
        edit("phases", 1, "start", to="2027-02-01 00:00:00"),
        *("error", "phases[1].start", "Phases must be sequential. Phase: Finalstarts before"),
    ),
    (
        edit("phases", 0, "end", to="2027-03-01 12:00:00"),
        *("error", "phases[1].start", "Phases dates conflict. Phase: Final should start after"),
    ),
    (
        edit("phases", 1, "end", to="2027-02-28 00:00:00"),
        *("warning", "phases[1].end", "which ends before it starts"),
    ),
    (
        edit("phases", 0, "auto_migrate_to_this_phase", to=True),
        *("error", "phases[0].auto", "You cannot auto migrate to the first phase of a competition"),
    ),
    (one_phase, "error", "phases[0].auto", "cannot auto migrate in a competition with one phase"),
    (drop("phases", 0, "tasks"), "error", "phases[0]", "Phases must contain at least one task"),
    (edit("phases", 0, "tasks", to=0), "error", "phases[0].tasks", "'int' object is not iterable"),
    (edit("phases", 0, "tasks", to=[]), "error", "phases[0].tasks", "nothing is ever scored"),
    (edit("phases", 0, "tasks", to=[7]), "error", "phases[0].tasks", "Here is the error log: 7"),
    (edit("phases", 1, "tasks", to=[0, 1]), "warning", "phases[1].tasks", "#2247"),
    (edit("phases", 0, "max_submissions", to=0), "warning", "phases[0].max", "0 for no limit"),
    (edit("phases", 0, "max_submissions", to="few"), "error", "phases[0].max", "valid integer"),
    (
        edit("phases", 0, "max_submissions_per_person", to=5),
        *("warning", "phases[0].max_submissions_per_person", "the key has another name"),
    ),
    (edit("phases", 0, "execution_time_limit", to=1200), "warning", "phases[0].exe", "after 600"),
    (edit("phases", 0, "execution_time_limit", to="x"), "error", "phases[0].exe", "valid integer"),
    (edit("phases", 0, "public_data", to="x.zip"), "error", "phases[0].public", "Cannot find data"),
    (
        both(edit("phases", 0, "starting_kit", to="k.zip"), put("k.zip", FINAL_TRUTH)),
        *("error", "phases[0].starting_kit", "given to participants and holds solutions"),
    ),
    (drop("leaderboards"), "error", "leaderboards", "Could not find leaderboards in the"),
    (edit("leaderboards", to=[]), "error", "leaderboards", "list index out of range"),
    (second_board, "warning", "leaderboards[1]", "the columns of this one are lost"),
    (
        drop("leaderboards", 0, "key"),
        "error",
        "leaderboards[0].key",
        "key: This field is req",
    ),
    (edit("leaderboards", 0, "key", to="k" * 37), "error", "leaderboards[0].key", "more than 36"),
    (edit("leaderboards", 0, "title", to="k" * 65), "error", "leaderboards[0].ti", "more than 64"),
    (
        edit("leaderboards", 0, "submission_rule", to="Force Last"),
        *("error", "leaderboards[0].sub", 'submission_rule: "Force Last" is not a valid choice.'),
    ),
    (drop("leaderboards", 0, "submission_rule"), "warning", "leaderboards[0].sub", "not migrate"),
    (edit("leaderboards", 0, "submission_rule", to="Add"), "warning", "leaderboards[0].sub", "not"),
    (edit("leaderboards", 0, "primary_index", to=19), "error", "leaderboards[0].pr", "error 500"),
    (drop(*COLUMN), "error", "leaderboards[0].columns", "require at least 1 column"),
    (
        drop(*COLUMN, 3, "title"),
        "error",
        "leaderboards[0].columns[3].title",
        "columns: title: T",
    ),
    (
        edit(*COLUMN, 0, "title", to="Average TPR@0.1FPR across the three scenarios"),
        *("error", "columns[0].title", "columns: title: Ensure this field has no more than 36"),
    ),
    (edit(*COLUMN, 0, "key", to="k" * 37), "error", "columns[0].key", "columns: key: Ensure this"),
    (drop(*COLUMN, 4, "index"), "error", "columns[4].index", "This field is required"),
    (edit(*COLUMN, 4, "index", to=3), "error", "[0].columns", "Columns must have unique indexes!"),
    (edit(*COLUMN, 5, "key", to="scenario1_AUC"), "error", "[0].columns", "have unique keys!"),
    (
        edit(*COLUMN, 4, "sorting", to="down"),
        "error",
        "columns[4].sorting",
        '"down" is not',
    ),
    (edit(*COLUMN, 4, "precision", to="%.4f"), "error", "columns[4].precision", "valid integer"),
    (computed("median", [7]), "error", "columns[4].computation", '"median" is not a valid'),
    (computed("avg", None), "error", "[4].computation_indexes", "must have at least 1 column"),
    (computed(None, [1]), "error", "[4].computation_indexes", "without a computation function"),
    (computed("avg", "1,2"), "error", "[4].computation_indexes", "'1,2' is not a list"),
    (computed("avg", [4]), "error", "[4].computation_indexes", "index 4 referencing itself"),
    (computed("avg", [99]), "error", "[4].computation_indexes", "index 99 does not exist"),
]


@pytest.mark.parametrize(("change", "severity", "where", "words"), one_in(3, VERSION_2))
def test_a_bundle_of_version_2_broken_in_one_way(good, tmp_path, change, severity, where, words):
    path = write_files(tmp_path / "bundle.zip", change(good["codabench"]))
    faults = check_bundle(path)
    assert find(faults, severity, where, words), "\n".join(map(str, faults))
    assert all(fault.fix for fault in faults)
    assert has_errors(faults) or severity == "warning"
    # What was broken is named, and little else is dragged in.
    assert len(faults) <= 4 or where == "html"


def test_there_are_enough_ways():
    assert len(VERSION_2) >= 80
