"""launch/gke.sh and gke.yaml against a fake kubectl; the pods' script runs here."""

import functools
import http.server
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
import yaml
from test_launch_tpu_vm import AWKWARD, jft_python, program, pythons

REPO = Path(__file__).parent.parent
RUN = ["run", "--name=ft", "--accelerator=tpu-v5-lite-podslice", "--topology=4x4", "--claim=mine"]
RUN += ["--source=gs://bucket/jft.tar.gz"]

# Keeps what it was called with, and tells of the pods and the job as the files say: a list each, of
# which every look takes one and the last stays.
KUBECTL = """
import json, os, pathlib, sys, time
folder = pathlib.Path(os.environ["CLOUD"])
text = sys.stdin.read() if "apply" in sys.argv else ""
with open(folder / "calls", "a") as calls:
    calls.write(json.dumps([sys.argv[1:], text]) + "\\n")

def next_of(name):
    left = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(left[1:] or left))
    return left[0]

what = sys.argv[1:3]
if what == ["get", "pods"]:
    print("\\n".join(next_of("pods")))
elif what == ["get", "job"]:
    print("went wrong" if ".message" in sys.argv[-1] else next_of("job"))
elif sys.argv[1] == "logs":
    print("log of", sys.argv[-1], flush=True)
    time.sleep(float(os.environ.get("LASTS", 0)))
sys.exit(next_of("codes") if (folder / "codes").exists() else 0)
"""


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        program(folder / "bin" / "kubectl", KUBECTL)
        self.set("pods", [["pod/ft-0-aaaaa"]])
        self.set("job", ["SuccessCriteriaMet Complete "])

    def set(self, name, value):
        (self.folder / name).write_text(json.dumps(value))

    def env(self, **more):
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        home = str(self.folder)
        return os.environ | {"PATH": path, "CLOUD": home, "HOME": home, "JFT_POLL": "0.02"} | more

    def start(self, *arguments, **more):
        return subprocess.Popen(
            ["bash", str(REPO / "launch" / "gke.sh"), *arguments],
            cwd=self.folder,
            env=self.env(**more),
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
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def manifest(self):
        (text,) = [text for _, text in self.calls() if text]
        service, job = yaml.safe_load_all(text)
        return service, job


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def container(job):
    (found,) = job["spec"]["template"]["spec"]["containers"]
    return found


@pytest.mark.parametrize(
    ("flags", "hosts", "chips"),
    [
        (["--topology=4x4"], 4, 4),
        (["--topology=1x1"], 1, 1),
        (["--topology=2x2"], 1, 4),
        (["--topology=2x4"], 1, 8),
        (["--topology=2x4", "--host-chips=4"], 2, 4),
        (["--topology=2x2x4", "--accelerator=tpu-v5p-slice"], 4, 4),
    ],
)
def test_what_has_to_agree_does(cluster, flags, hosts, chips):
    cluster.run(*RUN, *flags, "--", "train")
    service, job = cluster.manifest()
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == hosts
    assert spec["backoffLimit"] == 20 * hosts
    name = service["metadata"]["name"]
    assert name == job["metadata"]["name"] == pod["subdomain"] == "ft"
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["spec"]["clusterIP"] == "None"
    resources = container(job)["resources"]
    assert resources["limits"] == resources["requests"] == {"google.com/tpu": chips}
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    assert topology == flags[0].partition("=")[2]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "mine"}
    assert container(job)["volumeMounts"] == [{"name": "share", "mountPath": "/mnt/jft"}]
    assert pod["restartPolicy"] == "Never"
    assert container(job)["image"] == "python:3.12-slim"


def test_what_is_wrong_ends_the_job_and_what_was_stopped_does_not_count(cluster):
    cluster.run(*RUN, "--", "train")
    _, job = cluster.manifest()
    rules = job["spec"]["podFailurePolicy"]["rules"]
    by_code = {
        code: rule["action"]
        for rule in rules
        if "onExitCodes" in rule
        for code in rule["onExitCodes"]["values"]
    }
    assert by_code == {2: "FailJob", 75: "Ignore", 143: "Ignore"}
    names = {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule}
    assert names == {container(job)["name"]}
    assert rules[-1] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}


def test_a_spot_slice_is_selected_only_where_it_is_wanted(cluster, tmp_path):
    spot = "cloud.google.com/gke-spot"
    cluster.run(*RUN, "--", "train")
    assert spot not in cluster.manifest()[1]["spec"]["template"]["spec"]["nodeSelector"]
    (cluster.folder / "calls").unlink()
    cluster.run(*RUN, "--spot", "--", "train")
    assert cluster.manifest()[1]["spec"]["template"]["spec"]["nodeSelector"][spot] == "true"


