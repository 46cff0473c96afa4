"""What auto means, as a pure function of what a machine can do."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from yolact.inference.engine_choice import Capabilities, choose_engine

PLAIN_CPU = Capabilities("cpu", fast_bfloat16=False, amx=False, compiler=True, openvino=False)
AVX512_CPU = replace(PLAIN_CPU, fast_bfloat16=True)
AMX_CPU = replace(AVX512_CPU, amx=True)
AMPERE = Capabilities("cuda", fast_bfloat16=True, amx=False, compiler=True, openvino=True)
TURING = replace(AMPERE, fast_bfloat16=False)


@pytest.mark.parametrize(
    ("here", "precision", "engine"),
    [
        (PLAIN_CPU, "float32", "eager"),
        (replace(PLAIN_CPU, openvino=True), "float32", "openvino"),
        (AVX512_CPU, "bfloat16", "eager"),
        (replace(AVX512_CPU, openvino=True), "bfloat16", "openvino"),
        (AMX_CPU, "bfloat16", "compiled"),
        (replace(AMX_CPU, openvino=True), "bfloat16", "compiled"),
        (replace(AMX_CPU, openvino=True, compiler=False), "bfloat16", "openvino"),
        (replace(AMX_CPU, compiler=False), "bfloat16", "eager"),
        (AMPERE, "bfloat16", "compiled"),
        (replace(AMPERE, compiler=False), "bfloat16", "eager"),
        (TURING, "float16", "compiled"),
    ],
)
def test_auto(here, precision, engine):
    choice = choose_engine("auto", "auto", here)
    assert (choice.precision, choice.engine) == (precision, engine)
    assert choice.reason


@pytest.mark.parametrize("here", [PLAIN_CPU, AVX512_CPU, AMX_CPU, AMPERE, replace(PLAIN_CPU, openvino=True)])
def test_float32_by_name_is_the_exact_path_everywhere(here):
    choice = choose_engine("float32", "auto", here)
    assert (choice.precision, choice.engine) == ("float32", "eager")


def test_auto_never_is_int8():
    for device in ("cpu", "cuda"):
        for bfloat16, amx, compiler, openvino in itertools.product((True, False), repeat=4):
            here = Capabilities(device, bfloat16, amx, compiler, openvino)
            assert choose_engine("auto", "auto", here).precision != "int8"


def test_what_is_named_is_kept():
    here = replace(AMX_CPU, openvino=True)
    for precision, engine in (("float32", "openvino"), ("float32", "compiled"), ("bfloat16", "eager")):
        choice = choose_engine(precision, engine, here)
        assert (choice.precision, choice.engine) == (precision, engine)
    assert choose_engine("int8", "auto", here).engine == "openvino"
    assert choose_engine("auto", "eager", here).engine == "eager"


@pytest.mark.parametrize(
    ("precision", "engine", "here", "message"),
    [
        ("int4", "auto", PLAIN_CPU, "precision 'int4' is not one of auto, float32"),
        ("auto", "tensorrt", PLAIN_CPU, "engine 'tensorrt' is not one of auto, eager"),
        ("int8", "compiled", replace(PLAIN_CPU, openvino=True), "by openvino alone"),
        ("int8", "auto", PLAIN_CPU, r"yolact-ray\[openvino\]"),
        ("int8", "auto", AMPERE, "not on cuda"),
        ("float16", "openvino", replace(PLAIN_CPU, openvino=True), "no float16"),
        ("bfloat16", "openvino", replace(PLAIN_CPU, openvino=True), "this CPU has none"),
        ("bfloat16", "compiled", replace(AMX_CPU, compiler=False), "C\\+\\+ compiler"),
    ],
)
def test_what_cannot_run_is_refused_with_a_remedy(precision, engine, here, message):
    with pytest.raises(ValueError, match=message):
        choose_engine(precision, engine, here)
