"""Faults for tests: every Python process that has this folder on its PYTHONPATH loads it, children and Ray workers too.

YOLACT_TEST_POISON=TEXT   an image whose bytes hold TEXT kills the process that decodes it
YOLACT_TEST_SLOW=SECONDS  every commit takes so much longer, so that a test can strike in the middle of a run
"""

import importlib.abc
import importlib.util
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
        sys.meta_path.remove(self)
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


if "YOLACT_TEST_POISON" in os.environ:
    sys.meta_path.insert(0, _Patch("jobs.labelling.stages", _poison))
if "YOLACT_TEST_SLOW" in os.environ:
    sys.meta_path.insert(0, _Patch("jobs.storage", _slow))
