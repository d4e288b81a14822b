"""Downloads of the Materials Project: the client is replaced by one that serves real calculations from files."""

from __future__ import annotations

import inspect
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Structure
from pymatgen.io.vasp import Chgcar, Vasprun

from mattergen_e.crystals.findings import LabelError
from mattergen_e.errors import UserError
from mattergen_e.labels.materials_project import client as materials_project_client
from mattergen_e.labels.materials_project import files
from mattergen_e.labels.materials_project import source as mp
from mattergen_e.labels.settings import BaderSettings, LabelSettings
from mattergen_e.labels.vasp import valence as vasp_valence

REPOSITORY = Path(__file__).resolve().parents[3]
SETTINGS = LabelSettings()
pytest.importorskip("mp_api", reason="mp-api is not installed: install mattergen-e[labels]")
ALL = mp.Query(ids=("mp-1265", "mp-149", "mp-10175", "mp-2955"))


@pytest.fixture(scope="session")
def runs(real_data: Path) -> dict[str, Any]:
    """MgO and NaMgF3, K3Sb and Si by the ids that they have in the Materials Project."""
    folder = real_data / "vasp"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mgo, k3sb = (Vasprun(str(folder / f / "vasprun.xml.gz")) for f in ("MgO_vise", "K3Sb_lobsterpy"))
        si, namgf3 = (Chgcar.from_file(str(folder / f)) for f in ("Si_aiida/CHGCAR.gz", "NaMgF3_pydefect/CHG.gz"))
    return {"mp-1265": mgo, "mp-10175": k3sb, "mp-149": si, "mp-2955": namgf3}


POTCARS = {
    "mp-149": ["PAW_PBE Si 05Jan2001"],
    "mp-2955": ["PAW_PBE Na 08Apr2002", "PAW_PBE Mg 13Apr2007", "PAW_PBE F 08Apr2002"],
}


class FilesRester:
    """Has the methods of mp-api's MPRester that are used, with its signatures, and gives real calculations."""

    current_db_version = "2026.04.13"

    def __init__(self, runs: dict[str, Any]) -> None:
        self.runs, self.asked = runs, []
        self.broken: set[str] = set()
        self.materials = SimpleNamespace(summary=SimpleNamespace(search=self.search))

    def structure(self, name: str) -> Structure:
        run = self.runs[name]
        return run.final_structure if isinstance(run, Vasprun) else run.structure

    def search(self, **criteria: Any) -> list[Any]:
        from emmet.core.summary import SummaryDoc
        from mp_api.client.routes.materials.summary import SummaryRester

        known = inspect.signature(SummaryRester.search).parameters
        assert set(criteria) <= set(known), "an argument that mp-api does not have"
        assert set(criteria["fields"]) <= set(SummaryDoc.model_fields)
        assert criteria["all_fields"] is False
        self.asked.append(("search", criteria))
        names = criteria.get("material_ids", list(self.runs))
        if "search" in self.broken:
            raise ConnectionError("Max retries exceeded")
        values = {"band_gap": 4.44, "formation_energy_per_atom": -3.0, "energy_above_hull": None}
        documents = [{"material_id": n, "structure": self.structure(n), **values} for n in names if n in self.runs]
        return [SimpleNamespace(**{key: d[key] for key in criteria["fields"]}) for d in documents]

    def get_dos_by_material_id(self, material_id: str, load_projections: bool = False) -> Any:
        from emmet.core.band_theory import ElectronicDos
        from mp_api.client.core.exceptions import MPRestError

        self.asked.append(("dos", material_id))
        if material_id in self.broken:
            raise ConnectionError("Read timed out")
        run = self.runs[material_id]
        if not isinstance(run, Vasprun):
            raise MPRestError(f"No density of states data found for {material_id}")
        document = ElectronicDos.from_pmg(run.complete_dos)
        return document.to_pmg() if load_projections else run.tdos

    def get_charge_density_from_material_id(self, material_id: str, inc_task_doc: bool = False) -> Any:
        from emmet.core.vasp.calculation import CalculationInput, PotcarSpec

        self.asked.append(("charge_density", material_id))
        run = self.runs[material_id]
        if isinstance(run, Vasprun):
            return None
        specs = [PotcarSpec.model_validate({"titel": titel}) for titel in POTCARS[material_id]]
        inputs = CalculationInput.model_validate({"potcar_spec": specs})
        return run, SimpleNamespace(task_id="mp-1", run_type="GGA", vasp_version="5.3.2", input=inputs)


