"""generated_dos.npz: spectra of the sites of generated crystals.

    energies             (points,) eV relative to the Fermi energy, centres of the bins
    window               (2,) eV, lower and upper end of the grid
    fingerprint          of the autoencoder that decoded the spectra
    spectra_<index>      (n_sites, points) float32, states/eV, sites in the order of the crystal <index>
    latents_<index>      (n_sites, dim) float32, from -1 to 1

An npz file is a zip file with a member for every array, so that one crystal is read without the others, and the files
of batches are joined without decoding them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO
from zipfile import ZipFile

import numpy as np

from mattergen_e.errors import UserError
from mattergen_e.files import add_array
from mattergen_e.limits import open_npz
from mattergen_e.spectra.grid import EnergyGrid
from mattergen_e.spectra.objects import CrystalSpectra

DOS_NAME = "generated_dos.npz"


def keys(index: int) -> dict[str, str]:
    """Names of a crystal's arrays."""
    return {"spectra": f"spectra_{index}", "latents": f"latents_{index}"}


def dos_file(items: Sequence[tuple[int, CrystalSpectra]]) -> bytes:
    """The content of the file for some crystals of one model, given by their index."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        first = items[0][1]
        add_array(archive, "energies", first.grid.energies)
        add_array(archive, "window", np.array([first.grid.minimum, first.grid.maximum]))
        add_array(archive, "fingerprint", np.array(first.fingerprint))
        for index, item in items:
            names = keys(index)
            add_array(archive, names["spectra"], item.spectra.astype(np.float32))
            add_array(archive, names["latents"], item.latents.astype(np.float32))
    return buffer.getvalue()


def read_dos(file: str | Path | IO[bytes], indices: Iterable[int]) -> list[CrystalSpectra]:
    """Read the spectra of crystals.

    Args:
        file: The file or the folder that holds it, or its content.
        indices: Of the crystals.

    Raises:
        UserError: If the file is missing or damaged, or has no spectra of a crystal.
    """
    if isinstance(file, str | Path) and Path(file).is_dir():
        file = Path(file) / DOS_NAME
    name = str(file) if isinstance(file, str | Path) else DOS_NAME
    try:
        with open_npz(file) as arrays:
            low, high = arrays["window"].tolist()
            grid = EnergyGrid(minimum=low, maximum=high, points=len(arrays["energies"]))
            fingerprint = str(arrays["fingerprint"])
            found = []
            for index in indices:
                names = keys(index)
                if names["spectra"] not in arrays:
                    raise UserError(f"{name} has no spectra of crystal {index}: give an index of the JSON lines.")
                found.append(CrystalSpectra(arrays[names["spectra"]], grid, arrays[names["latents"]], fingerprint))
            return found
    except FileNotFoundError:
        raise UserError(f"{name} does not exist: give the output folder of a run with a model of spectra.") from None
    except (ValueError, LookupError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{name} is damaged ({error}): resume the run, which makes the file anew.") from None
