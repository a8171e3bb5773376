"""Packaging. Lower bounds stand here; requirements.txt pins the whole set (`make lock`).

`scoring/` is both the folder that CodaLab runs and the package `mico_competition.scoring`,
hence the second entry of `package_dir`. So `PYTHONPATH=src` is not enough: `pip install -e .`
A type checker sees such an install only with `--config-settings editable_mode=strict`.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
INIT = (ROOT / "src" / "mico_competition" / "__init__.py").read_text(encoding="utf-8")
README = ROOT / "README.md"

# What taking part needs: load, attack, evaluate, score, audit, submit, download.
REQUIRES = [
    "torch>=2.6",
    "numpy>=1.24",
    "scipy>=1.10",
    "scikit-learn>=1.3",
    "pandas>=2.0",
    "matplotlib>=3.7",
    "tqdm>=4.60",
    "pyyaml>=6.0",
    "jinja2>=3.1",
    "huggingface_hub>=0.30",
    "dp_accounting>=0.5",
    "shtab>=1.7",
]
EXTRAS = {
    "train": ["opacus>=1.6", "cryptography>=42"],
    "text": ["transformers>=4.46", "datasets>=2.19", "safetensors>=0.4.3"],
    "notebook": ["jupyter>=1.0"],
}
EXTRAS["all"] = sorted({line for lines in EXTRAS.values() for line in lines})
EXTRAS["cluster"] = ["ray>=2.50"]  # organisers only, so not in `all`
EXTRAS["docs"] = ["sphinx>=8.0", "myst-nb>=1.2", "furo>=2024.8.6", "sphinx-copybutton>=0.5.2"]
EXTRAS["dev"] = [
    *EXTRAS["all"],
    *EXTRAS["cluster"],
    *EXTRAS["docs"],
    "build>=1.2",
    "hypothesis>=6.100",
    "mypy>=1.11",
    "nbclient>=0.10",
    "nbformat>=5.10",
    "peft>=0.14",
    "pytest>=8.0",
    "pytest-xdist>=3.5",
    "ruff>=0.9",
]


def long_description() -> str:
    """README without its pictures and its links to files, which a package index does not have."""
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    picture = r"!\[[^\]]*\]\((?!https?:)[^)]*\)"
    text = re.sub(rf"\[{picture}\]\([^)]*\)\n*|{picture}\n*", "", text)
    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)[^)]+\)", r"\1", text)


setup(
    name="mico_competition",
    version=re.search(r'^__version__ = "(.+)"$', INIT, re.MULTILINE)[1],
    description="Membership inference attacks and DP-SGD, measured against each other",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="the mico_competition authors",
    license_expression="MIT",
    license_files=["LICENSE"],
    keywords=["membership inference", "differential privacy", "DP-SGD", "privacy audit", "MICO"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 15)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Security",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*find_packages("src"), "mico_competition.scoring"],
    package_dir={"": "src", "mico_competition.scoring": "scoring"},
    package_data={
        "mico_competition": ["py.typed"],
        "mico_competition.benchmark": [
            "*.toml",
            "*.json",
            "seeds/*.txt",
            "entries/*/*.json",
            "site/*",
        ],
        "mico_competition.hosting.leaderboard": ["site/*"],
        "mico_competition.competition": ["*.toml"],
        "mico_competition.hosting.hub": ["card.md"],
        "mico_competition.hosting.codabench": ["pages/*.md", "pages/logo.png"],
        "mico_competition.scoring": ["metadata"],
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["mico=mico_competition.cli:main"]},
)