@pytest.fixture
def rester(runs: dict[str, Any]) -> FilesRester:
    return FilesRester(runs)


@pytest.fixture(scope="session")
def downloads(runs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four materials with all parts."""
    out = tmp_path_factory.mktemp("downloads") / "mp"
    assert mp.fetch(ALL, out, dos=True, charge_density=True, interval=0, rester=FilesRester(runs)) == 4
    return out


def test_the_client_that_stands_in_has_the_signatures_of_mp_api():
    from mp_api.client import MPRester

    for name in ("get_dos_by_material_id", "get_charge_density_from_material_id"):
        ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (FilesRester, MPRester))
        assert list(ours) == list(theirs)


def test_what_is_stored(downloads):
    assert mp.is_download(downloads)
    assert not mp.is_download(downloads.parent)
    assert [p.name for p in mp.find(downloads)] == ["mp-10175", "mp-1265", "mp-149", "mp-2955"]
    assert not list(downloads.rglob("*.tmp"))
    stored = {str(p.relative_to(downloads)) for p in downloads.rglob("mp-*/*")}
    assert {"mp-1265/dos.npz", "mp-1265/charge_density.absent", "mp-149/dos.absent"} <= stored
    assert {"mp-149/charge_density.npz", "mp-149/charge_density.json"} <= stored
    fields = json.loads((downloads / "mp-149/charge_density.json").read_text())
    assert fields == {"task_id": "mp-1", "run_type": "GGA", "vasp": "5.3.2", "potcar": ["Si"]}
    assert "No density of states" in json.loads((downloads / "mp-149/dos.absent").read_text())["why"]


def test_a_dos_comes_back_as_it_was(downloads, runs):
    """Against sums over the sites and orbitals of pymatgen's own objects."""
    for name in ("mp-1265", "mp-10175"):
        found, dos = mp.calculation(downloads / name, SETTINGS), runs[name].complete_dos
        assert found.dos is not None and found.dos.sites is not None
        np.testing.assert_allclose(found.dos.energies, dos.energies - dos.efermi)
        np.testing.assert_allclose(found.dos.total, sum(dos.densities.values()))
        for values, site in zip(found.dos.sites, found.structure, strict=True):
            of_site = dos.get_site_dos(site)
            np.testing.assert_allclose(values, sum(of_site.densities.values()), atol=1e-12)
        assert found.structure == runs[name].final_structure
        assert found.properties == {"dft_band_gap": 4.44, "formation_energy_per_atom": -3.0}
        assert found.record["database_version"] == "2026.04.13"
        sentence = "the DOS holds 30.2 electrons up to the Fermi energy, the potentials 32"
        warned = [("electrons_differ", sentence, False)] if name == "mp-10175" else []  # what its narrow bands lost
        assert (found.id, [(f.reason, f.sentence, f.refused) for f in found.findings]) == (name, warned)


def test_the_states_below_the_fermi_energy_are_the_valence_electrons(downloads):
    """MgO: 2 of Mg and 6 of O; K3Sb: 1 of each K and 5 of Sb, K 3s and 3p below the window."""
    for name, electrons, bottom in (("mp-1265", 8, -20), ("mp-10175", 8, -12)):
        dos = mp.calculation(downloads / name, SETTINGS).dos
        assert dos is not None
        below = (dos.energies <= 0.05) & (dos.energies >= bottom)
        assert np.trapz(dos.total[below], dos.energies[below]) == pytest.approx(electrons, abs=0.05)


def test_the_valence_density_of_silicon_is_refused(downloads):
    found = mp.calculation(downloads / "mp-149", SETTINGS)
    assert found.bader_charge is None
    assert [(f.reason, f.refused) for f in found.findings] == [("no_core_density", False), ("maximum_off_atom", True)]


def test_cations_without_a_maximum_are_refused(downloads):
    """With cores NaMgF3 gives Na +0.83, Mg +1.66, F -0.83 e; the valence density alone +0.99, +2.00 and -1.00 e."""
    found = mp.calculation(downloads / "mp-2955", SETTINGS)
    assert found.bader_charge is None
    assert [(f.reason, f.refused) for f in found.findings] == [("no_core_density", False), ("maximum_off_atom", True)]
    assert "(Mg) keeps 0.0% of its valence electrons" in found.findings[-1].sentence
    assert found.record["potcar"] == ["Na", "Mg", "F"]


def test_ions_with_semicore_electrons_pass_with_a_warning(tmp_path):
    """KF of two Gaussians that hardly overlap, with 8.1 electrons on K (9 in the atom) and 7.9 on F (7)."""
    cell = 5.34 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    crystal, width, points = Structure(cell, ["K", "F"], [[0, 0, 0], [0.5, 0.5, 0.5]]), 0.4, 40
    frac = np.stack(np.meshgrid(*3 * [np.arange(points) / points], indexing="ij"), axis=-1)
    images = np.stack(np.meshgrid(*3 * [np.arange(-2, 3)], indexing="ij"), axis=-1).reshape(-1, 3)
    density = np.zeros(3 * (points,))
    for site, electrons in zip(crystal, (8.1, 7.9), strict=True):
        for image in images:
            squares = (((frac - site.frac_coords - image) @ cell) ** 2).sum(axis=-1)
            density += electrons * np.exp(-squares / (2 * width**2)) / (2 * np.pi * width**2) ** 1.5
    folder = tmp_path / "mp-463"
    folder.mkdir()
    files.write_material(folder, {"material_id": "mp-463", "structure": crystal.as_dict(), "band_gap": 6.0}, None)
    files.write_density(
        folder, Chgcar(crystal, {"total": density * crystal.volume}), {"input": {"potcar": ["K_sv", "F"]}}
    )
    found = mp.calculation(folder, SETTINGS)
    assert found.bader_charge is not None, [f.sentence for f in found.findings]
    np.testing.assert_allclose(found.bader_charge, [0.9, -0.9], atol=0.01)
    assert [(f.reason, f.refused) for f in found.findings] == [("no_core_density", False)]
    assert found.record["bader"]["valence"] == [("F", 7.0), ("K", 9.0)]
    assert found.properties == {"dft_band_gap": 6.0}


@pytest.mark.parametrize("folder", ["MgO_vise", "K3Sb_lobsterpy", "Si_aiida"])
def test_valences_are_those_of_the_real_potentials(real_data, folder):
    path = real_data / "vasp" / folder / "vasprun.xml.gz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = Vasprun(str(path), parse_dos=False, parse_eigen=False)
    potcars = list(dict.fromkeys(title.split()[1] for title in run.potcar_symbols))
    expected = vasp_valence.of_vasprun(path, len(run.final_structure))
    assert expected is not None
    np.testing.assert_array_equal(files.valence_electrons(run.final_structure, potcars), expected)


def test_potentials_that_do_not_fit_the_density_are_refused(downloads, tmp_path):
    """Na_pv and Mg_pv treat 6 electrons more each: 144 instead of 96 in the four formula units."""
    folder = copy(downloads / "mp-2955", tmp_path)
    task = json.loads((folder / files.TASK).read_text())
    (folder / files.TASK).write_text(json.dumps(task | {"potcar": ["Na_pv", "Mg_pv", "F"]}))
    finding = mp.calculation(folder, SETTINGS).findings[-1]
    assert (finding.reason, finding.refused) == ("electrons_missing", True)
    assert "96.000 electrons, the atoms have 144" in finding.sentence


def test_unknown_valences(downloads, tmp_path, runs):
    rocksalt = runs["mp-1265"].final_structure
    for potcars in ([], ["Mg"], ["Mg", "O_of_my_own"]):
        with pytest.raises(LabelError, match="valence of (Mg|O)") as caught:
            files.valence_electrons(rocksalt, potcars)
        assert caught.value.reason == "no_valence"
    folder = copy(downloads / "mp-149", tmp_path)
    task = json.loads((folder / files.TASK).read_text())
    (folder / files.TASK).write_text(json.dumps(task | {"potcar": None}))
    guessed = mp.calculation(folder, SETTINGS).findings
    assert [f.reason for f in guessed] == ["no_core_density", "valence_guessed", "maximum_off_atom"]
    given = mp.calculation(folder, LabelSettings(bader=BaderSettings(valence={"Si": 12.0}))).findings
    assert given[-1].refused


def copy(folder: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, to / folder.name))


