"""Kubo and Pinfold as processes that a benchmark starts, measures and stops.

Each node has a temporary folder of its own and listens on loopback, on ports that the system chooses.
What a process has used is read from /proc: this runs on Linux alone.
"""

import contextlib
import http.client
import json
import os
import pathlib
import random
import statistics
import subprocess
import tempfile
import threading
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
START_MAX_S = 60
WORK_MAX_S = 900
TICKS = os.sysconf("SC_CLK_TCK")


class Node:
    """A running process, its folder, and its resource usage."""

    def __init__(self, name, folder, command, env, ready):
        self.name, self.folder = name, folder
        self.log = open(folder / "log", "wb")
        self.process = subprocess.Popen(
            command, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        give_up = threading.Timer(START_MAX_S, self.process.kill)
        give_up.start()
        self.hello = next((line for line in self.process.stdout if ready in line), None)
        give_up.cancel()
        if self.hello is None:
            raise SystemExit(f"{name} did not start:\n{(folder / 'log').read_text()[-4000:]}")
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self):
        for _ in self.process.stdout:
            pass

    def cpu_seconds(self):
        """User and system time of all its threads, in seconds."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak_mb(self):
        """Peak memory since its start, in MB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(START_MAX_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Kubo(Node):
    """A daemon with default settings and the import profile of Pinfold, without any public service."""

    def __init__(self, folder):
        self.binary = kubo_binary()
        self.env = {"IPFS_PATH": str(folder / "repo")}
        self._run("init", "--profile=test,unixfs-v1-2025", "--empty-repo")
        path = folder / "repo" / "config"
        config = json.loads(path.read_text())
        for key, value in json.loads((ROOT / "ci/kubo.json").read_text()).items():
            *sections, last = key.split(".")
            at = config
            for section in sections:
                if not isinstance(at.get(section), dict):
                    at[section] = {}
                at = at[section]
            at[last] = value
        path.write_text(json.dumps(config))
        super().__init__("Kubo", folder, [self.binary, "daemon"], self.env, "Daemon is ready")
        _, _, host, _, port = (folder / "repo" / "api").read_text().strip().split("/")
        self.api = f"http://{host}:{port}"
        self.address = json.loads(self._run("id"))["Addresses"][0]

    def _run(self, *arguments):
        env = {**os.environ, **self.env}
        return subprocess.run(
            [self.binary, *arguments], env=env, check=True, capture_output=True, text=True, timeout=WORK_MAX_S
        ).stdout.strip()

    def add(self, path):
        return self._run("add", "-Qr", str(path))

    def meet(self, address):
        self._run("swarm", "connect", address)

    def pin(self, cid):
        status, body = post(f"{self.api}/api/v0/pin/add?progress=false&arg={cid}")
        if status != 200:
            raise SystemExit(f"Kubo did not pin: {status} {body}")

    def upload_command(self):
        return [f"{self.api}/api/v0/add?quieter=true&progress=false"]

    @staticmethod
    def cid_of_upload(text):
        return json.loads(text.splitlines()[-1])["Hash"]


class Pinfold(Node):
    """A server with its own data folder; its first account has a plan with high limits."""

    def __init__(self, folder, peer=None):
        command = [pinfold_binary(), "serve", "--json", "--listen", "127.0.0.1:0", "--swarm-listen", "/ip4/127.0.0.1/tcp/0"]
        command += ["--no-bootstrap", *(["--peer", peer] if peer else []), "--data-dir", str(folder / "data")]
        super().__init__("Pinfold", folder, command, {}, '"ready"')
        hello = json.loads(self.hello)
        self.url, self.key, self.address = hello["url"].rstrip("/"), hello["firstKey"], hello["addresses"][0]

    def pin(self, cid):
        headers = {"X-API-Key": self.key, "Prefer": "wait=300"}
        status, body = post(f"{self.url}/api/v3/files/pin/{cid}", headers)
        if status not in (200, 201) or json.loads(body)["status"] != "pinned":
            raise SystemExit(f"Pinfold did not pin: {status} {body}")

    def upload_command(self):
        return ["-H", f"X-API-Key: {self.key}", f"{self.url}/api/v3/files"]

    @staticmethod
    def cid_of_upload(text):
        return json.loads(text)["cid"]


def post(url, headers=None):
    """A POST without a body. Returns status and text of the response."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=WORK_MAX_S)
    with contextlib.closing(connection):
        connection.request("POST", url.removeprefix(f"{parts.scheme}://{parts.netloc}"), headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()


def kubo_binary():
    where = subprocess.run([ROOT / "ci/peers", "--where"], check=True, capture_output=True, text=True).stdout.strip()
    found = sorted(pathlib.Path(where).glob("kubo-*/ipfs"))
    if not found:
        raise SystemExit("Kubo is missing: run ci/peers, which installs it")
    return str(found[-1])


def pinfold_binary():
    binary = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "pinfold"
    if not binary.exists():
        raise SystemExit(f"{binary} is missing: run cargo build --release")
    return str(binary)


@contextlib.contextmanager
def fresh(start):
    """A node in a new folder. Both are removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="pinfold-bench-") as folder:
        node = start(pathlib.Path(folder))
        try:
            yield node
        finally:
            node.stop()


def write_file(path, size, seed):
    """Pseudo-random bytes that depend only on seed and size."""
    source = random.Random(seed)
    with open(path, "wb") as file:
        while size > 0:
            size -= file.write(source.randbytes(min(size, 1 << 20)))


def write_files(folder, count, size, seed):
    """`count` files without common blocks."""
    folder.mkdir()
    source = random.Random(seed)
    for number in range(count):
        (folder / f"file-{number:06}").write_bytes(source.randbytes(size))


def machine():
    """One line about the machine of the measurements."""
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return f"{os.cpu_count()} cores, {model}"


def table(unit, rows):
    """A Markdown table of medians. `rows` maps a label to its runs; a run is (rate, CPU seconds …, peak MB). A second CPU
    value is that of the other node. Ratios are relative to the first label."""
    medians = {label: [statistics.median(column) for column in zip(*runs)] for label, runs in rows.items()}
    base = next(iter(medians.values()))
    names = ["CPU s", "sender's CPU s"][: len(base) - 2]
    header = [unit, "ratio", *names, "CPU ratio", "peak MB"]
    lines = ["| | " + " | ".join(header) + " |", "| --- " * (len(header) + 1) + "|"]
    for label, (rate, *cpu, peak) in medians.items():
        seconds = [f"{figure:.1f}" for figure in cpu]
        cells = [f"{rate:,.0f}", f"{rate / base[0]:.2f}", *seconds, f"{cpu[0] / base[1]:.2f}", f"{peak:.0f}"]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    spread = ", ".join(f"{label} {min(run[0] for run in runs):,.0f}–{max(run[0] for run in runs):,.0f}" for label, runs in rows.items())
    return "\n".join(lines) + f"\n\nLowest and highest {unit}: {spread}."
