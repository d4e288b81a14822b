"""The hull against numbers by hand, pymatgen's own phase diagram, and itself by another method."""

from __future__ import annotations

import numpy as np
import pytest

from mattergen_e.energies import hull as module
from mattergen_e.energies.hull import Hull, HullError


@pytest.fixture
def binary() -> Hull:
    """Li at -2, O at -5; Li2O at -5 eV/atom (2 eV/atom below the elements), a worse Li2O, and LiO2 on nothing."""
    formulas = ["Li", "O2", "Li2O", "Li2O", "LiO2", "Mg"]
    systems = ["Li", "O", "Li-O", "Li-O", "Li-O", "Mg"]
    return Hull(formulas, systems, [-2.0, -5.0, -5.0, -4.9, -4.0, np.nan])


def test_numbers_of_a_binary_are_those_by_hand(binary: Hull) -> None:
    assert binary.energy_above_hull("Li2O", -5.0) == pytest.approx(0.0)
    assert binary.energy_above_hull("Li2O", -4.8) == pytest.approx(0.2)
    assert binary.energy_above_hull("Li2O", -5.1) == pytest.approx(-0.1)  # below: a new ground state
    # Li2O2 lies between Li2O (3 atoms) and O (1 atom): three quarters of -5 and one of -5
    assert binary.energy_above_hull("Li2O2", -4.9) == pytest.approx(0.1)
    # LiO2 at 1/3 Li: half a Li2O and three halves of O per formula, all at -5
    assert binary.energy_above_hull("LiO2", -4.0) == pytest.approx(1.0)
    assert binary.energy_above_hull("Li", -1.5) == pytest.approx(0.5)
    # formation: -5 - (2/3 * -2 + 1/3 * -5) = -2
    assert binary.formation_energy("Li2O", -5.0) == pytest.approx(-2.0)
    assert binary.formation_energy("O2", -5.0) == pytest.approx(0.0)


def test_elements_alone_make_a_hull() -> None:
    alone = Hull([], [], [], elements={"Li": -2.0, "O": -5.0})
    assert alone.formation_energy("Li2O", -5.0) == pytest.approx(-2.0)
    assert alone.energy_above_hull("Li2O", -5.0) == pytest.approx(-2.0)


def test_an_element_without_energy_has_a_reason(binary: Hull) -> None:
    assert binary.missing("MgXeO") == ["Mg", "Xe"]
    with pytest.raises(HullError, match="of the element Mg, Xe") as caught:
        binary.energy_above_hull("MgXeO", -5.0)
    assert caught.value.reason == "missing_element"
    with pytest.raises(HullError, match="no finite number") as caught:
        binary.formation_energy("Li2O", float("nan"))
    assert caught.value.reason == "no_energy"


def test_further_elements_complete_the_hull_and_only_lower_it() -> None:
    hull = Hull(["Li", "Li2O"], ["Li", "Li-O"], [-2.0, -5.0], elements={"O": -5.0, "Li": -1.0})
    assert hull.elements == {"Li": -2.0, "O": -5.0}
    assert hull.energy_above_hull("Li2O", -4.8) == pytest.approx(0.2)
    assert Hull(["Li"], ["Li"], [-2.0], elements={"Li": -2.5}).energy_above_hull("Li", -2.0) == pytest.approx(0.5)


def made_up(n_elements: int, n_entries: int, seed: int) -> tuple[list[str], list[str], list[float]]:
    from pymatgen.core import Composition

    rng = np.random.default_rng(seed)
    symbols = ["Li", "Mg", "O", "S", "Ti", "Zn", "Cl"][:n_elements]
    formulas, systems, energies = list(symbols), list(symbols), [float(e) for e in rng.uniform(-5, -1, n_elements)]
    for _ in range(n_entries):
        chosen = rng.choice(n_elements, size=rng.integers(2, n_elements + 1), replace=False)
        composition = Composition({symbols[i]: int(rng.integers(1, 4)) for i in chosen})
        formulas.append(composition.reduced_formula)
        systems.append(composition.chemical_system)
        energies.append(float(rng.uniform(-6, -2)))
    return formulas, systems, energies