def test_a_rerun_asks_for_nothing(tmp_path, rester):
    for _ in range(2):
        assert mp.fetch(ALL, tmp_path / "mp", dos=True, charge_density=True, interval=0, rester=rester) == 4
        assert len(rester.asked) == 1 + 4 + 4
    mp.fetch(ALL, tmp_path / "mp", dos=True, charge_density=True, interval=0, rester=None)


def test_parts_come_only_when_asked_for_and_later_too(tmp_path, rester):
    query = mp.Query(ids=("mp-1265",))
    mp.fetch(query, tmp_path, interval=0, rester=rester)
    assert [kind for kind, _ in rester.asked] == ["search"]
    found = mp.calculation(tmp_path / "mp-1265", SETTINGS)
    assert (found.dos, found.bader_charge, found.findings) == (None, None, [])
    mp.fetch(query, tmp_path, dos=True, interval=0, rester=rester)
    assert [kind for kind, _ in rester.asked] == ["search", "dos"]
    assert mp.calculation(tmp_path / "mp-1265", SETTINGS).dos is not None


def test_a_query_is_asked_once_with_the_names_of_mp_api(tmp_path, rester):
    query = mp.Query(
        chemsys=("Mg-O",), elements=("O",), num_sites=(1, 20), band_gap=(0.5, None), energy_above_hull=(None, 0.1),
        formation_energy=(-5, 0), is_stable=True, is_metal=False, theoretical=False, num_elements=(2, 3),
        exclude_elements=("H",), formula=("MgO",),
    )  # fmt: skip
    assert mp.fetch(query, tmp_path, interval=0, rester=rester) == 4
    asked = rester.asked[0][1]
    assert (asked["num_sites"], asked["band_gap"], asked["chemsys"]) == ((1, 20), (0.5, None), ["Mg-O"])
    assert (asked["is_metal"], asked["deprecated"], asked["include_gnome"]) == (False, False, False)
    assert asked["fields"] == ["material_id"]
    assert len(rester.asked) == 2
    assert mp.fetch(query, tmp_path, interval=0, rester=rester) == 4
    assert len(rester.asked) == 2
    (listed,) = (tmp_path / "lists").iterdir()
    listed.write_text('{"ids": ["../../x"]}')
    with pytest.raises(UserError, match="is not an id of the Materials Project"):
        mp.fetch(query, tmp_path, interval=0, rester=rester)
    listed.write_text("{")
    with pytest.raises(UserError, match="is damaged .* remove it"):
        mp.fetch(query, tmp_path, interval=0, rester=rester)


