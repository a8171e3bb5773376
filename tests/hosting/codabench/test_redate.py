"""Dates that move after the upload: new dates in the bundle and its pages, and nothing else."""

import zipfile
from datetime import datetime

import pytest
from helpers_breaks import one_phase
from helpers_bundle import DATES, read_zip, spec_of, write_files, write_trained, zipped

from mico_competition.cli import main
from mico_competition.hosting.codabench.bundle import write_bundle
from mico_competition.hosting.codabench.check import check_bundle
from mico_competition.hosting.codabench.facts import Schedule
from mico_competition.hosting.codabench.options import Options
from mico_competition.hosting.codabench.redate import instructions, redate

NOW = datetime(2027, 2, 1)
LATER = {"final_start": "2027-03-08 09:00:00", "end": "2027-03-22 18:30:00"}
MOVED = ("2027-01-01 00:00:00", *LATER.values())


def moved(path, to, now=NOW, **dates):
    return redate(path, to, dates, now=now)


@pytest.mark.parametrize("platform", ["codabench", "codalab"])
def test_it_is_the_bundle_that_the_new_dates_would_have_made(tmp_path, platform):
    root = write_trained(tmp_path / "trained", "digits")
    for name, dates in (("old.zip", DATES), ("anew.zip", MOVED)):
        write_bundle(root, "digits", tmp_path / name, Schedule.of(*dates), Options(platform))
    redated = moved(tmp_path / "old.zip", tmp_path / "new.zip", **LATER)
    assert redated.faults == check_bundle(tmp_path / "new.zip") == [] and redated.left == []
    assert (tmp_path / "new.zip").read_bytes() == (tmp_path / "anew.zip").read_bytes()
    assert (tmp_path / "new.zip").stat().st_mode & 0o077 == 0  # solutions are in it
    old, new = read_zip(tmp_path / "old.zip"), read_zip(tmp_path / "new.zip")
    kind = "md" if platform == "codabench" else "html"
    assert {name for name in old if old[name] != new[name]} == {
        *("competition.yaml", "reference_data_final.zip"),  # the placeholder's notice
        *(f"pages/{page}.{kind}" for page in ("overview", "terms")),
    }
    back = dict(zip(("final_start", "end"), DATES[1:], strict=True))
    moved(tmp_path / "new.zip", tmp_path / "back.zip", **back)
    assert (tmp_path / "back.zip").read_bytes() == (tmp_path / "old.zip").read_bytes()


def test_what_organisers_wrote_by_hand_stays(tmp_path, bundles):
    """Comments, quotes, order and packing of their zip, pages of their own, windows' line ends."""
    files = read_zip(bundles("digits"))
    text = files["competition.yaml"].decode().replace("'", '"')
    files["competition.yaml"] = f"# by hand, until {DATES[1]}\n{text}".encode()
    files["pages/terms.md"] = (
        b"\xef\xbb\xbfUntil 2027-03-15 18:30:00, that is March 15th.\r\n2027-01-01 00:00:00\r\n"
        b"Not 15 Marchers, nor 2027-03-15 17:00:00.\r\n"
    )
    path, to = tmp_path / "hand.zip", tmp_path / "new.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files, reverse=True):
            archive.writestr(name, files[name])
    redated = moved(path, to, **LATER)
    new = read_zip(to)
    assert list(new) == sorted(files, reverse=True)
    assert new["competition.yaml"].startswith(b"# by hand, until 2027-03-08 09:00:00\n")
    assert new["pages/terms.md"] == files["pages/terms.md"].replace(
        b"2027-03-15 18:30:00", b"2027-03-22 18:30:00"
    )
    assert redated.left == [
        "pages/terms.md also says 'March 15th': correct it by hand if that is the old date."
    ]
    assert set(redated.pages) == {"pages/overview.md", "pages/terms.md"}
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(to) as after:
        for old, copied in zip(before.infolist(), after.infolist(), strict=True):
            kept = (old.date_time, old.external_attr, old.compress_type)
            assert kept == (copied.date_time, copied.external_attr, copied.compress_type)


def test_solutions_in_the_placeholders_place_are_not_opened(tmp_path, bundles):
    files = read_zip(bundles("digits"))
    files["reference_data_final.zip"] = zipped({"notice.txt": "2027-03-01 12:00:00", "x": "1"})
    path = write_files(tmp_path / "odd.zip", files)
    with pytest.raises(ValueError, match="does not pass its check"):
        moved(path, tmp_path / "new.zip", **LATER)
    assert not (tmp_path / "new.zip").exists()


