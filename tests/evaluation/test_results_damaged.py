"""`Results.load` of files that `save` never writes: each is refused with its name and the field."""

import json

import numpy as np
import pytest

from mico_competition.evaluation.attack_result import AttackResult
from mico_competition.evaluation.results import Results

ATTACK = "attacks.0"


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """The content of a file without scores, and of one with them."""
    folder = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    truth = rng.random((3, 40)) < 0.5
    noise = rng.normal(size=truth.shape)
    weak, strong = (AttackResult.of(n, truth, noise + k * truth) for n, k in (("a", 1), ("b", 2)))
    results = Results([weak, strong])
    results.save(folder / "short.json")
    results.save(folder / "long.json", scores=True)
    return [json.loads((folder / f"{name}.json").read_text()) for name in ("short", "long")]


def changed(content, field, value):
    """A copy of the content with another value of a field, such as attacks.0.cost."""
    copy = json.loads(json.dumps(content))
    *parents, last = [int(p) if p.isdigit() else p for p in field.split(".")]
    inside = copy
    for parent in parents:
        inside = inside[parent]
    inside[last] = value
    return copy


WRONG = {
    "subject": [[], {}, None, 3],
    "phase": [["train"]],
    "against": [3, "c"],
    "about": [[], None],
    "about.date": [3],
    "about.versions": ["numpy 2", {"numpy": 2}],
    "attacks": [[], {}, [3]],
    f"{ATTACK}.name": [3, None, ""],
    f"{ATTACK}.white_box": [1],
    f"{ATTACK}.seconds": ["x", float("nan"), -1, True],
    f"{ATTACK}.cost": [{}, []],
    f"{ATTACK}.cost.cpu_seconds": ["1", 10**400],
    f"{ATTACK}.cost.models": [0.5],
    f"{ATTACK}.resamples": [10**12, 0, 1.5],
    f"{ATTACK}.seed": [-1, "a"],
    f"{ATTACK}.models": ["3", 0],
    f"{ATTACK}.members": [-5],
    f"{ATTACK}.metrics": [{}, None],
    f"{ATTACK}.metrics.AUC.value": [1e300, float("inf"), "0.5"],
    "attacks.1.gain.AUC.value": [2],
    f"{ATTACK}.curve.fpr": [[], [0.5], "0"],
    f"{ATTACK}.curve.low": [[0.5]],
}
WRONG_POINTS = {
    f"{ATTACK}.truth": [[], [[0, 1]], [[0] * 39 + [2]] * 3],
    f"{ATTACK}.scores": [[["a"] * 40] * 3, [[float("nan")] * 40] * 3, [[1.0]], 3],
    f"{ATTACK}.known": [[[0] * 40] * 3, "all"],
    f"{ATTACK}.resamples": [10**12],
}
CASES = [
    pytest.param(place, field, value, id=f"{'scores-' * place}{field}-{number}")
    for place, table in enumerate((WRONG, WRONG_POINTS))
    for field, values in table.items()
    for number, value in enumerate(values)
]


@pytest.mark.parametrize(("place", "field", "value"), CASES)
def test_a_wrong_field_is_named(tmp_path, contents, place, field, value):
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(changed(contents[place], field, value)))
    with pytest.raises(ValueError, match=r"damaged\.json") as caught:
        Results.load(path)
    assert value == "c" or field.split(".")[-1] in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_unchanged_files_load(tmp_path, contents):
    for content in contents:
        (tmp_path / "good.json").write_text(json.dumps(content))
        assert list(Results.load(tmp_path / "good.json")) == ["a", "b"]


def test_what_is_no_file_of_results_is_refused(tmp_path, contents):
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="deep.json .* has another form"):
        Results.load(tmp_path / "deep.json")
    with pytest.raises(ValueError, match="is a folder"):
        Results.load(tmp_path)
    (tmp_path / "good.json").write_text(json.dumps(contents[0]))
    with pytest.raises(ValueError, match="name of a file, got NoneType"):
        Results.load(tmp_path / "good.json").save(None)
