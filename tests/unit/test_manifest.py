"""The baked manifest: what the host writes is what the entrypoint reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainpack_entrypoint.manifest import SCHEMA, Gpu, Manifest, Run
from trainpack_entrypoint.schema import Parameter

_TEXT = st.text(max_size=8)
_TEXTS = st.lists(_TEXT, max_size=3).map(tuple)
_RUNS = st.builds(
    Run,
    script=st.none() | _TEXT,
    module=st.none() | _TEXT,
    launcher=_TEXTS,
    args=_TEXTS,
    arguments=st.sampled_from(["argv", "overrides", "env", "file"]),
    pass_token=st.booleans(),
)
_PARAMETERS = st.dictionaries(_TEXT, st.integers(), max_size=3).map(
    lambda defaults: {name: Parameter(name, type="int", default=value) for name, value in defaults.items()}
)
_MANIFESTS = st.builds(
    Manifest,
    name=_TEXT,
    version=_TEXT,
    run=_RUNS,
    trainpack=_TEXT,
    python=_TEXT,
    lock=_TEXT,
    revision=st.none() | _TEXT,
    parameters=_PARAMETERS,
    labelmap=st.none() | st.dictionaries(_TEXT, _TEXT, max_size=3),
    data=st.dictionaries(_TEXT, _TEXT, max_size=3),
    outputs_exclude=_TEXTS,
    gpu=st.none() | st.builds(Gpu, cuda=_TEXT, driver=_TEXT),
    gpus=st.none() | _TEXT,
    packages=st.dictionaries(_TEXT, _TEXT, max_size=3),
    schema=st.just(SCHEMA),
)


@given(manifest=_MANIFESTS)
def test_a_manifest_survives_json(manifest: Manifest) -> None:
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def a_document(**changes: Any) -> dict[str, Any]:
    manifest = Manifest("n", "1", Run("train.py"), "0.1", "3.11", "lock", None)
    return manifest.to_json() | changes


def test_a_manifest_of_a_newer_contract_is_refused() -> None:
    with pytest.raises(ValueError, match=f"schema {SCHEMA + 1} is newer than this entrypoint's {SCHEMA}"):
        Manifest.from_json(a_document(schema=SCHEMA + 1))


def test_a_manifest_from_before_gpus_and_packages_is_read() -> None:
    document = a_document()
    del document["gpus"], document["packages"]
    manifest = Manifest.from_json(document)
    assert (manifest.gpus, manifest.packages) == (None, {})


def test_the_document_is_plain_json_data() -> None:
    document = a_document()
    assert document["run"] == {
        "script": "train.py",
        "module": None,
        "launcher": (),
        "args": (),
        "arguments": "argv",
        "pass_token": True,
    }
    assert document["gpu"] is None
    assert document["parameters"] == {}
