"""Names of functionals, as VASP's manual gives the tags that make them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vasprun import insulator

from mattergen_e.labels.settings import LabelSettings
from mattergen_e.labels.vasp import calculation as vasp

HSE: dict[str, Any] = {"LHFCALC": True, "AEXX": 0.25, "HFSCREEN": 0.2}


def method(folder: Path, titles: dict[str, str] | None = None, incar: Any = None, **parameters: Any) -> dict[str, Any]:
    species, valence = ("Fe", "O"), {"Fe": 8, "O": 6}
    run = insulator(species, valence, (-20.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 2.0), 7, efermi=0.0)
    run.titles, run.parameters, run.incar = titles or {}, parameters, incar or {}
    return vasp.read(run.write(folder), LabelSettings()).record["method"]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({}, "PBE"),
        ({"GGA": "PE"}, "PBE"),
        ({"GGA": "PS"}, "PBEsol"),
        ({"GGA": "RP"}, "RPBE"),
        ({"GGA": "CA"}, "LDA"),
        ({"METAGGA": "R2SCAN"}, "R2SCAN"),
        ({"METAGGA": "SCAN"}, "SCAN"),
        ({"METAGGA": "--"}, "PBE"),
        (HSE, "HSE06"),
        (HSE | {"HFSCREEN": 0.208}, "HSE06"),
        (HSE | {"HFSCREEN": 0.3}, "HSE03"),
        (HSE | {"HFSCREEN": 0.0}, "PBE0"),
        (HSE | {"AEXX": 0.37}, "hybrid PBE (AEXX 0.37, HFSCREEN 0.2)"),
        (HSE | {"GGA": "PS"}, "HSEsol"),
        ({"LHFCALC": True, "AEXX": 1.0}, "HF"),
        ({"LHFCALC": True, "AEXX": 0.2, "GGA": "B3"}, "B3LYP"),
        ({"IVDW": 11}, "PBE-D3"),
        ({"IVDW": 12}, "PBE-D3(BJ)"),
        ({"IVDW": 0}, "PBE"),
        ({"GGA": "RE", "LUSE_VDW": True}, "vdW-DF"),
        ({"GGA": "MK", "LUSE_VDW": True}, "optB86b-vdW"),
        ({"METAGGA": "SCAN", "LUSE_VDW": True}, "SCAN+rVV10"),
    ],
)
def test_names(tmp_path: Path, parameters: dict[str, Any], name: str) -> None:
    assert method(tmp_path, **parameters)["functional"] == name


def test_hybrids_keep_their_numbers(tmp_path: Path) -> None:
    assert method(tmp_path, **HSE)["hybrid"] == {"aexx": 0.25, "hfscreen": 0.2}


def test_potentials_tell_the_functional_where_no_tag_does(tmp_path: Path) -> None:
    assert method(tmp_path / "a", {"Fe": "PAW Fe 01Jan2000", "O": "PAW O 01Jan2000"})["functional"] == "LDA"
    assert method(tmp_path / "b", {"Fe": "PAW_GGA Fe 01Jan2000", "O": "PAW_GGA O 01Jan2000"})["functional"] == "PW91"
    assert method(tmp_path / "c", {"Fe": "PAW Fe 01Jan2000"})["functional"] == "unknown"


def test_u_of_each_element(tmp_path: Path) -> None:
    """VASP prints a part of the lists among its parameters; INCAR has all of them."""
    tags = {"LDAU": True, "LDAUL": [2, -1], "LDAUU": [5.3, 0.0], "LDAUJ": [0.0, 0.0]}
    found = method(tmp_path / "a", incar=tags, LDAU=True, LDAUL=[2], LDAUU=[5.3], LDAUJ=[0.0])
    assert found["functional"] == "PBE+U" and found["u"] == {"Fe": 5.3} and found["u_orbitals"] == {"Fe": "d"}
    found = method(tmp_path / "b", **(tags | {"LDAUJ": [1.3, 0.0]}))
    assert found["u"] == {"Fe": 4.0}
    found = method(tmp_path / "c", **(tags | {"LDAUU": [0.0, 0.0]}))
    assert found["functional"] == "PBE" and "u" not in found


def test_spin_and_the_record_is_plain_json(tmp_path: Path) -> None:
    found = method(tmp_path, GGA="PS")
    assert found["spin"] is False
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(("name", "functional"), [("MgO_vise", "PBEsol"), ("K3Sb_lobsterpy", "PBE")])
def test_real_calculations(vasp_data: Path, name: str, functional: str) -> None:
    """As the INCAR in each vasprun.xml says: GGA = PS, and none with PBE potentials."""
    assert vasp.read(vasp_data / name, LabelSettings()).record["functional"] == functional