def test_a_kill_at_any_moment_loses_what_is_in_flight_only(tmp_path, runs, downloads):
    """The process ends at the n-th request, for every n; the next one goes on, and the result is the same."""

    class Dying(FilesRester):
        life = 0

        def _live(self) -> None:
            self.life -= 1
            if self.life < 0:
                raise KeyboardInterrupt

        def search(self, **criteria):
            self._live()
            return super().search(**criteria)

        def get_dos_by_material_id(self, material_id, load_projections=False):
            self._live()
            return super().get_dos_by_material_id(material_id, load_projections)

    rester = Dying({name: runs[name] for name in ("mp-1265", "mp-10175")})
    query, rounds = mp.Query(ids=("mp-1265", "mp-10175")), 0
    while True:
        rounds += 1
        rester.life = 1
        try:
            assert mp.fetch(query, tmp_path, dos=True, interval=0, rester=rester) == 2
            break
        except KeyboardInterrupt:
            assert rounds < 10
    assert rounds == 3
    for name in query.ids:
        ours, whole = (mp.calculation(root / name, SETTINGS).dos for root in (tmp_path, downloads))
        assert ours is not None and whole is not None and ours.sites is not None and whole.sites is not None
        np.testing.assert_array_equal(ours.sites, whole.sites)


def test_what_fails_is_named_and_the_rest_is_stored(tmp_path, rester):
    rester.broken = {"mp-1265"}
    with pytest.raises(UserError, match=r"1 downloads of 2 .*mp-1265: Read timed out.*run the same command again"):
        mp.fetch(mp.Query(ids=("mp-1265", "mp-10175")), tmp_path, dos=True, interval=0, rester=rester)
    assert (tmp_path / "mp-10175/dos.npz").is_file()
    assert not list((tmp_path / "mp-1265").glob("dos.*"))
    rester.broken = set()
    mp.fetch(mp.Query(ids=("mp-1265",)), tmp_path, dos=True, interval=0, rester=rester)
    assert (tmp_path / "mp-1265/dos.npz").is_file()


def test_a_dead_network_ends_it_soon(tmp_path, rester):
    rester.broken = set(ALL.ids)
    with pytest.raises(UserError, match="gave no answer .*Read timed out.*goes on where"):
        mp.fetch(ALL, tmp_path, dos=True, interval=0, rester=rester)
    assert [kind for kind, _ in rester.asked] == ["search", "dos", "dos", "dos"]
    rester.broken = {"search"}
    with pytest.raises(UserError, match="gave no answer .*Max retries"):
        mp.fetch(ALL, tmp_path / "other", interval=0, rester=rester)