def test_the_plain_manifest_is_yaml(cluster):
    service, job = yaml.safe_load_all((REPO / "launch" / "gke.yaml").read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")


def test_arguments_arrive_as_they_are(cluster):
    cluster.run(*RUN, "--", "train", *AWKWARD, "$(SOURCE) $$ \\ \r")
    _, job = cluster.manifest()
    # Kubernetes reads $$ as $, and $(NAME) as a variable.
    given = [each.replace("$$", "$") for each in container(job)["args"]]
    assert not [each for each in container(job)["args"] if "$" in each.replace("$$", "")]
    assert given == ["train", "--wait=3600", *AWKWARD, "$(SOURCE) $$ \\ \r"]


def test_it_shows_the_log_of_each_first_pod_until_the_job_is_complete(cluster):
    cluster.set("pods", [[""], ["pod/ft-0-aaaaa"], ["pod/ft-0-aaaaa", "pod/ft-0-bbbbb"]])
    cluster.set("job", ["", "", "Complete "])
    text = cluster.run(*RUN, "--", "train")
    shown = [line for line in text.splitlines() if line.startswith("log of")]
    assert shown == ["log of pod/ft-0-aaaaa", "log of pod/ft-0-bbbbb"]
    assert "since-time" not in json.dumps(cluster.calls())
    assert "ft: done" in text
    assert "until: bash launch/gke.sh delete --name=ft" in text


def test_a_log_that_breaks_off_goes_on_where_it_was(cluster):
    cluster.set("job", ["", "Complete "])
    cluster.run(*RUN, "--", "train")
    first, second = [call for call, _ in cluster.calls() if call[0] == "logs"]
    assert first == ["logs", "--follow", "pod/ft-0-aaaaa"]
    assert second[2].startswith("--since-time=20")


def test_a_job_that_fails_says_why(cluster):
    cluster.set("job", ["FailureTarget Failed "])
    assert "ft: failed: went wrong" in cluster.run(*RUN, "--", "train", code=1)


def test_what_cannot_be_applied_says_what_to_do(cluster):
    cluster.set("codes", [1])
    text = cluster.run(*RUN, "--", "train", code=2)
    assert "--name=ft: not applied; where a job of that name is there" in text
    assert len(cluster.calls()) == 1


def test_ctrl_c_ends_the_watching_alone(cluster):
    process = cluster.start(*RUN, "--", "train", LASTS="1000")
    while "log of" not in process.stdout.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate()
    assert process.returncode == 130
    assert "to watch it: bash launch/gke.sh logs --name=ft" in text
    assert not [call for call, _ in cluster.calls() if call[0] == "delete"]


def test_a_dry_run_prints_what_is_run_ready_to_be_pasted(cluster):
    arguments = [*RUN, "--spot", "--", "train", *AWKWARD]
    text = cluster.run("--dry-run", *arguments)
    assert cluster.calls() == []
    subprocess.run(["bash", "-c", text], env=cluster.env(), check=True, capture_output=True)
    pasted = cluster.calls()
    (cluster.folder / "calls").unlink()
    cluster.set("pods", [["pod/ft-0-..."]])
    cluster.run(*arguments)
    assert pasted == cluster.calls()


@pytest.mark.parametrize(
    ("what", "calls"),
    [
        ("delete", [["delete", "job,service", "ft", "--ignore-not-found"]]),
        (
            "status",
            [
                ["get", "job", "ft"],
                ["get", "pods", "--selector=batch.kubernetes.io/job-name=ft", "--output=wide"],
            ],
        ),
    ],
)
def test_status_and_delete(cluster, what, calls):
    cluster.run(what, "--name=ft", "--dry-run")
    assert cluster.calls() == []
    cluster.run(what, "--name=ft")
    assert [call for call, _ in cluster.calls()] == calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do: say run, logs"),
        (["logs"], "--name is missing"),
        (["logs", "--name=Ft"], "--name=Ft: begins with a small letter"),
        ([*RUN, "--name=" + "a" * 51, "--", "train"], "50 at most"),
        ([*RUN], "which program?"),
        ([*RUN, "train"], "train: the program and what it takes come after --"),
        ([*RUN, "--", "trian"], "-- trian: no program of jft"),
        (["run", "--name=ft", "--", "train"], "--accelerator is missing"),
        ([*RUN, "--topology=16", "--", "train"], "--topology=16: is the node pool's"),
        ([*RUN, "--topology=4x4", "--host-chips=5", "--", "train"], "not whole machines of 5"),
        ([*RUN, "--host-chips=four", "--", "train"], "--host-chips=four: is a number"),
        ([*RUN, "--source=jft.tar.gz", "--", "train"], "--source=jft.tar.gz: begins with gs://"),
        ([*RUN[:4], "--", "train"], "--claim is missing"),
        ([*RUN[:5], "--", "train"], "--source is missing"),
        ([*RUN, "--zone=x", "--", "train"], "--zone=x: no such flag"),
    ],
)
def test_a_wrong_flag_is_named_with_its_remedy(cluster, arguments, message):
    text = cluster.run(*arguments, code=2)
    assert text.startswith("error: ")
    assert message in text
    assert cluster.calls() == []


