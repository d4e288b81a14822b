"""Labels that others made: one .npz per crystal, with a manifest.jsonl beside them.

    numbers       (sites,) atomic numbers
    cell          (3, 3) Å, rows are lattice vectors
    frac          (sites, 3) fractional positions
    energy_grid   (points,) eV relative to the Fermi energy, ascending; needed where there is a spectrum
    dos           (points,) states/eV of the cell, spins summed
    pdos          (sites, points) or (sites, orbitals, points) states/eV, spins summed
    bader         (sites,) net charges in e, positive: electrons lost
    complete_to   eV relative to the Fermi energy above which bands are missing
    efermi, n_valence, total_energy, n_kpts, broadening, magmom   one number each, kept in the record

Only the first three are always needed; other arrays are left alone. A line of the manifest may give `material_id` (else
the name of the file is the id), `split`, `complete_to` in eV, `functional` (e.g. PBE) and numbers of the crystal under
any key.

Spectra are kept as they are: projections onto PAW projectors or spheres need not add up to `dos`, and how much of it
they hold is written into the record.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mattergen_e.crystals.checks import EntryError, check_lattice
from mattergen_e.crystals.findings import Finding, LabelError
from mattergen_e.errors import UserError
from mattergen_e.labels import method
from mattergen_e.labels.checks import check_bounds, check_equivalent, check_signs
from mattergen_e.labels.record import Calculation
from mattergen_e.spectra.raw import RawDos

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from mattergen_e.labels.settings import LabelSettings

MANIFEST_NAME = "manifest.jsonl"
ID_KEYS = ("material_id", "id")
SPLITS = ("train", "val", "test")
NUMBERS = ("complete_to", "efermi", "n_valence", "total_energy", "n_kpts", "broadening", "magmom")
WANTED = ("numbers", "cell", "frac", "energy_grid", "dos", "pdos", "bader", *NUMBERS)
MAX_BYTES = 1 << 30
MAX_FILE_BYTES = 4 * MAX_BYTES
MAX_LINE = 1 << 20
MAX_ID = 200
#: Negative values of a spectrum that are taken for rounding, as a share of its largest value.
NEGATIVE = 1e-3


def is_label(path: Path) -> bool:
    """Whether a file is an .npz that holds a crystal, by the names of its arrays; a damaged one may be.

    Others, such as what scripts leave in folders of calculations, name none of `numbers`, `cell` and `frac`.
    """
    if path.suffix != ".npz" or path.name.startswith("."):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return bool({f"{name}.npy" for name in ("numbers", "cell", "frac")} & set(archive.namelist()))
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return True


def read_manifest(folder: str | Path) -> dict[str, dict[str, Any]]:
    """The lines of `<folder>/manifest.jsonl` by id; empty if there is none.

    Raises:
        UserError: If the file cannot be read, a line is not a JSON object with an id, or an id is there twice.
    """
    path = Path(folder) / MANIFEST_NAME
    records: dict[str, dict[str, Any]] = {}
    if not path.is_file():
        return records
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE), b""), 1):
                if not line.strip():
                    continue
                fields = json.loads(line)
                name = _id(fields)
                if name is None:
                    raise UserError(f"{path}:{number} is not a JSON object with a 'material_id': mend the line.")
                if name in records:
                    raise UserError(f"{path}:{number}: {name!r} is there twice: keep one line per crystal.")
                records[name] = fields
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not made of JSON lines ({error}): mend it or remove it.") from error
    return records


def read(
    path: str | Path,
    manifest_record: Mapping[str, Any] | None,
    settings: LabelSettings,
    *,
    properties: Mapping[str, str] | None = None,
    complete_to: float | None = None,
) -> Calculation:
    """Read one file.

    Args:
        path: The .npz file.
        manifest_record: Its line of the manifest, where there is one.
        settings: For the checks of charges.
        properties: Key of the manifest by MatterGen's name, e.g. {"dft_band_gap": "band_gap_mp2018"}.
        complete_to: Energy above which bands are missing, eV relative to the Fermi energy; None takes that of the file
            or of the manifest.

    Returns:
        The calculation. Charges that fail a check are left out, with a finding.

    Raises:
        LabelError: With reason missing_file, unreadable_file, damaged_file, bad_structure, bad_dos, negative_dos,
            no_fermi_energy or no_labels.
    """
    path, fields = Path(path), dict(manifest_record or {})
    arrays, digest = read_arrays(path, WANTED)
    structure = _structure(arrays)
    numbers = _numbers(arrays)
    limits = (complete_to, numbers.pop("complete_to", None), _number(fields, "complete_to"))
    limit = next((value for value in limits if value is not None), None)
    dos, findings, shares = _dos(arrays, len(structure), limit)
    result = Calculation(
        id=_id(fields) or path.stem,
        origin=str(path),
        structure=structure,
        dos=dos,
        properties=_properties(fields, properties or {}),
        split=_split(fields),
        findings=findings,
        record={"source": "npz", "normalised": False, method.KEY: _method(fields).record(), **shares, **numbers},
        inputs={path.name: digest},
    )
    if "bader" in arrays:
        _add_charges(result, arrays["bader"], settings)
    if result.dos is None and result.bader_charge is None and not result.findings:
        raise LabelError("no_labels", f"{path.name} holds neither spectra nor charges")
    return result


# -- safe reading of npz ----------------------------------------------------------------------------------------------


def read_arrays(path: str | Path, names: Sequence[str], limit: int = MAX_BYTES) -> tuple[dict[str, NDArray[Any]], str]:
    """Read plain numbers from an .npz without unpickling, whatever the file claims about itself.

    Args:
        path: The file.
        names: Arrays to read, where they are there; the others are not unpacked.
        limit: Most bytes of these arrays together, unpacked.

    Returns:
        Arrays by name: integers as int64, floats as float64; and the SHA-256 of the file.

    Raises:
        LabelError: With reason missing_file, unreadable_file or damaged_file.
    """
    path = Path(path)
    found: dict[str, NDArray[Any]] = {}
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise LabelError("damaged_file", f"{path.name} is larger than {MAX_FILE_BYTES >> 30} GiB")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            with zipfile.ZipFile(file) as archive:
                for info in archive.infolist():
                    name = info.filename.removesuffix(".npy")
                    with archive.open(info) as member:  # opening compares the two names that a zip has of a member
                        if name not in names:
                            continue
                        limit -= info.file_size
                        if name in found or limit < 0:
                            raise LabelError("damaged_file", f"{path.name}: {name!r} is there twice or too large")
                        found[name] = _plain(member.read(), f"{path.name}: {name!r}")
    except LabelError:
        raise
    except FileNotFoundError as error:
        raise LabelError("missing_file", f"{path.name} does not exist") from error
    except OSError as error:
        raise LabelError("unreadable_file", f"{path.name} cannot be read ({error.strerror or error})") from error
    except Exception as error:
        raise LabelError(
            "damaged_file", f"{path.name} is not a sound .npz ({type(error).__name__}: {error})"
        ) from error
    return found, digest


def _plain(content: bytes, what: str) -> NDArray[Any]:
    """An array of numbers from the bytes of an .npy, whose size must be that of its header."""
    buffer = BytesIO(content)
    version = np.lib.format.read_magic(buffer)
    if version not in ((1, 0), (2, 0)):
        raise LabelError("damaged_file", f"{what} has the .npy version {version}, which is not read")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(buffer)
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise LabelError("damaged_file", f"{what} is of type {dtype}, not of plain numbers")
    if math.prod(shape) * dtype.itemsize != len(content) - buffer.tell():
        raise LabelError("damaged_file", f"{what} does not have the size of its shape {shape}")
    buffer.seek(0)
    array = np.load(buffer, allow_pickle=False)
    return array.astype(np.float64 if dtype.kind == "f" else np.int64)


# -- parts of a file --------------------------------------------------------------------------------------------------


def _structure(arrays: Mapping[str, NDArray[Any]]) -> Structure:
    missing = [name for name in ("numbers", "cell", "frac") if name not in arrays]
    if missing:
        raise LabelError("damaged_file", f"the array {missing[0]!r} is not there")
    return make_structure(arrays["cell"], arrays["numbers"], arrays["frac"])


def make_structure(cell: NDArray[Any], numbers: NDArray[Any], frac: NDArray[Any]) -> Structure:
    """A crystal from plain arrays.

    Args:
        cell: (3, 3) Å, rows are lattice vectors.
        numbers: (sites,) atomic numbers.
        frac: (sites, 3) fractional positions.

    Raises:
        LabelError: With reason bad_structure.
    """
    from pymatgen.core import Element, Lattice, Structure

    n_sites = numbers.size
    if numbers.shape != (n_sites,) or n_sites == 0 or frac.shape != (n_sites, 3) or cell.shape != (3, 3):
        shapes = f"{numbers.shape}, {cell.shape} and {frac.shape}"
        raise LabelError("bad_structure", f"numbers, cell and frac have the shapes {shapes}")
    if not np.isin(numbers, np.arange(1, 119)).all() or not np.isfinite(frac).all():
        raise LabelError("bad_structure", "numbers are not atomic numbers, or positions are not finite")
    try:
        check_lattice(cell, n_sites)
    except EntryError as error:
        raise LabelError("bad_structure", error.sentence) from error
    return Structure(Lattice(cell), [Element.from_Z(int(z)) for z in numbers], frac)


def _dos(
    arrays: Mapping[str, NDArray[Any]], n_sites: int, complete_to: float | None
) -> tuple[RawDos | None, list[Finding], dict[str, float]]:
    total, projected = arrays.get("dos"), arrays.get("pdos")
    if total is None and projected is None:
        return None, [], {}
    energies = arrays.get("energy_grid")
    if energies is None:
        raise LabelError("bad_dos", "there are spectra but no 'energy_grid'")
    if projected is not None and projected.ndim == 3:
        projected = projected.sum(axis=1)
    findings = []
    if total is None and projected is not None:
        total = projected.sum(axis=0) if projected.ndim == 2 else projected
        findings.append(Finding("total_dos", "sum_of_sites", "there is no 'dos': the sites' spectra are added up"))
    assert total is not None
    dos = RawDos(energies, total, projected, complete_to)
    check_dos(dos, n_sites)
    return dos, findings, {} if projected is None else {"projected_share": _share(energies, total, projected)}


def _share(energies: NDArray[Any], total: NDArray[Any], sites: NDArray[Any]) -> float:
    """How much of the DOS the sites hold together, over the whole window."""
    from scipy.integrate import trapezoid

    return float(trapezoid(sites.sum(axis=0), energies) / trapezoid(total, energies))


def check_dos(dos: RawDos, n_sites: int) -> None:
    """Check that spectra are what their shapes and units promise.

    Args:
        dos: As a source gives it.
        n_sites: Number of sites of the structure.

    Raises:
        LabelError: With reason bad_dos or negative_dos.
    """
    energies, n_points = dos.energies, dos.energies.size
    if energies.shape != (n_points,) or n_points < 2 or dos.total.shape != (n_points,):
        raise LabelError("bad_dos", f"the DOS has the shape {dos.total.shape} on energies of shape {energies.shape}")
    if dos.sites is not None and dos.sites.shape != (n_sites, n_points):
        raise LabelError(
            "bad_dos", f"the DOS of the sites has the shape {dos.sites.shape}, expected {(n_sites, n_points)}"
        )
    spectra = [("DOS", dos.total)] + ([("DOS of the sites", dos.sites)] if dos.sites is not None else [])
    if not all(np.isfinite(values).all() for values in (energies, *(v for _, v in spectra))):
        raise LabelError("bad_dos", "the DOS or its energies are not finite numbers")
    if not (np.diff(energies) > 0).all():
        raise LabelError("bad_dos", "the energies of the DOS are not ascending")
    for name, values in spectra:
        if values.min() < -NEGATIVE * values.max() or values.max() <= 0:
            raise LabelError("negative_dos", f"the {name} goes down to {values.min():.3g} states/eV, or is zero")


def _add_charges(result: Calculation, charges: NDArray[Any], settings: LabelSettings) -> None:
    if charges.shape != (len(result.structure),) or not np.isfinite(charges).all():
        raise LabelError("damaged_file", f"'bader' has the shape {charges.shape} or is not finite")
    total, limit = float(charges.sum()), settings.bader.neutrality_tolerance
    try:
        if not abs(total) <= limit:
            sentence = f"the charges add up to {total:+.3f} e, more than {limit:g} e from zero"
            raise LabelError("not_neutral", sentence)
        check_bounds(result.structure, charges)
        result.bader_charge, findings = check_equivalent(result.structure, charges, settings.bader)
        result.findings += check_signs(result.structure, charges)
        result.findings += findings
    except LabelError as error:
        result.findings.append(Finding("bader", error.reason, error.sentence, refused=True))


# -- the line of the manifest -----------------------------------------------------------------------------------------


def _id(fields: Any) -> str | None:
    if not isinstance(fields, dict):
        return None
    texts = (str(fields[key]).strip() for key in ID_KEYS if isinstance(fields.get(key), str | int))
    return next((text for text in texts if text and len(text) <= MAX_ID and text.isprintable()), None)


def _method(fields: Mapping[str, Any]) -> method.Method:
    """The method that a line tells; lines of `mattergen-e data compute` of older versions tell it by their source."""
    found = method.of_label({key: fields[key] for key in (method.KEY, "functional") if key in fields})
    if found.functional == method.UNKNOWN and fields.get("source") == "gpaw" and "settings_hash" in fields:
        return method.Method("PBE")
    return found


def _split(fields: Mapping[str, Any]) -> str | None:
    split = fields.get("split")
    if split is not None and split not in SPLITS:
        raise LabelError("damaged_file", f"the manifest's split {str(split)[:40]!r} is none of {', '.join(SPLITS)}")
    return split


def _number(fields: Mapping[str, Any], key: str) -> float | None:
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise LabelError("damaged_file", f"the manifest's {key!r} is {str(value)[:40]!r}, not a finite number")
    return float(value)


def _properties(fields: Mapping[str, Any], wanted: Mapping[str, str]) -> dict[str, float]:
    values = {name: _number(fields, key) for name, key in wanted.items()}
    return {name: value for name, value in values.items() if value is not None}


def _numbers(arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """The single numbers of a file; one that is no finite number is damage."""
    values = {name: arrays[name] for name in NUMBERS if name in arrays}
    for name, value in values.items():
        if value.size != 1 or not np.isfinite(value).all():
            reason = "no_fermi_energy" if name == "efermi" else "damaged_file"
            raise LabelError(reason, f"{name!r} is not one finite number")
    return {name: float(value.item()) for name, value in values.items()}
