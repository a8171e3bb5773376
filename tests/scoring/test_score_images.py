"""`score.py IN OUT` in the Pythons of the platforms' images, and from any folder."""

import os
import shutil
import subprocess

import pytest
from helpers_score_program import check_outputs
from helpers_scoring import IMAGES, OUTPUTS, SCORING, Competition, image_python
from mico_competition.scoring import program


@pytest.fixture
def competition(tmp_path):
    return Competition(tmp_path)


@pytest.fixture(params=IMAGES)
def image(request):
    """An interpreter of each of the platforms' images, as far as they are to be had."""
    return image_python(request.param)


@pytest.mark.slow
def test_the_platforms_pythons_give_the_same_files(tmp_path, image):
    old, new = Competition(tmp_path / "old"), Competition(tmp_path / "new")
    done = old.run(python=image, options=())
    assert (done.returncode, done.stderr) == (0, "")
    check_outputs(old)
    assert new.run().returncode == 0
    for name in OUTPUTS:
        assert (old.outputs / name).read_bytes() == (new.outputs / name).read_bytes(), name


@pytest.mark.slow
def test_the_platforms_pythons_list_the_same_faults(competition, image):
    competition.prediction(i=99).write_text("0.5,nope")
    shutil.rmtree(competition.res / "cifar10_lo")
    done = competition.run(python=image, options=())
    assert (done.returncode, done.stdout, competition.written()) == (1, "", [program.PAGE])
    assert done.stderr == competition.run().stderr and "nope" in done.stderr


@pytest.mark.slow
def test_the_program_imports_numpy_and_the_standard_library_only(competition, tmp_path):
    shadow = tmp_path / "shadow"
    for name in ("pandas", "matplotlib", "sklearn", "scipy", "torch", "mico_competition"):
        (shadow / name).mkdir(parents=True)
        (shadow / name / "__init__.py").write_text(f"raise SystemExit('imported {name}')")
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(shadow)!r})\n"
        "program = sys.argv[1]; sys.argv = sys.argv[1:]\n"
        "try:\n"
        "    runpy.run_path(program, run_name='__main__')\n"
        "finally:\n"
        "    names = {name.split('.')[0] for name in sys.modules}\n"
        "    allowed = set(sys.stdlib_module_names) | {'numpy', 'mico_scoring'}\n"
        "    before = {'__main__', '__mp_main__', 'sitecustomize', 'usercustomize'}\n"
        "    found = {n for n in names - allowed - before if not n.startswith('__editable__')}\n"
        "    found = {n for n in found if n not in ('_distutils_hack', '_virtualenv')}\n"
        "    found = {n for n in found if 'cython' not in n}\n"  # of numpy.random
        "    assert not found, found\n"
    )
    done = competition.run(options=(runner,))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_folder_works_under_any_name_and_from_a_read_only_place(competition, tmp_path):
    place = tmp_path / "a program"
    place.mkdir()
    for file in SCORING.glob("*.py"):
        if file.name != "__init__.py":
            shutil.copy(file, place)
    done = competition.run(program=place / "score.py")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("sound", [True, False])
@pytest.mark.parametrize("image", IMAGES)
def test_nobody_need_read_what_it_prints(competition, image, sound):
    """As in `score.py IN OUT | true`: scores and the exit code are the same."""
    if not sound:
        competition.prediction().unlink()
    command = [image_python(image), SCORING / "score.py", competition.inputs, competition.outputs]
    reading, writing = os.pipe()
    os.close(reading)
    code = subprocess.run(command, stdout=writing, stderr=writing).returncode
    os.close(writing)
    assert code == (0 if sound else 1)
    assert competition.written() == (sorted(OUTPUTS) if sound else [program.PAGE])
