"""Runs of the scoring program, and what each must leave behind."""

import html
import json
import re

import numpy as np
from helpers_scoring import OUTPUTS, SCENARIOS
from mico_competition.scoring import program, score

KEYS = ["AUC", "MIA", "accuracy"] + [f"TPR_FPR_{k}" for k in (10, 100, 500, 1000, 1500, 2000)]


def run_here(competition, capsys):
    """As `Competition.run`, in this process, which is faster: exit code, stdout, stderr."""
    code = program.main([str(competition.inputs), str(competition.outputs)])
    out, err = capsys.readouterr()
    return code, out, err


def faults_of(competition, capsys):
    """The faults of a run that must fail the right way."""
    code, out, err = run_here(competition, capsys)
    assert code == 1 and out == "" and competition.written() == [program.PAGE]
    assert "Traceback" not in err and "array(" not in err
    head, *faults = err.splitlines()
    assert head.startswith("Not scored:")
    check_page(competition, err)
    return faults


def check_page(competition, err):
    """The page of a refusal says what stderr says, and no more."""
    page = (competition.outputs / program.PAGE).read_text(encoding="utf-8")
    body = page.partition("<main>")[2].partition("</main>")[0]
    said = re.findall(r"<(?:p|li)>(.*?)</(?:p|li)>", body, flags=re.DOTALL)
    head, *faults = err.splitlines()
    expected = [head.replace("Not scored: ", "", 1), *(f.removeprefix("- ") for f in faults)]
    assert [html.unescape(line) for line in said] == expected
    assert "<script" not in body


def read_scores(folder):
    lines = (folder / "scores.txt").read_text().splitlines()
    return dict(line.split(": ") for line in lines)


def check_outputs(competition):
    """OUT holds the right numbers, to the last digit, in a form that YAML reads as numbers."""
    texts = read_scores(competition.outputs)
    expected = {}
    for i, scenario in enumerate(SCENARIOS, start=1):
        result = score(*competition.pooled[scenario])
        expected.update({f"scenario{i}_{key}": result[key] for key in KEYS})
    tenth = [expected[f"scenario{i}_TPR_FPR_1000"] for i in (1, 2, 3)]
    expected["average_TPR_FPR_1000"] = np.mean(tenth)
    assert list(texts) == list(expected)
    assert all(re.fullmatch(r"[0-9]+\.[0-9]+", text) for text in texts.values())
    assert {key: float(text) for key, text in texts.items()} == expected
    assert json.loads((competition.outputs / "scores.json").read_text()) == expected
    assert competition.written() == OUTPUTS
