"""Hashes that tell whether two artefacts are the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from mattergen_e import provenance


def test_hash_of_weights_depends_on_names_shapes_types_and_values_only() -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
    same = {"b": torch.tensor([1, 2]), "a": torch.arange(6.0).reshape(3, 2).t().contiguous().t().t().contiguous()}
    assert provenance.hash_weights(state) != provenance.hash_weights(same)  # a transposed matrix is another one
    assert provenance.hash_weights(state) == provenance.hash_weights({"b": state["b"], "a": state["a"].clone()})
    for changed in (
        {"a": state["a"] + 1, "b": state["b"]},
        {"a": state["a"].reshape(3, 2), "b": state["b"]},
        {"a": state["a"].double(), "b": state["b"]},
        {"c": state["a"], "b": state["b"]},
    ):
        assert provenance.hash_weights(changed) != provenance.hash_weights(state)


def test_hash_of_a_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert provenance.hash_file(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()


def test_versions_name_what_shapes_results() -> None:
    found = provenance.versions()
    assert {"python", "mattergen-e", "mattergen", "torch", "numpy"} <= set(found)
    assert provenance.versions(["no-such-package", "numpy"]) == {"numpy": np.__version__}
