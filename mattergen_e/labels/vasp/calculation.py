"""VASP: from the folder of a finished calculation to a `Calculation`.

The structure, the DOS and the band gap come from vasprun.xml. Bader charges integrate CHGCAR (or CHG, which has fewer
digits) in the basins of AECCAR0 + AECCAR2, the sum of core and valence; that sum itself must not be integrated on
VASP's grid, which is too coarse for the cores. What cannot be used is refused with a reason and the rest goes on.

emmet-core's `TaskDoc.from_directory` is not used: it needs OUTCAR and CONTCAR beside vasprun.xml, reads files that no
label needs, and keeps neither the integrated DOS nor the valences. It reads with the same pymatgen parser.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.checks import EntryError, check_cell, check_distances
from mattergen_e.crystals.findings import Finding, LabelError, nothing_left
from mattergen_e.labels import bader
from mattergen_e.labels.method import KEY
from mattergen_e.labels.record import Calculation
from mattergen_e.labels.settings import LabelSettings
from mattergen_e.labels.vasp import bands
from mattergen_e.labels.vasp import dos as vasp_dos
from mattergen_e.labels.vasp import valence as vasp_valence
from mattergen_e.labels.vasp.files import (
    VALENCES,
    Density,
    check_same,
    choose_files,
    is_empty,
    read_density,
    sha256,
)
from mattergen_e.labels.vasp.method import of_vasprun
from mattergen_e.labels.vasp.vasprun import check_dos, read_vasprun

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.labels.vasp.parser import Parser

_PARAMETERS = {"ENCUT": "encut_ev", "ISMEAR": "ismear", "SIGMA": "sigma_ev", "ISPIN": "ispin", "NELECT": "nelect"}
#: A Fermi energy that was moved by more is told, eV.
FERMI_MOVED = 1e-6


def read(folder: Path, settings: LabelSettings, material_id: str | None = None) -> Calculation:
    """Read one calculation.

    Args:
        folder: With vasprun.xml, or with the densities alone; see `vasp_files` for names.
        settings: Checks of the charges, and whether unconverged calculations are taken.
        material_id: Its id; the folder's name by default.

    Returns:
        The calculation; parts that were refused are named in its findings.

    Raises:
        LabelError: If it cannot be used as a whole: a damaged vasprun.xml, a non-collinear or unconverged calculation,
            files of two crystals, or nothing left (no_labels).
    """
    folder = Path(folder)
    files = choose_files(folder)
    vasprun = None
    if "vasprun.xml" in files:
        vasprun = read_vasprun(files["vasprun.xml"], allow_unconverged=settings.allow_unconverged)
    findings: list[Finding] = []
    density = None if vasprun is not None else _first_density(files, findings)
    structure = _plain(_last_structure(vasprun) if density is None else density.structure)
    result = Calculation(material_id or folder.resolve().name, str(folder), structure, record={"code": "VASP"})
    if vasprun is not None:
        result.record |= _record(vasprun)
        _add_bands(result, vasprun)
    result.findings += findings
    valence = _known_valence(files, structure) if _has_density(files) else None
    del vasprun
    _add_charges(result, files, valence, density, settings)
    if result.dos is None and result.bader_charge is None and not result.properties:
        raise LabelError("no_labels", nothing_left(result.findings, "it holds neither a DOS nor a density"))
    result.inputs = {path.name: sha256(path) for name, path in files.items() if name not in VALENCES}
    return result


def _plain(structure: Structure) -> Structure:
    """The cell alone, checked for a physical size."""
    from pymatgen.core import Structure

    species = [site.specie.symbol for site in structure]
    plain = Structure(structure.lattice, species, structure.frac_coords)
    try:
        check_cell(plain)
        check_distances(plain)
    except EntryError as error:
        raise LabelError("bad_structure", error.sentence) from None
    return plain


# -- vasprun.xml ------------------------------------------------------------------------------------------------------


def _last_structure(vasprun: Parser | None) -> Structure:
    """Structure of the last step, which the DOS and the density belong to; finalpos may be one step ahead.

    Steps of GW and of responses have none: the ions have not moved.
    """
    assert vasprun is not None
    structure = vasprun.ionic_steps[-1].get("structure")
    return vasprun.final_structure if structure is None else structure


def _record(vasprun: Parser) -> dict[str, Any]:
    parameters = vasprun.incar | vasprun.parameters
    record: dict[str, Any] = {"version": str(vasprun.vasp_version).strip(), "potentials": list(vasprun.potcar_symbols)}
    for name, key in _PARAMETERS.items():
        value = parameters.get(name, vasprun.parameters.get("ENMAX") if name == "ENCUT" else None)
        if isinstance(value, int | float):
            record[key] = value
    method = of_vasprun(vasprun)
    record |= {"functional": method.functional, KEY: method.record()}
    record["kpoints"] = len(vasprun.actual_kpoints)
    record["converged"] = vasprun.converged_electronic
    return record


def _add_bands(result: Calculation, vasprun: Parser) -> None:
    """DOS and band gap, as far as they can be used: one that cannot does not take the others along."""
    findings = result.findings
    if not vasprun.converged_electronic:
        findings.append(Finding("calculation", "not_converged", "the electronic steps did not converge; taken anyway"))
    try:
        result.properties["dft_band_gap"] = bands.band_gap(vasprun)
    except LabelError as error:
        findings.append(Finding("band_gap", error.reason, error.sentence, refused=True))
    try:
        check_dos(vasprun)
        efermi = bands.fermi_energy(vasprun)
        _tell_fermi_energy(result, vasprun, efermi)
        result.dos = vasp_dos.raw_dos(vasprun, efermi)
    except LabelError as error:
        findings.append(Finding("total_dos", error.reason, error.sentence, refused=True))
        return
    try:
        result.dos, warned = vasp_dos.with_sites(result.dos, vasprun, efermi)
        findings += warned
    except LabelError as error:
        findings.append(Finding("atomic_dos", error.reason, error.sentence, refused=True))


def _tell_fermi_energy(result: Calculation, vasprun: Parser, efermi: float) -> None:
    given = float(vasprun.efermi or 0)
    result.record |= {"fermi_energy_ev": round(efermi, 6), "fermi_energy_vasp_ev": given}
    if abs(efermi - given) > FERMI_MOVED:
        sentence = f"VASP's Fermi energy of {given:.4f} eV lies outside the gap; its middle, {efermi:.4f} eV, is taken"
        result.findings.append(Finding("calculation", "fermi_energy_moved", sentence))


# -- densities --------------------------------------------------------------------------------------------------------


def _has_density(files: dict[str, Path]) -> bool:
    return "CHGCAR" in files or "CHG" in files


def _first_density(files: dict[str, Path], findings: list[Finding]) -> Density:
    """The density to integrate, where it is the only source of the structure."""
    if not _has_density(files):
        raise LabelError("missing_file", "neither vasprun.xml nor CHGCAR nor CHG is there")
    density = _read_charge(files, findings)
    if not density.named:
        raise LabelError("bad_structure", f"{density.name} does not name the elements, and there is no vasprun.xml")
    return density


def _read_charge(files: dict[str, Path], findings: list[Finding]) -> Density:
    """CHGCAR, or CHG where there is none or an empty one (VASP's LCHARG, a full disk); the other leaves `files`."""
    if "CHGCAR" in files and "CHG" in files and is_empty(files["CHGCAR"]):
        name = files.pop("CHGCAR").name
        findings.append(Finding("bader", "empty_file", f"{name} is empty, so {files['CHG'].name} is taken"))
    density = read_density(files.get("CHGCAR", files.get("CHG", Path())))
    if "CHGCAR" not in files:
        sentence = f"{density.name} is integrated, which has five digits; CHGCAR has eleven"
        findings.append(Finding("bader", "few_digits", sentence))
    return density


def _known_valence(files: dict[str, Path], structure: Structure) -> NDArray[np.float64] | None:
    """(n_sites,) valence electrons, from the first file that tells them; None if none does."""
    if "vasprun.xml" in files:
        found = vasp_valence.of_vasprun(files["vasprun.xml"], len(structure))
        if found is not None:
            return found
    for name in VALENCES:
        if name in files:
            try:
                found = vasp_valence.of_text(files[name], structure)
            except LabelError:
                continue
            if found is not None:
                return found
    return None


def _add_charges(
    result: Calculation,
    files: dict[str, Path],
    valence: NDArray[np.float64] | None,
    density: Density | None,
    settings: LabelSettings,
) -> None:
    """Bader charges, as far as they can be used."""
    if not _has_density(files):
        refused = "AECCAR0" in files or "AECCAR2" in files
        reason = "missing_file" if refused else "no_density"
        sentence = "there is neither CHGCAR nor CHG, so there are no Bader charges"
        result.findings.append(Finding("bader", reason, sentence, refused))
        return
    try:
        charge = density or _read_charge(files, result.findings)
        if density is None:
            check_same(result.structure, charge.structure, charge.name, named=charge.named)
        if valence is None:
            valence = _given_valence(result, charge, settings)
        _partition(result, files, charge, valence, settings)
    except LabelError as error:
        if error.reason in ("other_structure", "not_collinear"):
            raise
        result.findings.append(Finding("bader", error.reason, error.sentence, refused=True))


def _partition(
    result: Calculation,
    files: dict[str, Path],
    charge: Density,
    valence: NDArray[np.float64],
    settings: LabelSettings,
) -> None:
    missing = [name for name in ("AECCAR0", "AECCAR2") if name not in files]
    if missing:
        sentence = f"{' and '.join(missing)} missing: {charge.name} alone has no cores, and may have maxima at bonds"
        result.findings.append(Finding("bader", "no_core_density", sentence))
        reference = None
    else:
        reference = _core_and_valence(files, charge)
    charges, findings = bader.partition(result.structure, charge.values, reference, valence, settings.bader)
    result.findings += findings
    result.bader_charge = charges
    result.record["bader"] = {
        "method": settings.bader.method,
        "baderkit": metadata.version("baderkit"),
        "charge": charge.name,
        "reference": charge.name if missing else "AECCAR0 + AECCAR2",
        "grid": list(charge.values.shape),
        "electrons": round(float(charge.values.mean()), 5),
        "valence": sorted({(s.specie.symbol, float(v)) for s, v in zip(result.structure, valence, strict=True)}),
    }


def _core_and_valence(files: dict[str, Path], charge: Density) -> NDArray[np.float64]:
    """AECCAR0 + AECCAR2 on the grid of the charge."""
    total: NDArray[np.float64] | None = None
    for name in ("AECCAR0", "AECCAR2"):
        part = read_density(files[name])
        check_same(charge.structure, part.structure, part.name, named=part.named and charge.named)
        if part.values.shape != charge.values.shape:
            sentence = f"{part.name} has the grid {part.values.shape}, {charge.name} {charge.values.shape}"
            raise LabelError("other_structure", f"{sentence}: they are of two calculations")
        total = part.values if total is None else np.add(total, part.values, out=total)
    assert total is not None
    return total


def _given_valence(result: Calculation, charge: Density, settings: LabelSettings) -> NDArray[np.float64]:
    """(n_sites,) valence electrons by element: from the settings, or the only choice that fits the density."""
    symbols = [site.specie.symbol for site in result.structure]
    known = dict(settings.bader.valence)
    if not set(symbols) <= set(known):
        known |= vasp_valence.guess(
            result.structure, float(charge.values.mean()), settings.bader.neutrality_tolerance, known
        )
        told = ", ".join(f"{symbol} {known[symbol]:g}" for symbol in dict.fromkeys(symbols))
        sentence = f"no file tells the valence electrons; the only choice that fits the density is taken: {told}"
        result.findings.append(Finding("bader", "valence_guessed", sentence))
    return np.array([known[symbol] for symbol in symbols])
