"""The constraints file: what it may say, and one sentence for everything else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from mattergen.common.data.num_atoms_distribution import NUM_ATOMS_DISTRIBUTIONS

from mattergen_e.errors import UserError
from mattergen_e.generation.conditions import ConditionLoader
from mattergen_e.generation.constraints.reading import read_constraints
from mattergen_e.spectra.curves import Curve


@pytest.fixture
def write(tmp_path):
    def write(content, name="constraints.yaml"):
        path = tmp_path / name
        path.write_text(json.dumps(content) if name.endswith("json") else yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def spectra(tmp_path):
    """Two curves on 40 points from -15 to 5 eV."""
    energies = np.linspace(-15, 5, 40)
    dos = np.stack([np.exp(-((energies + c) ** 2)) for c in (1, 4)])
    np.savez(tmp_path / "spectra.npz", energies=energies, dos=dos, names=np.array(["Ni", "Au"]))
    return tmp_path / "spectra.npz"


def template(tmp_path, solids, name="NaCl"):
    solids[name].copy(properties={}).remove_site_property("bader_charge")
    solids[name].to(filename=str(tmp_path / f"{name}.cif"), fmt="cif")
    return f"{name}.cif"


def test_all_of_it(write, spectra):
    content = {
        "num_atoms": [4, 6],
        "sites": [
            {"site": 1, "element": "Co", "bader_charge": 1.2, "atomic_dos": {"file": "spectra.npz", "curve": "Au"}},
            {"site": 0, "dos": [0.1, 0.2]},
        ],
    }
    for name in ("a.yaml", "a.json"):
        read = read_constraints(write(content, name))
        assert read.numbers == {1: 27}
        assert read.values["bader_charge"] == {1: [1.2]} and read.values["dos"] == {0: [0.1, 0.2]}
        curve = read.values["atomic_dos"][1]
        assert isinstance(curve, Curve) and curve.energies[curve.dos.argmax()] == pytest.approx(-4.0, abs=0.3)
        assert read.settings()["content"]["sites"][0]["element"] == "Co"
        assert read.template is None


def test_template(write, tmp_path, solids):
    name = template(tmp_path, solids)
    read = read_constraints(write({"template": {"structure": name, "time": 0.2}}))
    assert [s.specie.symbol for s in read.template] == ["Na", "Cl"]
    assert [a.tolist() for a in read.sizes("ALEX_MP_20")] == [[2], [1.0]]


def test_one_digest_for_one_content(write, spectra, tmp_path):
    content = {"sites": [{"site": 0, "atomic_dos": {"file": "spectra.npz", "curve": 0}}]}
    first = read_constraints(write(content)).sha256
    assert read_constraints(write(content, "other.json")).sha256 == first
    assert read_constraints(write(content | {"num_atoms": 3})).sha256 != first
    arrays = dict(np.load(spectra))
    np.savez(spectra, **{**arrays, "dos": arrays["dos"] * 1.1})
    assert read_constraints(write(content)).sha256 != first


# -- errors -----------------------------------------------------------------------------------------------------------

SITE = {"site": 0, "element": "O"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "holds no keys|asks for nothing"),
        ({"site": []}, "site: there is no such key"),
        ({"sites": [{"site": 0}]}, "site 0 asks for nothing: give an element, a position or a d"),
        ({"sites": [SITE, {"site": 0, "bader_charge": 1.0}]}, "site 0 is given twice"),
        ({"sites": [{"site": -1, "element": "O"}]}, "sites.0.site: .*greater than or equal to 0"),
        ({"sites": [{"site": 0, "element": "cobalt"}]}, "'cobalt' is no symbol of an element"),
        ({"sites": [{"site": 3, "element": "Xq"}]}, "site 3: 'Xq' is no element"),
        ({"sites": [{"site": 0, "element": "He"}]}, "He is an element that MatterGen does not generate"),
        ({"sites": [{"site": 0, "bader_charge": "much"}]}, "sites.0.bader_charge"),
        ({"sites": [{"site": 0, "bader_charge": float("nan")}]}, "sites.0.bader_charge.*finite number"),
        ({"num_atoms": 2, "sites": [{"site": 2, "element": "O"}]}, "site 2 is constrained, but num_atoms gives .* 2 s"),
        ({"num_atoms": [8, 2], "sites": [{"site": 2, "element": "O"}]}, "numbered from 0 to 1"),
        ({"num_atoms": {8: 0.5, 1: 0.5}, "sites": [{"site": 1, "element": "O"}]}, "crystals of 1 sites"),
        ({"num_atoms": []}, "num_atoms is empty"),
        ({"num_atoms": 0}, "num_atoms"),
        ({"num_atoms": {4: -1.0}}, "num_atoms"),
        ({"num_atoms": "MP_21"}, "num_atoms is 'MP_21': use one of"),
        (
            {"num_atoms": 2, "sites": [{"site": 0, "bader_charge": 1.0}, {"site": 1, "bader_charge": -0.8}]},
            r"the bader_charge values of all 2 sites sum to \+0.2 e, but a crystal is neutral",
        ),
        ({"template": {"structure": "none.cif", "time": 0.2}}, "none.cif does not exist"),
        ({"template": {"structure": "none.cif", "time": 200}}, "template.time: .*less than or equal to 1"),
        ({"sites": [{"site": 0, "atomic_dos": {"file": "none.npz"}}]}, "none.npz does not exist"),
        ({"sites": [{"site": 0, "atomic_dos": {"file": "spectra.npz"}}]}, r"holds 2 curves \(Ni, Au\): name one"),
        ({"sites": [{"site": 0, "atomic_dos": {"file": "spectra.npz", "curve": "Co"}}]}, "name one of them"),
        ({"sites": [{"site": 0, "atomic_dos": {"file": "spectra.npz", "curve": 2}}]}, "the curves 0 to 1, not 2"),
        ({"sites": [{"site": 0, "atomic_dos": {"file": "."}}]}, "is a folder: for a split of a cache give"),
    ],
)
def test_what_is_refused(write, spectra, content, words):
    with pytest.raises(UserError, match=words) as caught:
        read_constraints(write(content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{a: [", "just words", "!!python/object/apply:os.system [ls]", "- 1", "\x00"])
def test_what_is_no_constraints_file(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="the constraints file"):
        read_constraints(path)
    with pytest.raises(UserError, match="does not exist: give its absolute path"):
        read_constraints(tmp_path / "other.yaml")


def test_empty_spectrum(write, spectra):
    np.savez(spectra, energies=np.linspace(-15, 5, 40), dos=np.zeros(40))
    with pytest.raises(UserError, match="zero everywhere"):
        read_constraints(write({"sites": [{"site": 0, "atomic_dos": {"file": "spectra.npz"}}]}))


def test_template_and_sites_that_contradict_it(write, tmp_path, solids):
    start = {"structure": template(tmp_path, solids), "time": 0.5}
    with pytest.raises(UserError, match="num_atoms contradicts the template, which has 2 sites"):
        read_constraints(write({"template": start, "num_atoms": [2, 3]}))
    with pytest.raises(UserError, match="site 2 is constrained, but the template gives crystals of 2 sites"):
        read_constraints(write({"template": start, "sites": [{"site": 2, "element": "O"}]}))
    charges = [{"site": 0, "bader_charge": 1.0}, {"site": 1, "bader_charge": -0.5}]
    with pytest.raises(UserError, match=r"sum to \+0.5 e"):
        read_constraints(write({"template": start, "sites": charges}))


def test_spectrum_of_a_site_of_a_cache(write, write_dos_cache, tmp_path):
    split = write_dos_cache(tmp_path / "cache") / "test"
    source = {"file": str(split), "structure": "test-MgO", "site": 1}
    found = read_constraints(write({"sites": [{"site": 0, "atomic_dos": source}]})).values["atomic_dos"][0]
    names, sizes = np.load(split / "structure_id.npy").tolist(), np.load(split / "num_atoms.npy")
    row = int(sizes[: names.index("test-MgO")].sum()) + 1
    assert np.array_equal(found.dos, np.load(split / "sites" / "atomic_dos.npy")[row])
    for change, words in ({"structure": "x"}, "no crystal 'x'"), ({"site": 9}, "ends with site 1"):
        with pytest.raises(UserError, match=words):
            read_constraints(write({"sites": [{"site": 0, "atomic_dos": source | change}]}))


# -- the number of sites ----------------------------------------------------------------------------------------------


def loader(path, n=4000, **settings):
    return ConditionLoader(n, 10, constraints=str(path), seed=0, **settings)


@pytest.mark.parametrize(
    ("told", "shares"),
    [(5, {5: 1.0}), ([4, 5, 6, 7], dict.fromkeys((4, 5, 6, 7), 0.25)), ({4: 3.0, 8: 1.0}, {4: 0.75, 8: 0.25})],
)
def test_sizes_come_as_asked(write, told, shares):
    sizes = loader(write({"num_atoms": told})).num_atoms()
    assert {int(n) for n in sizes} == set(shares)
    for n, share in shares.items():
        assert np.mean(sizes == n) == pytest.approx(share, abs=0.03)


def test_distribution_without_the_sizes_that_are_too_small(write):
    whole = NUM_ATOMS_DISTRIBUTIONS["ALEX_MP_20"]
    for content, least in (
        ({"sites": [{"site": 4, "element": "O"}]}, 5),
        ({"sites": [{"site": 0, "bader_charge": 1.0}]}, 2),  # a site alone could not be neutral
        ({"sites": [{"site": 0, "bader_charge": 0.0}]}, 1),
    ):
        sizes = loader(write(content)).num_atoms()
        kept = {n: w for n, w in whole.items() if n >= least}
        assert set(sizes.tolist()) <= set(kept)
        most = max(kept, key=lambda n: kept[n])
        assert np.mean(sizes == most) == pytest.approx(kept[most] / sum(kept.values()), abs=0.03)


def test_without_a_file_it_is_the_loader_that_it_was():
    found = ConditionLoader(50, 10, constraints=None, seed=3)
    sizes, weights = zip(*NUM_ATOMS_DISTRIBUTIONS["ALEX_MP_20"].items(), strict=True)
    expected = np.random.default_rng(3).choice(sizes, 50, p=np.array(weights) / sum(weights))
    assert found.num_atoms().tolist() == expected.tolist() and "constraints" not in found.settings()


def test_constraints_are_settings_of_the_run(write):
    path = write({"num_atoms": 5, "sites": [SITE]})
    assert loader(path).settings()["constraints"] == read_constraints(path).settings()


def test_loader_that_contradicts_the_file(write):
    with pytest.raises(UserError, match="both tell the number of sites"):
        loader(write({"num_atoms": 5}), num_atoms=5)
    with pytest.raises(UserError, match="condition_loader_partial.num_atoms gives crystals of 2 sites"):
        loader(write({"sites": [{"site": 2, "element": "O"}]}), num_atoms=2)
    with pytest.raises(UserError, match="site 0 is O, but the chemical system asked for is Li-F"):
        loader(write({"sites": [SITE]}), properties={"chemical_system": "Li-F"})
    assert set(loader(write({"sites": [SITE]}), num_atoms=2).num_atoms().tolist()) == {2}
