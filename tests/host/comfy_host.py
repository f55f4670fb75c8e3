"""A real ComfyUI with this pack in it, for tests: `ComfyHost` is the process, `ComfyClient` talks to it.

Where it comes from: COMFYUI_DIR (else ~/ComfyUI) is a checkout of ComfyUI; COMFYUI_PYTHON (else its venv,
else the running interpreter) has its requirements; COMFYUI_ARGS (else --cpu) are more command line flags;
COMFYUI_PACK_NAME is the name of our folder there, which people may change.
The checkout is only read: models, inputs, outputs and settings live in a folder of the test run.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import websocket

PACK_NAME = os.environ.get("COMFYUI_PACK_NAME", "ComfyUI-CREPS")
START_TIMEOUT_S = 180
RUN_TIMEOUT_S = 600
_TEXT = (3).to_bytes(4, "big")  # the kind of a binary message
NO_HOST = (
    "no ComfyUI found: set COMFYUI_DIR to a checkout of https://github.com/comfyanonymous/ComfyUI (0.33.0 or "
    "later), and COMFYUI_PYTHON to an interpreter with its requirements (else the checkout's venv/bin/python)"
)


def find_comfyui() -> Path | None:
    """The checkout to test with; None if there is none. A wrong COMFYUI_DIR is an error, not an absence."""
    named = os.environ.get("COMFYUI_DIR")
    folder = Path(named or "~/ComfyUI").expanduser().absolute()
    if (folder / "main.py").is_file():
        return folder
    if named:
        raise FileNotFoundError(f"COMFYUI_DIR={named} has no main.py")
    return None


def find_python(comfyui: Path) -> str:
    """The interpreter that runs `comfyui`."""
    venvs = [comfyui / name / "bin" / "python" for name in ("venv", ".venv")]
    return os.environ.get("COMFYUI_PYTHON") or next((str(p) for p in venvs if p.is_file()), sys.executable)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class HostError(RuntimeError):
    """ComfyUI did not start, or refused a prompt."""


class ComfyHost:
    """Context manager: ComfyUI with the pack at `pack`, its data below `base`, on a free local port."""

    def __init__(self, comfyui: Path, pack: Path, base: Path) -> None:
        self.base = base
        self.address = f"127.0.0.1:{free_port()}"
        self.startup_log = ""
        self._log = base / "comfyui.log"
        (base / "custom_nodes").mkdir(parents=True)  # ComfyUI does not start without it
        (base / "custom_nodes" / PACK_NAME).symlink_to(pack, target_is_directory=True)
        port = self.address.rpartition(":")[2]
        self._command = [
            *(find_python(comfyui), str(comfyui / "main.py")),
            *("--listen", "127.0.0.1", "--port", port, "--base-directory", str(base)),
            *("--database-url", "sqlite:///:memory:", "--disable-api-nodes", "--disable-auto-launch"),
            *("--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK_NAME),
            *shlex.split(os.environ.get("COMFYUI_ARGS", "--cpu")),
        ]

    def __enter__(self) -> ComfyHost:
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                log = self._log.read_text(errors="replace")
                raise HostError(f"{shlex.join(self._command)} did not start:\n{log[-4000:]}")
            time.sleep(0.1)
        self.startup_log = self._log.read_text(errors="replace")
        return self

    def _answers(self) -> bool:
        try:
            return urlopen(f"http://{self.address}/system_stats", timeout=5).status == 200
        except (URLError, ConnectionError, TimeoutError):
            return False

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class ComfyClient:
    """Context manager: a client of a ComfyUI server, with the websocket that tells how its prompts go."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._id = uuid.uuid4().hex
        self.texts: list[str] = []
        """What nodes said of their progress."""

    def __enter__(self) -> ComfyClient:
        self._socket = websocket.create_connection(f"ws://{self.address}/ws?clientId={self._id}", timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def get(self, path: str, **query: str) -> Any:
        """GET a JSON answer."""
        return json.loads(self._request(path, query=query))

    def _request(self, path: str, body: Any = None, query: dict[str, str] | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        url = f"http://{self.address}/{path}?{urlencode(query or {})}"
        with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=60) as answer:
            return answer.read()

    def queue(self, prompt: dict[str, Any]) -> str:
        """Queue a prompt in API format; returns its id. Raises HostError if any node of it is refused."""
        try:
            answer = json.loads(self._request("prompt", {"prompt": prompt, "client_id": self._id}))
        except HTTPError as error:
            raise HostError(error.read().decode()) from error
        if answer["node_errors"]:  # also in an accepted prompt: then only some of its outputs would run
            raise HostError(json.dumps(answer["node_errors"]))
        return answer["prompt_id"]

    def events(self, prompt_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(type, data) of each message about a queued prompt, up to its end; then its history is complete."""
        deadline = time.monotonic() + RUN_TIMEOUT_S
        while True:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            message = self._socket.recv()
            if isinstance(message, bytes):  # a preview picture, or a text on a node
                if message.startswith(_TEXT):
                    length = int.from_bytes(message[4:8], "big")
                    self.texts.append(message[8 + length :].decode())
                continue
            event = json.loads(message)
            kind, data = event["type"], event["data"]
            if data.get("prompt_id") != prompt_id:
                continue
            yield kind, data
            if kind == "executing" and data["node"] is None:
                return

    def history(self, prompt_id: str) -> dict[str, Any]:
        """The record of a finished prompt: `outputs` by node, `status` with its messages."""
        return self.get(f"history/{prompt_id}")[prompt_id]

    def run(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """Queue a prompt, wait for its end, return its history."""
        prompt_id = self.queue(prompt)
        for _ in self.events(prompt_id):
            pass
        return self.history(prompt_id)

    def view(self, file: dict[str, str]) -> bytes:
        """A file named in a history, such as one of `outputs[node]["images"]`."""
        return self._request("view", query={key: file[key] for key in ("filename", "subfolder", "type")})

    def interrupt(self) -> None:
        """Stop the prompt that is running."""
        self._request("interrupt", {})