@pytest.mark.parametrize(
    ("dates", "now", "words"),
    [
        ({}, NOW, "No date moves: give --dev_start"),
        ({"end": DATES[2]}, NOW, "No date moves"),
        ({"end": "2027-03-01"}, NOW, "Expected end as"),
        ({"end": DATES[1]}, NOW, "to be after final_start=2027-03-01 12:00:00"),
        ({"final_start": DATES[0]}, NOW, "more than a minute after"),
        ({"final_start": "2027-01-20 00:00:00"}, NOW, "final_start=2027-01-20 .* in the future"),
        (LATER, datetime(2027, 3, 2), "Final began at 2027-03-01 12:00:00 UTC.*only --end"),
        ({"dev_start": "2027-01-02 00:00:00"}, datetime(2027, 3, 2), "Final began"),
        ({"end": "2027-03-02 00:00:00"}, datetime(2027, 3, 3), "end=.* in the future"),
    ],
)
def test_dates_that_cannot_be(tmp_path, bundles, dates, now, words):
    with pytest.raises(ValueError, match=words):
        moved(bundles("digits"), tmp_path / "new.zip", now=now, **dates)
    assert list(tmp_path.iterdir()) == []


def test_final_may_be_prolonged_while_it_runs(tmp_path, bundles):
    redated = moved(bundles("digits"), tmp_path / "new.zip", datetime(2027, 3, 2), end=LATER["end"])
    (final,) = [line for line in instructions(redated) if "Phases" in line]
    assert final == "  Phases > Final: end 2027-03-22 18:30 (UTC)"


def test_other_bundles_are_refused(tmp_path, bundles):
    files = one_phase(read_zip(bundles("digits")))
    with pytest.raises(ValueError, match="has 1 phase, and --redate moves the dates of Dev"):
        moved(write_files(tmp_path / "one.zip", files), tmp_path / "new.zip", **LATER)
    files = read_zip(bundles("digits"))
    files["competition.yaml"] = files["competition.yaml"].replace(b"'2027-03-01 12:00:00'", b"soon")
    with pytest.raises(ValueError, match=r"competition.yaml in .*: Expected final_start as"):
        moved(write_files(tmp_path / "odd.zip", files), tmp_path / "new.zip", **LATER)


def test_the_command_says_what_to_paste_where(tmp_path, bundles, capsys):
    out, pages = tmp_path / "new.zip", tmp_path / "pages"
    later = ["--final_start", "2099-03-08 09:00:00", "--end", "2099-03-22 18:30:00"]
    command = ["bundle", "--redate", str(bundles("digits")), *later]
    assert main([*command, "--out", str(out), "--pages", str(pages)]) == 0
    said = capsys.readouterr().out
    assert "Development  2027-01-01 00:00:00 to 2099-03-08 08:59:00" in said
    for line in (
        "Phases > Development: end 2099-03-08 08:59 (UTC)",
        "Phases > Final: start 2099-03-08 09:00 (UTC)",
        "Phases > Final: end 2099-03-22 18:30 (UTC)",
        f"Pages > Overview: paste {pages}/overview.md",
        f"Participation > Terms: paste {pages}/terms.md",
    ):
        assert f"  {line}\n" in said
    assert "Development: start" not in said
    assert {path.name for path in pages.iterdir()} == {"overview.md", "terms.md"}
    assert (pages / "terms.md").read_bytes() == read_zip(out)["pages/terms.md"]
    assert spec_of(read_zip(out))["phases"][1]["end"] == "2099-03-22 18:30:00"
    assert main([*command, "--out", str(out)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--out", str(out), "--replace"]) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--redate", "b.zip"], "Give --out"),
        (["--redate", "b.zip", "--out", "c.zip", "--repo", "A/B"], "leave out --repo"),
        (["trained", "--redate", "b.zip", "--out", "c.zip"], "leave out the folder of models"),
        (["--pages", "p", "--out", "c.zip"], "--pages is for --redate FILE"),
    ],
)
def test_flags_that_do_not_go_together(flags, words, capsys):
    assert main(["bundle", *flags]) == 2
    assert words in capsys.readouterr().err
