"""What a log without a terminal gets to see."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jft.runtime.progress import Bar

REPO = Path(__file__).parent.parent


def test_a_line_tells_how_far_and_how_long(capsys):
    with Bar("Scoring", 4, done=1) as bar:
        bar.advance("films", 0)  # a batch that finished no item yet
        bar.advance("films", 3)
    first, last = capsys.readouterr().out.splitlines()
    assert first == "Scoring 1/4  films"
    assert last == "Scoring 4/4  films  0 s left"


PRINTING = """
from jft.runtime.progress import say
for i in range(3000):
    say(f"line {i} of many")
open("done", "w").close()
"""


@pytest.mark.parametrize("to", ["| head -n 1", "> /dev/full"])
def test_a_program_goes_on_when_nobody_reads_it(to, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PRINTING)
    command = f"set -o pipefail; {sys.executable} {script} {to}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "done").exists(), done.stderr
    assert "Traceback" not in done.stderr


def test_help_that_nobody_reads_ends_without_a_word():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "jft.train", "--help"]
    done = subprocess.run(command, cwd=REPO, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_plan_that_cannot_be_printed_is_an_error():
    command = [sys.executable, "-m", "jft.plan", "--config=configs/finetune.py"]
    command += ["--topology=h100:1", "--config.model.path=random:llama-tiny"]
    command += ["--config.data.train=gadgets_train_480"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=REPO, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("error: standard output: No space left on device; make room\n")
