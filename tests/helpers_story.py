"""A page that tells a story in a shell: its files are written and its commands run, as printed."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"(?P<before>[^\n]*)\n\n?```(?P<language>python|toml|console)\n(?P<text>.*?)^```$"
    r"(?:\n\n```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
FILE = re.compile(r"`([\w./]+)`[^`]*:$")
EXIT = re.compile(r"# exit code (\d+)")


@dataclass(frozen=True)
class Step:
    """A file that the line above it names, or commands with the output that is shown below them."""

    line: int
    text: str
    file: str | None = None
    output: str | None = None

    def commands(self) -> list[str]:
        """The commands, each with the lines that continue it."""
        return self.text.replace("\\\n", " ").splitlines()


def steps_of(page: str) -> list[Step]:
    """The files and commands of a page, in its order."""
    steps = []
    for found in FENCE.finditer(page):
        line = page[: found.start("text")].count("\n")
        if found["language"] == "console":
            steps.append(Step(line, found["text"], output=found["output"]))
        else:
            named = FILE.search(found["before"])
            assert named, f"line {line}: the line above a file must end with its name in `...`:"
            steps.append(Step(line, found["text"], file=named[1]))
    return steps


class Shell:
    """One bash for the whole story, in an empty folder, with the `mico` of this Python."""

    MARK = "=== exit code"

    def __init__(self, folder: Path):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MICO_")}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        environment |= {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / ".cache")}
        self.bash = subprocess.Popen(
            ["bash"],
            **{"cwd": folder, "env": environment, "text": True, "bufsize": 1},
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
        )

    def run(self, command: str) -> tuple[int, str]:
        """The exit code of a command, and what it printed."""
        self.bash.stdin.write(f'{command}\nprintf "\\n{self.MARK} %d\\n" $?\n')
        self.bash.stdin.flush()
        printed = []
        for line in self.bash.stdout:
            if line.startswith(self.MARK):
                return int(line.removeprefix(self.MARK)), "".join(printed).removesuffix("\n")
            if not line.endswith(" so far\n"):  # progress, each half minute on a slow machine
                printed.append(line)
        raise EOFError(f"bash has ended: {command}\n{''.join(printed)}")

    def close(self) -> None:
        self.bash.stdin.close()
        self.bash.stdout.close()
        self.bash.wait()


def faults_of(step: Step, shell: Shell, folder: Path) -> str:
    """Do a step; what is not as the page says, or nothing."""
    if step.file is not None:
        (folder / step.file).write_text(step.text, encoding="utf-8")
        return ""
    faults, printed = [], ""
    for command in step.commands():
        code, output = shell.run(command)
        expected = EXIT.search(command)
        if code != (int(expected[1]) if expected else 0):
            faults.append(f"exit code {code}: {command}")
        printed += output
    if step.output is not None and not shows(step.output, printed):
        faults.append("it prints something else")
    return f"line {step.line}: {'; '.join(faults)}\n{printed}" if faults else ""


NUMBER = re.compile(r"\d+\.\d+(?:e-\d+)?")


def shows(page: str, printed: str) -> bool:
    """Whether a page shows what was printed; `...` stands for anything, decimals may differ."""
    pattern = ""
    for part in re.split(r"(\.\.\.|\s+|" + NUMBER.pattern + ")", page.strip()):
        if part == "...":
            pattern += ".*?"
        elif part.isspace():
            pattern += r"\s+"
        else:
            pattern += NUMBER.pattern if NUMBER.fullmatch(part) else re.escape(part)
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None