def test_requests_keep_their_distance(tmp_path, rester, monkeypatch):
    clock, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(materials_project_client.time, "sleep", sleep)
    monkeypatch.setattr(materials_project_client.time, "monotonic", lambda: clock[0])
    mp.fetch(mp.Query(ids=("mp-1265", "mp-10175")), tmp_path, dos=True, interval=2.5, rester=rester)
    assert waits == [0.0, 2.5, 2.5]


def test_unknown_ids_are_told(tmp_path, rester):
    with pytest.warns(mp.UnknownIds, match="does not know 1 of 2 ids, e.g. mp-7"):
        assert mp.fetch(mp.Query(ids=("mp-7", "mp-1265")), tmp_path, interval=0, rester=rester) == 1
    with pytest.raises(UserError, match="not an id"):
        mp.fetch(mp.Query(ids=("../mp-7",)), tmp_path, interval=0, rester=rester)
    with pytest.raises(UserError, match="Nothing to fetch"):
        mp.fetch(mp.Query(), tmp_path, interval=0, rester=rester)


@pytest.fixture
def no_key(monkeypatch):
    import pymatgen.core

    monkeypatch.delenv("MP_API_KEY", raising=False)
    monkeypatch.delitem(pymatgen.core.SETTINGS, "PMG_MAPI_KEY", raising=False)


def test_a_missing_key_is_one_sentence(tmp_path, no_key, monkeypatch):
    with pytest.raises(UserError, match="no key of the Materials Project: get one at .*MP_API_KEY") as caught:
        mp.fetch(ALL, tmp_path, interval=0)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("MP_API_KEY", "short")
    with pytest.raises(UserError, match="not valid .*32 characters"):
        mp.fetch(ALL, tmp_path, interval=0)


def test_no_network_is_one_sentence(tmp_path, no_key, monkeypatch):
    import mp_api.client

    def unreachable(**_: Any) -> None:
        raise ConnectionError("Failed to resolve 'api.materialsproject.org'")

    monkeypatch.setenv("MP_API_KEY", 32 * "a")
    monkeypatch.setattr(mp_api.client, "MPRester", unreachable)
    with pytest.raises(UserError, match="gave no answer .*Failed to resolve") as caught:
        mp.fetch(ALL, tmp_path, interval=0)
    assert 32 * "a" not in str(caught.value)


def test_a_folder_that_cannot_be_written_to(tmp_path, rester):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to"):
        mp.fetch(ALL, tmp_path / "file", interval=0, rester=rester)


def test_a_dos_of_another_crystal_is_refused(downloads, tmp_path):
    folder = copy(downloads / "mp-1265", tmp_path)
    (folder / files.DOS).write_bytes((downloads / "mp-10175" / files.DOS).read_bytes())
    with pytest.raises(LabelError, match="dos.npz is of K3Sb, but material.json of MgO") as caught:
        mp.calculation(folder, SETTINGS)
    assert caught.value.reason == "other_structure"


def test_a_dos_without_its_cell_is_not_given_per_atom(downloads, tmp_path, runs):
    folder = copy(downloads / "mp-1265", tmp_path)
    files.write_dos(folder, runs["mp-1265"].tdos)
    found = mp.calculation(folder, SETTINGS)
    assert found.dos is None
    assert [(f.part, f.reason, f.refused) for f in found.findings] == [("total_dos", "other_structure", True)]


def test_a_density_in_another_cell_is_not_mixed_with_the_dos(downloads, tmp_path, runs):
    folder = copy(downloads / "mp-1265", tmp_path)
    doubled = runs["mp-1265"].final_structure * (2, 1, 1)
    density = Chgcar(doubled, {"total": np.random.default_rng(0).random((12, 8, 8))})
    files.write_density(folder, density, None)
    found = mp.calculation(folder, SETTINGS)
    assert found.dos is not None and len(found.structure) == 2
    assert [(f.part, f.reason, f.refused) for f in found.findings][-1] == ("bader", "other_structure", True)


