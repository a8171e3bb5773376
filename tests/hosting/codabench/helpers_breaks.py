"""Ways to break a bundle: each is a function from its files to other files."""

import copy
import datetime

from helpers_bundle import read_zip, spec_of, with_spec, zipped

FINAL_TRUTH = zipped({"digits/digits_hi/final/model_150/solution.csv": "0,1"})
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
COLUMN = ("leaderboards", 0, "columns")
NOON = datetime.datetime(2027, 3, 1, 12)
EAST = "2027-03-01 14:00:00+02:00"


def edit(*steps, to):
    """Set a value in competition.yaml, at a path of keys and indexes."""

    def change(files):
        spec = copy.deepcopy(spec_of(files))
        place = spec
        for step in steps[:-1]:
            place = place[step]
        place[steps[-1]] = to
        return with_spec(files, spec)

    return change


def drop(*steps):
    """Take a key or an entry out of competition.yaml."""

    def change(files):
        spec = copy.deepcopy(spec_of(files))
        place = spec
        for step in steps[:-1]:
            place = place[step]
        del place[steps[-1]]
        return with_spec(files, spec)

    return change


def both(*changes):
    def change(files):
        for one in changes:
            files = one(files)
        return files

    return change


def put(name, content):
    return lambda files: {**files, name: content}


def without(name):
    return lambda files: {k: v for k, v in files.items() if k != name}


def program(**changes):
    """Change files of the scoring program; None takes one out."""

    def change(files):
        inner = read_zip(files["scoring_program.zip"])
        for name, content in changes.items():
            inner.pop(name, None)
            if content is not None:
                inner[name] = content
        return {**files, "scoring_program.zip": zipped(inner)}

    return change


def command(text):
    return program(metadata=f"command: {text}\n")


def yaml_as(text):
    return put("competition.yaml", text if isinstance(text, bytes) else text.encode())


def in_top_folder(files):
    return {f"bundle/{name}": content for name, content in files.items()}


def program_in_top_folder(files):
    inner = read_zip(files["scoring_program.zip"])
    moved = {f"scoring/{name}": content for name, content in inner.items()}
    return {**files, "scoring_program.zip": zipped(moved)}


def second_board(files):
    spec = spec_of(files)
    spec["leaderboards"].append({"title": "More", "key": "more", "columns": []})
    return with_spec(files, spec)


def one_phase(files):
    spec = spec_of(files)
    spec["phases"] = spec["phases"][1:]
    return with_spec(files, spec)


def find(faults, severity, where, words):
    return [
        fault
        for fault in faults
        if fault.severity == severity and where in fault.where and words in fault.what
    ]