def test_help_is_there(cluster):
    text = cluster.run("--help")
    assert text.startswith("A program of jft on a TPU slice in a GKE cluster")
    assert text.endswith("runs none\n")


# Google's addresses, as the script names them, are here.
ELSEWHERE = """
import os, urllib.request
opened = urllib.request.urlopen

def urlopen(request):
    for host in "http://metadata.google.internal/", "https://storage.googleapis.com/":
        request.full_url = request.full_url.replace(host, os.environ["SERVER"])
    return opened(request)

urllib.request.urlopen = urlopen
"""


class Server(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        headers = self.headers.get("Metadata-Flavor"), self.headers.get("Authorization")
        needed = {"/private/": (None, "Bearer secret"), "/computeMetadata/": ("Google", None)}
        for path, expected in needed.items():
            if self.path.startswith(path) and headers != expected:
                self.send_error(403)
                return
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """A web server of tmp_path/www."""
    root = tmp_path / "www"
    token = root / "computeMetadata" / "v1" / "instance" / "service-accounts" / "default"
    token.mkdir(parents=True)
    (token / "token").write_text(json.dumps({"access_token": "secret"}))
    handler = functools.partial(Server, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}/"
        found.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "prefix", "source"),
    [
        ("main.tar.gz", "jft-main/", "{server}main.tar.gz"),
        ("private/my tree.tar.gz", "", "gs://private/my tree.tar.gz"),
    ],
)
def test_a_pod_installs_the_tree_and_runs_the_program(cluster, server, path, prefix, source):
    file = cluster.folder / "www" / path
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w:gz") as archive:
        for name in "launch", "pyproject.toml", "constraints.txt":
            archive.add(REPO / name, prefix + name)
    source = source.format(server=server)
    cluster.run(*RUN, f"--source={source}", "--", "train", "--config=a b")
    pod = container(cluster.manifest()[1])
    (cluster.folder / "calls").unlink()
    pythons(cluster.folder, "python3.12")
    (cluster.folder / "bin" / "python").unlink()
    (cluster.folder / "bin" / "python").symlink_to(sys.executable)
    (cluster.folder / "sitecustomize.py").write_text(ELSEWHERE)
    env = cluster.env(SERVER=server, PYTHONPATH=str(cluster.folder))
    env |= {each["name"]: each["value"] for each in pod["env"]}
    # In a pod it is in /, and begins by making /jft.
    script = [line.replace("/jft", "jft") for line in pod["command"]]
    done = subprocess.run(
        [*script, *pod["args"]], cwd=cluster.folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    made = [" ".join(call[2:]) for call in cluster.calls()]
    assert any(call.endswith("-c constraints.txt -e .[tpu]") for call in made)
    assert made[-1] == "-m jft.train --wait=3600 --config=a b"


def test_a_pod_of_an_image_with_jft_installs_nothing(cluster):
    image = [flag for flag in RUN if not flag.startswith("--source")] + ["--image=mine:1"]
    cluster.run(*image, "--", "eval")
    pod = container(cluster.manifest()[1])
    assert pod["image"] == "mine:1"
    (cluster.folder / "calls").unlink()
    jft_python(cluster.folder / "bin" / "python")
    env = cluster.env() | {each["name"]: each["value"] for each in pod["env"]}
    subprocess.run([*pod["command"], *pod["args"]], cwd=REPO, env=env, check=True)
    assert [call[2:] for call in cluster.calls()] == [["-m", "jft.eval", "--wait=3600"]]