def test_spins_are_summed(tmp_path, runs):
    from pymatgen.electronic_structure.core import Spin
    from pymatgen.electronic_structure.dos import CompleteDos, Dos

    dos = runs["mp-1265"].complete_dos
    parts = {Spin.up: 0.7, Spin.down: 0.3}
    total = Dos(dos.efermi, dos.energies, {spin: share * dos.densities[Spin.up] for spin, share in parts.items()})
    sites = {
        site: {o: {spin: share * d[Spin.up] for spin, share in parts.items()} for o, d in dos.pdos[site].items()}
        for site in dos.structure
    }
    files.write_dos(tmp_path, CompleteDos(dos.structure, total, sites))
    found, structure, _ = files.read_dos(tmp_path)
    assert structure == dos.structure and found.sites is not None
    np.testing.assert_allclose(found.total, dos.densities[Spin.up])
    np.testing.assert_allclose(found.sites[0], dos.get_site_dos(dos.structure[0]).densities[Spin.up], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("material.json", b"", "damaged_file"),
        ("material.json", b"[]", "damaged_file"),
        ("material.json", b'{"structure": {"@module": "os", "@class": "system"}}', "bad_structure"),
        ("material.json", None, "missing_file"),
        ("dos.npz", b"PK", "damaged_file"),
    ],
)
def test_damage_has_a_reason(downloads, tmp_path, name, content, reason):
    folder = copy(downloads / "mp-1265", tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(LabelError) as caught:
        mp.calculation(folder, SETTINGS)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"efermi": None}, "no_fermi_energy"),
        ({"efermi": np.array(np.nan)}, "no_fermi_energy"),
        ({"energies": None}, "damaged_file"),
        ({"densities": np.ones((1, 3))}, "bad_dos"),
        ({"pdos": np.ones((2, 9, 1, 3))}, "bad_dos"),
        ({"cell": None}, "bad_dos"),
        ({"numbers": None}, "damaged_file"),
        ({"numbers": np.array([12, 300])}, "bad_structure"),
    ],
)
def test_a_wrong_dos_has_a_reason(downloads, tmp_path, changes, reason):
    folder = copy(downloads / "mp-1265", tmp_path)
    with np.load(folder / files.DOS) as archive:
        arrays = {key: archive[key] for key in archive.files} | changes
    np.savez(folder / files.DOS, **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(LabelError) as caught:
        mp.calculation(folder, SETTINGS)
    assert caught.value.reason == reason


@pytest.mark.parametrize(("factor", "reason"), [(71.8 / 60.0, "bad_dos"), (0.5, "bad_dos"), (0.99, None)])
def test_a_dos_that_does_not_hold_its_electrons_is_refused(downloads, tmp_path, factor, reason):
    """As V2O5 by tetrahedra, whose O 2p bands hold 71.8 of 60.0 electrons: the gap stays, spectra do not."""
    folder = copy(downloads / "mp-1265", tmp_path)
    with np.load(folder / files.DOS) as stored:
        arrays = dict(stored)
    np.savez(folder / files.DOS, **(arrays | {"densities": arrays["densities"] * factor}))
    found = mp.calculation(folder, SETTINGS)
    assert (found.dos is None) == (reason is not None) and found.properties["dft_band_gap"] == 4.44
    assert {(f.part, f.reason) for f in found.findings} == (
        {("total_dos", reason), ("atomic_dos", reason)} if reason else set()
    )


def test_electrons_of_the_potentials_that_the_task_names(downloads, tmp_path, runs):
    """MgO with Mg_pv holds 14 electrons, with Mg 8: half of a DOS is refused whichever were taken."""
    from mattergen_e.labels.materials_project.electrons import check_electrons
    from mattergen_e.spectra.raw import RawDos

    structure = runs["mp-1265"].final_structure
    energies = np.linspace(-20, 20, 401)

    def dos(electrons: float) -> RawDos:
        return RawDos(energies, electrons / 0.8 * ((energies > -10) & (energies < -9.15)).astype(float))

    assert check_electrons(dos(14), structure) == check_electrons(dos(8), structure, ["Mg", "O"]) == []
    (warned,) = check_electrons(dos(14.7), structure, ["Mg_pv", "O"])
    assert warned.reason == "electrons_differ" and not warned.refused
    for electrons in (11, 17):
        with pytest.raises(LabelError, match="electrons up to the Fermi energy, the potentials 14"):
            check_electrons(dos(electrons), structure, ["Mg_pv", "O"])


def test_the_functional_is_that_of_the_task(downloads):
    found = mp.calculation(downloads / "mp-2955", SETTINGS)
    assert found.record["method"] == {"functional": "PBE"}  # GGA, as the Materials Project calls it
