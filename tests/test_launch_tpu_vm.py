"""launch/tpu_vm.sh against a fake gcloud: its machines are folders, and run what they are told."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import flags
import pytest

REPO = Path(__file__).parent.parent
NAME, ZONE = "ft", "--zone=us-west4-a"
SLICE = [f"--name={NAME}", ZONE]
RUN = ["run", *SLICE, "--type=v5litepod-16"]

# Slices and requests have a list of states each, of which every look takes one and the last stays.
# What is created has the next of the states in `grants`.
GCLOUD = """
import json, os, pathlib, shutil, signal, subprocess, sys
cloud = pathlib.Path(os.environ["CLOUD"])
with open(cloud / "calls", "a") as calls:
    calls.write(json.dumps(["gcloud", *sys.argv[1:]]) + "\\n")
kind, verb, *rest = [word for word in sys.argv[3:] if word != "--quiet"][1:]
flags = dict(word[2:].partition("=")[::2] for word in rest if word.startswith("--"))
places = [word for word in rest if not word.startswith("--")]
workers = sorted(cloud.glob("worker?"))

def states(kind, change=None):
    file = cloud / kind
    left = json.loads(file.read_text()) if change is None else change
    file.write_text(json.dumps(left[1:] or left if change is None else left))
    return left[0] if left else ""

def fail(message):
    sys.exit(f"ERROR: {message}")

def shell(worker, pipe=None):
    env = os.environ | {"HOME": str(worker)}
    return subprocess.Popen(["bash", "-c", flags["command"]], cwd=worker, env=env, stdout=pipe)

if (cloud / "down").exists() or (verb == "delete" and (cloud / "undeletable").exists()):
    fail("no network")
elif verb == "list":
    print("other READY")
    if state := states(kind):
        print(os.environ["NAME"], state)
elif verb == "create":
    grants = json.loads((cloud / "grants").read_text())
    if not grants:
        fail("RESOURCE_EXHAUSTED")
    (cloud / "grants").write_text(json.dumps(grants[1:]))
    states("queued-resources", grants[0]["request"])
    states("tpu-vm", grants[0]["slice"])
elif verb == "delete":
    if kind == "tpu-vm" and json.loads((cloud / "queued-resources").read_text()):
        fail("a queued resource has it")
    for worker in workers:
        if (worker / "jft-run" / "pid").exists():
            try:
                os.killpg(os.getpgid(int((worker / "jft-run" / "pid").read_text())), signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(worker)
        worker.mkdir()
    states("queued-resources", [])
    states("tpu-vm", [])
elif verb == "describe":
    print("no capacity")
elif states("tpu-vm") != "READY" or (cloud / "unreachable").exists():
    fail("cannot be reached")
elif verb == "scp" and places[0].startswith(os.environ["NAME"] + ":"):
    source = pathlib.Path(places[0].partition(":")[2])
    shutil.copytree(workers[0] / source, pathlib.Path(places[1]) / source.name)
elif verb == "scp":
    for worker in workers:
        shutil.copy(places[0], worker / places[1].partition(":")[2])
elif verb == "ssh":
    chosen = workers if flags["worker"] == "all" else [workers[int(flags["worker"])]]
    if " log " in flags["command"] and (cloud / "breaks").exists():
        (cloud / "breaks").unlink()
        first = shell(chosen[0], subprocess.PIPE)
        for _ in range(2):
            sys.stdout.buffer.write(first.stdout.readline())
        sys.stdout.flush()
        first.kill()
    codes = [shell(worker).wait() for worker in chosen]
    sys.exit(next(filter(None, codes), 0))
else:
    fail(f"unknown: {verb}")
"""
RECORD = """
import json, os, pathlib, sys
with open(pathlib.Path(os.environ["CLOUD"]) / "calls", "a") as calls:
    calls.write(json.dumps([os.environ["HOME"][-7:], *sys.argv]) + "\\n")
"""
GRANTED = {"request": ["ACTIVE"], "slice": ["READY"]}


def program(path, code, interpreter=sys.executable):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{interpreter}\n{code}")
    path.chmod(0o755)
    return path


def jft_python(file, code="", unfinished="0"):
    """What programs of jft are run with; says what it was given, then does as `code` says.

    Asked whether a training came to its end, it ends with `unfinished`.
    """
    return program(
        file,
        f"import os, sys, time\nhome = os.environ['HOME']\n"
        f"if sys.argv[1] == '-c':\n    sys.exit({unfinished})\n"
        f"{RECORD}\nprint('begins', flush=True)\n{code}",
    )


def pythons(folder, new="", bare=False):
    """In folder/bin, Pythons that make environments in which nothing is installed.

    Of these, `new` is new enough, though `bare` of what makes environments; so is what uv fetches.
    """

    def fake(file, wrong, bare=False):
        code = f"""
case "$*" in
  *version_info*) exit {int(wrong)} ;;
  *ensurepip*) exit {int(bare)} ;;
  --version) echo Python ;;
  "-m venv .venv") mkdir -p .venv/bin; cp "{folder}/environment" .venv/bin/python ;;
  *"uv python find"*) echo {folder}/fetched ;;
  *) exec "{folder}/environment" "$@" ;;
