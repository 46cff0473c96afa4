"""Faults for tests: every Python process that has this folder on its PYTHONPATH loads it, children and Ray workers too.

YOLACT_TEST_POISON=TEXT   an image whose bytes hold TEXT kills the process that decodes it
YOLACT_TEST_SLOW=SECONDS  every commit takes so much longer, so that a test can strike in the middle of a run
YOLACT_TEST_RETRY=N:S     storage operations give up after N attempts or S seconds
YOLACT_TEST_LEASE=R:L:T   a lease is renewed every R seconds, lost after L, and taken over after T
YOLACT_TEST_FIRST=N       the first generation of a lake has N images, so that the others are indexed beside labelling
YOLACT_TEST_CONTROL=DIR   processes report for duty there, and the one that reaches the moment that DIR/strike.json
                          names says so and stands still until the blow has fallen (see `support.fault_moments`)
"""

import functools
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time


class _Patch(importlib.abc.MetaPathFinder):
    """Patches one module right after it was imported, and only where it is imported at all."""

    def __init__(self, module, patch):
        self.module, self.patch = module, patch

    def find_spec(self, name, path, target=None):
        if name != self.module:
            return None
        # it stays in the list: a thread that goes through sys.meta_path meanwhile would miss the finder after it
        self.module = None
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self.patch(module)

        spec.loader.exec_module = exec_module
        return spec


def _poison(stages):
    text, decode = os.environ["YOLACT_TEST_POISON"].encode(), stages.decode_image

    def decode_image(data, **limits):
        if text in data:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(data, **limits)

    stages.decode_image = decode_image


def _slow(storage):
    seconds, put = float(os.environ["YOLACT_TEST_SLOW"]), storage.put_atomic

    def put_atomic(uri, data, **options):
        if "/staging/" in uri:
            time.sleep(seconds)
        put(uri, data, **options)

    storage.put_atomic = put_atomic


def _short_retries(retry):
    attempts, seconds = os.environ["YOLACT_TEST_RETRY"].split(":")
    init = retry.Retry.__init__
    init.__defaults__ = (int(attempts), float(seconds), *init.__defaults__[2:])


def _quick_lease(lease):
    seconds = [float(value) for value in os.environ["YOLACT_TEST_LEASE"].split(":")]
    lease.RENEW_SECONDS, lease.LOST_SECONDS, lease.TIMEOUT_SECONDS = seconds


def _small_generations(indexing):
    indexing.FIRST_IMAGES = int(os.environ["YOLACT_TEST_FIRST"])


#: nobody stands still for longer, whatever becomes of the test
_HOLD_SECONDS = 40.0


def _control(name):
    return os.path.join(os.environ["YOLACT_TEST_CONTROL"], name)


def _put(name, text=""):
    with open(_control(f"{name}.{os.getpid()}.tmp"), "w") as file:
        file.write(text)
    os.rename(file.name, _control(name))


def _claim(name):
    try:
        os.close(os.open(_control(name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _reach(moment):
    """The process that comes to the armed moment as number `after` (from 0) announces itself and waits for the blow."""
    try:
        with open(_control("strike.json")) as file:
            strike = json.load(file)
    except FileNotFoundError:
        return
    if strike["moment"] != moment:
        return
    number = next((i for i in range(strike["after"] + 1) if _claim(f"{strike['id']}-{i}")), None)
    if number != strike["after"]:
        return
    deadline = time.monotonic() + _HOLD_SECONDS
    needed = strike["needs"]
    while needed and time.monotonic() < deadline and not any(n.startswith(needed) for n in os.listdir(_control("."))):
        time.sleep(0.02)
    _put(f"{strike['id']}-reached", str(os.getpid()))
    while time.monotonic() < deadline and os.path.exists(_control("strike.json")):
        time.sleep(0.02)


def _at(module, name, moment, *, role=None, where=None, argument=0, afterwards=False):
    """Makes `module.name` a moment: reached before it runs, or after; `where` must stand in that positional argument.

    Who calls it has a `role`, under which the test finds its process.
    """
    call = getattr(module, name)

    @functools.wraps(call)
    def with_moment(*arguments, **options):
        if role and not afterwards:
            _put(f"{role}-{os.getpid()}")
        here = where is None or where in arguments[argument]
        if here and not afterwards:
            _reach(moment)
        result = call(*arguments, **options)
        if role and afterwards:
            _put(f"{role}-{os.getpid()}")
        if here and afterwards:
            _reach(moment)
        return result

    setattr(module, name, with_moment)


def _lake_moments(lake):
    _at(lake, "index_source", "index")
    _at(lake, "fetch_rows", "fetch", role="decode-worker")


def _decode_moment(stages):
    _at(stages, "decode_image", "decode")


def _storage_moments(storage):
    _at(storage, "put_atomic", "commit", where="/staging/")
    # the part stands in labels/, and its staged objects are not yet removed
    _at(storage, "upload_file", "publish", where="/labels/part-", argument=1, afterwards=True)


def _predictor_moment(predictor):
    _at(predictor.Predictor, "predict_prepared", "inference")
    _at(predictor.Predictor, "__init__", None, role="model-actor", afterwards=True)


if "YOLACT_TEST_CONTROL" in os.environ:
    sys.meta_path.insert(0, _Patch("jobs.lake", _lake_moments))
    sys.meta_path.insert(0, _Patch("jobs.label.pipeline.stages", _decode_moment))
    sys.meta_path.insert(0, _Patch("jobs.storage", _storage_moments))
    sys.meta_path.insert(0, _Patch("yolact.inference.predictor", _predictor_moment))
if "YOLACT_TEST_LEASE" in os.environ:
    sys.meta_path.insert(0, _Patch("jobs.label.lease", _quick_lease))
if "YOLACT_TEST_FIRST" in os.environ:
    sys.meta_path.insert(0, _Patch("jobs.label.manifest.indexing", _small_generations))
if "YOLACT_TEST_RETRY" in os.environ:
    sys.meta_path.insert(0, _Patch("jobs.storage.retry", _short_retries))
if "YOLACT_TEST_POISON" in os.environ:
    sys.meta_path.insert(0, _Patch("jobs.label.pipeline.stages", _poison))
if "YOLACT_TEST_SLOW" in os.environ:
    sys.meta_path.insert(0, _Patch("jobs.storage", _slow))