def test_numbers_are_those_of_pymatgen() -> None:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    formulas, systems, energies = made_up(4, 60, 0)
    entries = [PDEntry(Composition(f), e * Composition(f).num_atoms) for f, e in zip(formulas, energies, strict=True)]
    diagram, hull = PhaseDiagram(entries), Hull(formulas, systems, energies)
    distances = [hull.energy_above_hull(f, e) for f, e in zip(formulas, energies, strict=True)]
    np.testing.assert_allclose(distances, [diagram.get_e_above_hull(entry) for entry in entries], atol=1e-9)
    assert max(distances) > 0.1 and min(distances) == pytest.approx(0.0, abs=1e-9)
    formed = [hull.formation_energy(f, e) for f, e in zip(formulas, energies, strict=True)]
    np.testing.assert_allclose(formed, [diagram.get_form_energy_per_atom(entry) for entry in entries], atol=1e-9)
    new = PDEntry(Composition("LiMgOS"), -40.0)
    below = diagram.get_e_above_hull(new, allow_negative=True, check_stable=False)
    assert hull.energy_above_hull("LiMgOS", -10.0) == pytest.approx(below) and below < -1


def test_linear_programming_gives_the_same_hull(monkeypatch: pytest.MonkeyPatch) -> None:
    formulas, systems, energies = made_up(5, 80, 1)
    by_diagram = Hull(formulas, systems, energies)
    expected = [by_diagram.hull_energy(f) for f in formulas]
    assert by_diagram._diagrams
    monkeypatch.setattr(module, "MOST_ELEMENTS", 1)
    by_programme = Hull(formulas, systems, energies)
    np.testing.assert_allclose([by_programme.hull_energy(f) for f in formulas], expected, atol=1e-8)
    assert not by_programme._diagrams


def test_many_elements_do_not_take_for_ever() -> None:
    from pymatgen.core import Element

    symbols = [Element.from_Z(z).symbol for z in range(1, 21)]
    hull = Hull(symbols, symbols, -np.arange(1.0, 21.0))
    assert hull.energy_above_hull("".join(symbols), -10.0) == pytest.approx(0.5)  # mean of 1 to 20 is 10.5


def test_memory_is_bounded() -> None:
    formulas, systems, energies = made_up(5, 40, 2)
    hull = Hull(formulas, systems, energies, kept=2)
    for formula in formulas:
        hull.hull_energy(formula)
    assert len(hull._diagrams) == 2


def test_crystals_of_the_real_set_lie_where_materials_project_says(real_data) -> None:
    """Formation energies of the file are relative to elements at zero: the hull is made of them alone."""
    import pandas as pd
    from pymatgen.core import Composition

    table = pd.read_csv(real_data / "mp_structures.csv.gz", usecols=["reduced_formula", "formation_energy_per_atom"])
    elements = {"Na", "Mg", "Al", "O", "Si"}
    inside = [set(Composition(f).get_el_amt_dict()) <= elements for f in table.reduced_formula]
    table = table[inside].dropna()
    systems = [Composition(f).chemical_system for f in table.reduced_formula]
    hull = Hull(table.reduced_formula.to_numpy(dtype=str), systems, table.formation_energy_per_atom,
                elements=dict.fromkeys(elements, 0.0))  # fmt: skip
    assert hull.energy_above_hull("MgO", hull.hull_energy("MgO")) == 0.0
    assert hull.hull_energy("MgO") == pytest.approx(-3.05, abs=0.1)  # experiment: -601.6 kJ/mol = -3.12 eV/atom
    spinel = hull.hull_energy("MgAl2O4")
    assert spinel <= (2 * hull.hull_energy("MgO") + 5 * hull.hull_energy("Al2O3")) / 7 + 1e-9