esac
"""
        program(file, code, "/bin/bash")

    jft_python(folder / "environment")
    fake(folder / "fetched", wrong=False)
    for name in "python3.12", "python3.11", "python3.13", "python3", "python":
        fake(folder / "bin" / name, name != new, bare)


class Cloud:
    """A zone with at most one slice, of two machines."""

    def __init__(self, folder):
        self.folder, self.bin, self.python = folder, folder / "bin", folder / "python"
        program(self.bin / "gcloud", GCLOUD)
        for name in "tpu-vm", "queued-resources":
            self.set(name, [])
        self.grant(GRANTED)
        for index in range(2):
            self.worker(index).mkdir()
        self.tree = folder / "tree"
        for part in "launch", "jft", "configs":
            shutil.copytree(REPO / part, self.tree / part)
        for part in "pyproject.toml", "constraints.txt":
            shutil.copy(REPO / part, self.tree)

    def set(self, name, value):
        (self.folder / name).write_text(json.dumps(value))

    def grant(self, *grants):
        self.set("grants", grants)

    def there(self):
        self.set("tpu-vm", ["READY"])
        self.set("queued-resources", ["ACTIVE"])

    def worker(self, index):
        return self.folder / f"worker{index}"

    def start(self, *arguments, python=None, **more):
        env = os.environ | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "CLOUD": str(self.folder),
            "NAME": NAME,
            "JFT_POLL": "0.05",
            "XLA_FLAGS": flags.QUICKLY,
            **more,
        }
        if python:
            env["PYTHON"] = str(python)
        return subprocess.Popen(
            ["bash", str(self.tree / "launch" / "tpu_vm.sh"), *arguments],
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for all of one
        )

    def run(self, *arguments, code=0, **more):
        process = self.start(*arguments, **more)
        text, _ = process.communicate()
        assert process.returncode == code, text
        return text

    def calls(self):
        lines = (self.folder / "calls").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def verbs(self):
        return [" ".join(call[4:6]) for call in self.calls() if call[0] == "gcloud"]

    def started(self):
        return [call for call in self.calls() if call[2:4] == ["-m", "jft.train"]]

    def preempt(self):
        """As a spot slice goes: its machines shut down, then it is gone."""
        for pid in self.folder.glob("worker?/jft-run/pid"):
            os.kill(int(pid.read_text()), signal.SIGTERM)
        self.set("tpu-vm", ["PREEMPTED"])
        self.set("queued-resources", ["SUSPENDED"])


@pytest.fixture
def cloud(tmp_path):
    found = Cloud(tmp_path)
    yield found
    # What a test that fails leaves running would outlive it.
    for pid in tmp_path.glob("worker?/jft-run/pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(int(pid.read_text())), signal.SIGKILL)


def wait(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def test_it_queues_for_a_slice_installs_runs_and_says_that_it_costs(cloud):
    cloud.grant(
        {
            "request": ["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING"],
            "slice": ["", "", "", "CREATING", "READY"],
        }
    )
    text = cloud.run(
        *RUN, "--spot", "--", "train", "--config=c.py", python=jft_python(cloud.python)
    )
    for state in "asking", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "CREATING":
        assert f"ft: {state}" in text
    assert "begins" in text
    assert "ft: done" in text
    assert "costs money until: bash launch/tpu_vm.sh delete --name=ft --zone=us-west4-a" in text
    (create,) = [call for call in cloud.calls() if "create" in call]
    assert create[1:] == [
        *("--quiet", "compute", "tpus", "queued-resources", "create", "ft", "--node-id=ft"),
        *("--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--spot"),
        ZONE,
    ]
    assert sorted(call[0] for call in cloud.started()) == ["worker0", "worker1"]
    assert "queued-resources delete" not in cloud.verbs()
    assert not list((cloud.tree / "runs").iterdir())


@pytest.mark.parametrize(
    ("flags", "version"),
    [
        (["--type=v6e-16"], "v2-alpha-tpuv6e"),
        (["--type=v5p-16"], "v2-alpha-tpuv5"),
        (["--type=v4-16"], "tpu-ubuntu2204-base"),
        (["--type=v6e-16", "--version=mine"], "mine"),
    ],
)
def test_each_type_has_its_image(cloud, flags, version):
    text = cloud.run("run", *SLICE, *flags, "--project=p", "--dry-run", "--", "train")
    (create,) = [line for line in text.splitlines() if " create " in line]
    assert f" --runtime-version={version} " in create
    assert "--spot" not in create
    assert all("--project=p" in line for line in text.splitlines() if line.startswith("gcloud"))


AWKWARD = [
    "--config.model.name=a 'b' \"c\"  d",
    "two\nlines",
    "$HOME `id` $(id) * ~ \\n & ; | > !",
    "",
    "tab\there",
    "Grüße",
]


def test_arguments_arrive_as_they_are_on_every_machine(cloud):
    cloud.there()
    cloud.run(*RUN, "--", "train", *AWKWARD, python=jft_python(cloud.python))
    first, second = cloud.started()
    assert first[4:] == second[4:] == AWKWARD
    assert {first[0], second[0]} == {"worker0", "worker1"}
    assert "queued-resources create" not in cloud.verbs()


def test_a_dry_run_prints_what_the_plain_case_runs(cloud):
    arguments = [*RUN, "--spot", "--nfs=10.0.0.2:/share", "--", "train", *AWKWARD]
    machine(cloud)
    where = jft_python(cloud.python)
    text = cloud.run(*arguments[:1], "--dry-run", *arguments[1:], python=where)
    assert not (cloud.folder / "calls").exists()
    printed = []
    for line in text.splitlines():
        bash = ["bash", "-c", f"printf '%s\\0' {line}"]
        words = subprocess.run(bash, capture_output=True, check=True).stdout.decode()
        printed.append(words.split("\0")[:-1])
    cloud.run(*arguments, python=where)
    called = [call for call in cloud.calls() if call[0] == "gcloud"]
    assert [words for words in printed if words[0] == "gcloud"] == called
    here = [words[0] for words in printed if words[0] != "gcloud"]
    assert here == ["mkdir", "tar", "rm"]


@pytest.mark.parametrize("what", ["logs", "status", "stop", "delete", "fetch"])
def test_the_other_dry_runs_run_nothing_either(cloud, what):
    text = cloud.run(what, *SLICE, "--dry-run", *["/mnt/jft/ft"] * (what == "fetch"))
    assert "gcloud" in text
    assert not (cloud.folder / "calls").exists()


def test_a_preempted_slice_is_asked_for_again_and_the_same_command_begins_again(cloud):
    cloud.grant(GRANTED, {"request": ["WAITING_FOR_RESOURCES"], "slice": ["", "READY"]})
    # The first time it ends only as the machine does.
    code = f"if not os.path.exists({str(cloud.folder / 'second')!r}): time.sleep(1000)\n"
    process = cloud.start(*RUN, "--", "train", "--workdir=w", python=jft_python(cloud.python, code))
    wait(lambda: (cloud.folder / "calls").exists() and len(cloud.started()) == 2, process)
    cloud.preempt()
    (cloud.folder / "second").touch()
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert "beginning again, time 1 of 20" in text
    verbs = cloud.verbs()
    assert verbs.count("queued-resources create") == 2
    assert verbs.count("queued-resources delete") == 1
    assert verbs.index("queued-resources delete") < len(verbs) - verbs[::-1].index("tpu-vm scp")
    assert verbs.count("tpu-vm scp") == 2
    assert [call[2:] for call in cloud.started()] == [["-m", "jft.train", "--workdir=w"]] * 4


@pytest.mark.parametrize(
    ("slice_state", "request_state"),
    [("PREEMPTED", "SUSPENDING"), ("TERMINATED", ""), ("", "SUSPENDED"), ("", "ACTIVE")],
)
def test_what_is_left_of_a_slice_is_deleted_before_it_is_asked_for(
    cloud, slice_state, request_state
):
    cloud.set("tpu-vm", [slice_state] if slice_state else [])
    cloud.set("queued-resources", [request_state] if request_state else [])
    cloud.run(*RUN, "--", "train", python=jft_python(cloud.python))
    deleted = "queued-resources" if request_state else "tpu-vm"
    changes = [verb for verb in cloud.verbs() if verb.split()[1] in ("delete", "create")]
    assert changes == [f"{deleted} delete", "queued-resources create"]
    assert len(cloud.started()) == 2


def test_a_slice_that_cannot_be_reached_is_given_up_for_another(cloud):
    cloud.grant(GRANTED, GRANTED)
    code = f"if not os.path.exists({str(cloud.folder / 'second')!r}): time.sleep(1000)\n"
    process = cloud.start(*RUN, "--", "train", python=jft_python(cloud.python, code))
    wait(lambda: (cloud.folder / "calls").exists() and len(cloud.started()) == 2, process)
    (cloud.folder / "second").touch()
    (cloud.folder / "unreachable").touch()
    for pid in cloud.folder.glob("worker?/jft-run/pid"):
        os.killpg(os.getpgid(int(pid.read_text())), signal.SIGKILL)
    wait(lambda: "queued-resources delete" in cloud.verbs(), process)
    (cloud.folder / "unreachable").unlink()
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert "ended (lost)" in text
    assert len(cloud.started()) == 4


@pytest.mark.parametrize("zero", [1, 2])
def test_a_mistake_is_not_repeated_whichever_machine_names_it(cloud, zero):
    cloud.there()
    code = f"sys.exit({zero} if home.endswith('0') else {3 - zero})\n"
    text = cloud.run(*RUN, "--", "train", python=jft_python(cloud.python, code), code=2)
    assert "a mistake in config or data" in text
    assert len(cloud.started()) == 2


def test_what_dies_begins_again_on_the_same_slice_but_not_for_ever(cloud):
    cloud.there()
    where = jft_python(cloud.python, "os.kill(os.getpid(), 9)\n")
    text = cloud.run(*RUN, "--", "train", python=where, JFT_RESTARTS="2", code=1)
    assert "ended (137); beginning again, time 2 of 2" in text
    assert "begun again 2 times already; giving up" in text
    assert len(cloud.started()) == 6
    assert cloud.verbs().count("tpu-vm scp") == 1
    assert "queued-resources delete" not in cloud.verbs()


def test_training_that_was_told_to_stop_by_its_machine_is_not_done(cloud):
    cloud.there()
    code = "open(home + '/times', 'a').write('1')\n"
    unfinished = "open(home + '/times').read() == '1'"
    where = jft_python(cloud.python, code, unfinished)
    text = cloud.run(*RUN, "--", "train", "--workdir=w", python=where)
    assert "ended (75); beginning again, time 1 of 20" in text
    assert len(cloud.started()) == 4


def test_a_request_that_fails_is_made_again_but_not_for_ever(cloud):
    failing = {"request": ["FAILED"], "slice": []}
    cloud.grant(failing, failing, failing, failing)
    text = cloud.run(*RUN, "--", "train", python=jft_python(cloud.python), JFT_RESTARTS="1", code=2)
    assert "no capacity" in text
    assert "--type=v5litepod-16: asked for 2 times, and got nothing" in text
    verbs = cloud.verbs()
    assert verbs.count("queued-resources create") == verbs.count("queued-resources delete") == 2


def test_a_request_that_is_refused_ends_at_once(cloud):
    cloud.grant()
    text = cloud.run(*RUN, "--", "train", python=jft_python(cloud.python), code=2)
    assert "--type=v5litepod-16: cannot be asked for in this zone" in text
    assert cloud.verbs().count("queued-resources create") == 1


def test_where_gcloud_does_not_answer_nothing_is_asked_for(cloud):
    (cloud.folder / "down").touch()
    text = cloud.run(*RUN, "--", "train", python=jft_python(cloud.python), code=2)
    assert "gcloud cannot say what there is" in text
    assert set(cloud.verbs()) == {"tpu-vm list"}


def test_nothing_is_given_up_while_gcloud_does_not_answer(cloud):
    cloud.there()
    end = cloud.folder / "end"
    code = f"while not os.path.exists({str(end)!r}): time.sleep(0.02)\n"
    process = cloud.start(*RUN, "--", "train", python=jft_python(cloud.python, code))
    while process.stdout.readline() != "begins\n":
        assert process.poll() is None
    (cloud.folder / "down").touch()
    end.touch()
    looks = cloud.verbs().count("tpu-vm list")
    wait(lambda: cloud.verbs().count("tpu-vm list") > looks + 4, process)
    (cloud.folder / "down").unlink()
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert "ft: done" in text
    assert "queued-resources delete" not in cloud.verbs()


def test_a_stopped_slice_is_left_alone(cloud):
    cloud.set("tpu-vm", ["STOPPED"])
    text = cloud.run(*RUN, "--", "train", python=jft_python(cloud.python), code=2)
    assert "--name=ft: is STOPPED; start it or delete it" in text


def test_no_line_is_lost_or_repeated_when_the_connection_breaks(cloud):
    cloud.there()
    (cloud.folder / "breaks").touch()
    lines = [f"{number}: a:b  c:" for number in range(40)]
    code = f"for line in {lines!r}:\n    print(line, flush=True)\n    time.sleep(0.01)\n"
    text = cloud.run(*RUN, "--", "train", python=jft_python(cloud.python, code))
    assert not (cloud.folder / "breaks").exists()
    shown = [line for line in text.splitlines() if ": a:b" in line]
    assert shown == lines
    assert len(cloud.started()) == 2


def test_ctrl_c_ends_the_watching_alone_and_the_same_command_watches_again(cloud):
    cloud.there()
    where = jft_python(
        cloud.python, f"while not os.path.exists({str(cloud.folder / 'end')!r}): time.sleep(0.02)\n"
    )
    process = cloud.start(*RUN, "--", "train", "--workdir=a b", python=where)
    while process.stdout.readline() != "begins\n":
        assert process.poll() is None
    running = int((cloud.worker(0) / "jft-run" / "pid").read_text())
    assert os.getsid(running) != os.getsid(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate()
    assert process.returncode == 130, text
    for what in "logs", "stop", "delete":
        assert f"bash launch/tpu_vm.sh {what} --name=ft --zone=us-west4-a" in text

    text = cloud.run(*RUN, "--", "train", "--workdir=c", python=where, code=1)
    assert r"error: another run is going on here: '' train --workdir=a\ b ; stop it first" in text

    process = cloud.start(*RUN, "--", "train", "--workdir=a b", python=where)
    while process.stdout.readline() != "begins\n":
        assert process.poll() is None
    (cloud.folder / "end").touch()
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert len(cloud.started()) == 2
    assert cloud.verbs().count("tpu-vm scp") == 1


def test_the_tree_is_copied_again_only_where_it_has_changed(cloud):
    cloud.there()
    where = jft_python(cloud.python)
    (cloud.tree / "old.py").touch()
    (cloud.tree / "configs" / "mine.py").write_text("MINE = 0")
    (cloud.tree / ".git").mkdir()
    (cloud.tree / "runs").mkdir()
    (cloud.tree / "runs" / "mine").touch()
    cloud.run(*RUN, "--", "train", python=where)
    cloud.run(*RUN, "--", "train", "--other", python=where)
    assert cloud.verbs().count("tpu-vm scp") == 1
    there = cloud.worker(1) / "jft"
    (there / "runs").mkdir()
    (there / "runs" / "ft").touch()
    (cloud.tree / "configs" / "mine.py").write_text("MINE = 1")
    cloud.run(*RUN, "--", "train", python=where)
    assert cloud.verbs().count("tpu-vm scp") == 2
    assert (there / "configs" / "mine.py").read_text() == "MINE = 1"
    (cloud.tree / "old.py").unlink()
    cloud.run(*RUN, "--", "train", python=where)
    assert cloud.verbs().count("tpu-vm scp") == 3
    assert not (there / "old.py").exists()
    assert not (there / ".git").exists()
    assert [each.name for each in (there / "runs").iterdir()] == ["ft"]


def machine(cloud):
    """Programs of a machine that are not to run here."""
    for name in "sudo", "mount.nfs", "apt-get":
        program(cloud.bin / name, RECORD)
    program(cloud.bin / "mountpoint", 'exec test -e "$HOME/mounted"', "/bin/sh")


@pytest.mark.parametrize("image", ["python3.12", ""])
def test_it_installs_an_environment_and_a_python_for_it_where_the_image_has_none(cloud, image):
    cloud.there()
    machine(cloud)
    pythons(cloud.folder, image)
    cloud.run(*RUN, "--", "train", "--config=c.py")
    made = [" ".join(call[2:]) for call in cloud.calls() if call[0] == "worker1"]
    installed = "-c constraints.txt -e .[tpu]"
    assert any(call.startswith("-m pip install") and call.endswith(installed) for call in made)
    fetched = [call for call in made if "uv" in call.split()]
    assert fetched == [] if image else len(fetched) == 2
    assert made[-1] == "-m jft.train --config=c.py"


def test_a_share_is_mounted_on_every_machine_unless_it_is(cloud):
    cloud.there()
    machine(cloud)
    (cloud.worker(1) / "mounted").touch()
    cloud.run(*RUN, "--nfs=10.0.0.2:/a share", "--", "train", python=jft_python(cloud.python))
    calls = [call for call in cloud.calls() if call[1].endswith("sudo")]
    (mount,) = [call[3:] for call in calls if call[2] == "mount"]
    options = "noac,local_lock=flock"
    assert mount == ["-t", "nfs", "-o", options, "10.0.0.2:/a share", "/mnt/jft"]
    assert {call[0] for call in calls} == {"worker0"}


def test_it_deletes_the_slice_at_the_end_where_results_are_elsewhere(cloud):
    machine(cloud)
    where = jft_python(cloud.python)
    text = cloud.run(*RUN, "--delete-after", "--", "train", python=where, code=2)
    assert "--delete-after: the results would go with the slice; give --nfs" in text
    text = cloud.run(*RUN, "--delete-after", "--nfs=h:/s", "--", "train", python=where)
    assert cloud.verbs()[-1] == "queued-resources delete"
    assert "costs money" not in text
    cloud.grant(GRANTED)
    (cloud.folder / "undeletable").touch()
    text = cloud.run(*RUN, "--delete-after", "--nfs=h:/s", "--", "train", python=where)
    assert "not deleted, see above\nft: what there is of it costs money" in text


def test_what_cannot_begin_says_so_and_is_not_repeated(cloud):
    cloud.there()
    machine(cloud)
    program(cloud.bin / "sudo", "echo no route to host; exit 32", "/bin/sh")
    text = cloud.run(*RUN, "--nfs=h:/s", "--", "train", python=jft_python(cloud.python), code=1)
    assert "no route to host" in text
    assert "could not begin" in text
    assert "begins" not in text


def test_another_slice_of_its_own_is_deleted_without_a_request(cloud):
    cloud.set("tpu-vm", ["READY"])
    cloud.run("delete", *SLICE)
    assert cloud.verbs()[-1] == "tpu-vm delete"
    cloud.run("delete", *SLICE)
    assert cloud.verbs().count("tpu-vm delete") == 1


def test_results_are_fetched_from_the_first_machine(cloud):
    cloud.there()
    results = cloud.worker(0) / "jft" / "runs" / "ft"
    results.mkdir(parents=True)
    (results / "metrics.jsonl").write_text("{}")
    here = cloud.folder / "here"
    here.mkdir()
    cloud.run("fetch", *SLICE, "runs/ft", str(here))
    assert (here / "ft" / "metrics.jsonl").read_text() == "{}"


def test_status_tells_of_slice_request_and_program(cloud):
    assert "slice: none\nft: request: \nft: what there" in cloud.run("status", *SLICE)
    cloud.there()
    cloud.run(*RUN, "--", "train", python=jft_python(cloud.python))
    assert "slice: READY\nft: request: ACTIVE\nft: program: 0" in cloud.run("status", *SLICE)
    assert "begins\nft: ended: 0" in cloud.run("logs", *SLICE)


def test_stop_ends_the_program_for_good(cloud):
    cloud.there()
    code = (
        "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\ntime.sleep(1000)\n"
    )
    where = jft_python(cloud.python, code, unfinished="1")
    process = cloud.start(*RUN, "--", "train", "--workdir=w", python=where)
    while process.stdout.readline() != "begins\n":
        assert process.poll() is None
    wait(lambda: len(cloud.started()) == 2, process)
    assert "asked to save and end" in cloud.run("stop", *SLICE)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert "stopped, and where it was training, saved" in text
    assert len(cloud.started()) == 2
    assert cloud.run("stop", *SLICE).count("nothing is running here") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do: say run, logs"),
        (["start", *SLICE], "start: say run, logs"),
        (["logs", ZONE], "--name is missing"),
        (["logs", "--name=ft"], "--zone is missing"),
        (["logs", "--name=ft", "--zone="], "--zone=: no such flag, or it lacks a value"),
        (["fetch", *SLICE], "fetch which folder?"),
        ([*RUN, "train"], "train: the program and what it takes come after --"),
        ([*RUN, "--", "trian"], "-- trian: no program of jft"),
        (["run", *SLICE, "--", "train"], "--type is missing"),
        (
            ["run", *SLICE, "--type=tpu7x-8", "--", "train"],
            "--type=tpu7x-8: no usual image is known",
        ),
        ([*RUN, "--nfs=share", "--", "train"], "--nfs=share: is written HOST:/SHARE"),
        ([*RUN, "--config=c", "--", "train"], "--config=c: no such flag"),
    ],
)
def test_a_wrong_flag_is_named_with_its_remedy(cloud, arguments, message):
    text = cloud.run(*arguments, code=2)
    assert text.startswith("error: ")
    assert message in text
    assert not (cloud.folder / "calls").exists()


def test_help_is_there(cloud):
    text = cloud.run("--help")
    assert text.startswith("A program of jft on a TPU VM slice")
    assert text.endswith("has what jft needs.\n")


def training(workdir, steps):
    return [
        *("train", "--config=configs/finetune.py", f"--workdir={workdir}"),
        *("--config.model.path=random:llama-tiny", "--config.data.train=gadgets_train_480"),
        *("--config.train.batch_size=4", f"--config.train.steps={steps}"),
        *("--config.probe.limit=0", "--config.model.name=a 'b' c"),
    ]


def lines(file):
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_a_preempted_training_goes_on_from_its_last_step(cloud):
    cloud.worker(1).rmdir()
    cloud.grant(GRANTED, GRANTED)
    workdir = cloud.folder / "share" / "ft"
    arguments = [*RUN, "--", *training(workdir, 60)]
    process = cloud.start(*arguments, python=sys.executable)
    wait(lambda: lines(workdir / "metrics.jsonl") >= 2, process)
    cloud.preempt()
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert "Stopped after step" in text
    assert "Going on from step" in text
    assert "Done: 60 steps" in text
    assert cloud.verbs().count("queued-resources create") == 2
