"""The maker of synthetic tables: of Purchase-100's form, repeatable, and plain about what it is."""

import pytest

from mico_competition.data.datasets import load_purchase100
from mico_competition.data.purchase100_files import TABLE, parse_table
from mico_competition.data.synthetic import main, make_synthetic_purchase


def test_synthetic_tables_are_of_the_form_and_repeatable(tmp_path):
    path = make_synthetic_purchase(tmp_path / TABLE, 2000, seed=3)
    again = make_synthetic_purchase(tmp_path / "again", 2000, seed=3)
    other = make_synthetic_purchase(tmp_path / "other", 300, seed=4, num_classes=5)
    assert path.read_bytes() == again.read_bytes()
    dataset = load_purchase100(tmp_path)
    assert len(dataset) == 2000
    assert 0.14 < dataset.inputs(range(2000)).mean() < 0.20
    assert len(dataset.labels.unique()) > 90
    bits, labels = parse_table(other)
    assert bits.shape == (300, 75)
    assert set(labels.tolist()) == {0, 1, 2, 3, 4}


def test_synthetic_tables_refuse_what_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="num_records=10 >= num_classes=100"):
        make_synthetic_purchase(tmp_path / TABLE, 10)
    with pytest.raises(ValueError, match="num_classes=101"):
        make_synthetic_purchase(tmp_path / TABLE, 1000, num_classes=101)


def test_the_command_says_that_the_data_are_synthetic(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["synthetic", str(tmp_path), "--records", "150"])
    main()
    assert "SYNTHETIC" in capsys.readouterr().out
    assert len(load_purchase100(tmp_path)) == 150
