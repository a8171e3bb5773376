"""Bundles from anywhere: a few bytes do not stand for much."""

import io
import struct
import zipfile

import pytest
import yaml
from mico_competition.scoring.printable import is_plain

from mico_competition.hosting.codabench.bounded_yaml import load_yaml
from mico_competition.hosting.codabench.check import check_bundle
from mico_competition.hosting.codabench.files import Archive
from mico_competition.support.zips import write_zip

MERGES = ["a0: &a0 {k0: 1, l0: 1}"]
MANY = ", ".join(f"k{i}: 1" for i in range(9_000))
MERGES += [f"a{i}: &a{i} {{k{i}: 1, <<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n".join(MERGES), "over 20 merged mappings"),
        ("x: &x 1\ny: [" + "*x, " * 60_000 + "]", "over 50,000 values"),
        ("[" * 60 + "]" * 60, "over 50 deep"),
        ("[" * 100_000, "over 50 deep"),
        ("- " * 500 + "1", "over 50 deep"),
        ("\n".join(f"k{i}: 1" for i in range(30_000)), "over 50,000 values"),
    ],
)
def test_a_yaml_that_stands_for_much(text, words):
    with pytest.raises((ValueError, yaml.YAMLError), match=words):
        load_yaml(text)


@pytest.mark.slow
def test_keys_that_are_merged_many_times_stay_few():
    """PyYAML 6.0.3 keeps a key as often as it is merged, 6.0.4 once."""
    mapping = ", ".join(f"k{i}: 1" for i in range(9_000))
    text = f"a: &a {{{mapping}}}\nb: {{<<: [*a, *a, *a, *a, *a, *a]}}"
    try:
        found = load_yaml(text)
    except yaml.YAMLError as error:
        assert "merged keys" in str(error)
    else:
        assert found["a"] == found["b"]


def test_a_usual_yaml_passes():
    text = "a: &a {x: 1}\nb: {<<: *a, y: [1, 2.5, null, true]}\nc: *a"
    assert load_yaml(text) == yaml.safe_load(text)


def bundle(tmp_path, files):
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_page_or_program_that_unpacks_to_much_is_not_read(tmp_path, monkeypatch):
    inner = io.BytesIO()
    write_zip(inner, {"x": bytes(64 << 20)})
    path = bundle(tmp_path, {"page.md": b" " * (3 << 20), "inner.zip": inner.getvalue()})
    assert path.stat().st_size < 1 << 20
    del inner
    with Archive(path) as archive:
        monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("read"))
        with pytest.raises(ValueError, match="page.md in .* is larger than 2,097,152 bytes"):
            archive.read("page.md")
        with pytest.raises(ValueError, match="or than 200 times what it is packed in"):
            archive.inner("inner.zip")


def test_a_million_members_are_counted_not_listed(tmp_path, monkeypatch):
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, 1, *[0] * 6) + b"x"
    count = 1_000_000
    end = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entry) * count, 0
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(entry) * count, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)
    (tmp_path / "b.zip").write_bytes(entry * count + end + locator + last)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("listed"))
    (fault,) = check_bundle(tmp_path / "b.zip")
    assert "it holds 1,000,000 files, over 200,000" in fault.what


def test_a_name_of_many_folders(tmp_path):
    path = bundle(tmp_path, {"a/" * 30_000 + "b": b""})
    (fault,) = check_bundle(path)
    assert "holds a name of 60,001 letters" in fault.what


def test_what_a_bundle_holds_is_printed_in_one_line(tmp_path):
    text = 'version: 2\nimage: "a\\n::set-output x\\e[2J\\u202e"\n"k\\n::y": 1\nterms: "\\e]0;x"\n'
    faults = check_bundle(bundle(tmp_path, {"competition.yaml": text, "\x1b[2J\n::x": b""}))
    assert len(faults) > 3 and all(is_plain(str(fault)) for fault in faults)
    with pytest.raises(ValueError) as caught:
        check_bundle(tmp_path / "a\n\x1b.zip")
    assert is_plain(str(caught.value))


def test_a_pointer_of_git_lfs_for_a_bundle(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1\n"
    (tmp_path / "b.zip").write_text(pointer)
    (fault,) = check_bundle(tmp_path / "b.zip")
    assert "is a pointer of git-LFS" in fault.what
