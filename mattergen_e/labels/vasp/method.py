"""The functional of a VASP calculation, from the parameters that VASP used and the potentials' names.

pymatgen's `Vasprun.run_type` is not used: it takes a hybrid of any amount of exchange for HSE06 or B3LYP by one number
each, and does not tell PBE, which the potentials bring, from another GGA.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mattergen_e.labels.method import UNKNOWN, Method

if TYPE_CHECKING:
    from mattergen_e.labels.vasp.parser import Parser

#: VASP's GGA tag.
GGA = {
    "PE": "PBE", "PS": "PBEsol", "RP": "RPBE", "RE": "revPBE", "91": "PW91", "AM": "AM05", "B3": "B3LYP", "B5": "B3LYP",
    "BF": "BEEF", "CA": "LDA", "HL": "LDA", "PW": "LDA", "PZ": "LDA", "VW": "LDA", "WI": "LDA", "OR": "optPBE",
    "BO": "optB88", "MK": "optB86b", "ML": "PW86R",
}  # fmt: skip
#: What VASP takes from a potential without a GGA tag, by the first word of its title.
POTENTIALS = {"PAW_PBE": "PBE", "PAW_GGA": "PW91", "PAW": "LDA", "PAW_LDA": "LDA", "US": "LDA", "NC": "LDA"}
#: VASP's METAGGA tag, where its usual name is another.
META = {"RTPSS": "revTPSS", "M06L": "M06-L", "R2SCANL": "R2SCAN-L"}
#: VASP's IVDW tag.
DISPERSION = {
    1: "D2", 10: "D2", 11: "D3", 12: "D3(BJ)", 13: "D4", 15: "D3", 2: "TS", 20: "TS", 21: "TS(HI)", 202: "MBD",
    263: "MBD(FI)", 4: "dDsC", 3: "ULG",
}  # fmt: skip
#: Functionals whose own exchange goes with the nonlocal correlation (LUSE_VDW).
NONLOCAL = {
    "revPBE": "vdW-DF",
    "PW86R": "vdW-DF2",
    "optPBE": "optPBE-vdW",
    "optB88": "optB88-vdW",
    "optB86b": "optB86b-vdW",
}
_NONE = ("", "--", "NO", "NONE", "N", "F", "FALSE")


def of_vasprun(vasprun: Parser) -> Method:
    """Name and details of the functional; `UNKNOWN` where the file does not tell it."""
    details: dict[str, Any] = {}
    name = _local(vasprun)
    if _flag(vasprun, "LHFCALC"):
        name, details["hybrid"] = _hybrid(vasprun, name)
    name, dispersion = _dispersion(vasprun, name)
    if dispersion:
        details["dispersion"] = dispersion
    u, orbitals = _hubbard(vasprun)
    if u is None or u:
        name = f"{name}+U"
        details |= {"u_orbitals": orbitals} if orbitals else {}
    if vasprun.is_gw:
        name = f"{_word(vasprun.incar.get('ALGO')).upper()}@{name}"
    if _flag(vasprun, "LSORBIT"):
        name, details["spin_orbit"] = f"{name}+SOC", True
    spin = vasprun.parameters.get("ISPIN")
    return Method(name if UNKNOWN not in name else UNKNOWN, u or {}, None if spin is None else spin == 2, details)


def _local(vasprun: Parser) -> str:
    """Name of the LDA, GGA or meta-GGA."""
    meta = _tag(vasprun, "METAGGA")
    if meta:
        return META.get(meta, meta)
    tag = _tag(vasprun, "GGA")
    if tag:
        return GGA.get(tag, f"GGA {tag}")
    found = {
        POTENTIALS.get(str(title).split()[0].upper(), UNKNOWN) for title in vasprun.potcar_symbols if str(title).split()
    }
    return found.pop() if len(found) == 1 else UNKNOWN


def _hybrid(vasprun: Parser, name: str) -> tuple[str, dict[str, float]]:
    """Name of a hybrid, with its share of exact exchange and its screening in 1/Å."""
    exchange, screening = (_number(vasprun, key, default) for key, default in (("AEXX", 0.25), ("HFSCREEN", 0.0)))
    numbers = {"aexx": exchange, "hfscreen": screening}
    if exchange == 1 and screening == 0:
        return "HF", numbers
    if name == "B3LYP" and abs(exchange - 0.2) < 1e-3:
        return "B3LYP", numbers
    usual = abs(exchange - 0.25) < 1e-3
    if name == "PBE" and usual and screening == 0:
        return "PBE0", numbers
    if name in ("PBE", "PBEsol") and usual and 0.195 <= screening <= 0.215:
        return "HSE06" if name == "PBE" else "HSEsol", numbers
    if name == "PBE" and usual and 0.295 <= screening <= 0.305:
        return "HSE03", numbers
    return f"hybrid {name} (AEXX {exchange:g}, HFSCREEN {screening:g})", numbers


def _dispersion(vasprun: Parser, name: str) -> tuple[str, str | None]:
    """The name with its dispersion, and the dispersion alone."""
    if _flag(vasprun, "LUSE_VDW"):
        whole = NONLOCAL.get(name, f"{name}+rVV10" if _tag(vasprun, "METAGGA") else f"{name}-vdW")
        return whole, "nonlocal"
    number = _number(vasprun, "IVDW", 1 if _flag(vasprun, "LVDW") else 0)
    if not number:
        return name, None
    kind = DISPERSION.get(int(number), f"IVDW{int(number)}")
    return f"{name}-{kind}", kind


def _hubbard(vasprun: Parser) -> tuple[dict[str, float] | None, dict[str, str]]:
    """U - J in eV and the shell by element; None where VASP did not print the numbers."""
    if not _flag(vasprun, "LDAU"):
        return {}, {}
    titles = [str(title).split() for title in vasprun.potcar_symbols]
    elements = [re.split(r"[_.]", words[1])[0] for words in titles if len(words) > 1]
    n = len(elements)
    us = _list(vasprun, "LDAUU", n)
    if us is None:
        return None, {}
    js, shells = _list(vasprun, "LDAUJ", n) or [0.0] * n, _list(vasprun, "LDAUL", n) or [2.0] * n
    u, orbitals = {}, {}
    for element, one, other, shell in zip(elements, us, js, shells, strict=True):
        if shell >= 0 and abs(one - other) > 1e-6:
            u[element], orbitals[element] = round(one - other, 4), "spdf"[min(int(shell), 3)]
    return u, orbitals


def _word(value: Any) -> str:
    """The first word of a tag: in INCAR, a comment may follow."""
    words = str(value if value is not None else "").split()
    return words[0].strip("!#") if words else ""


def _tag(vasprun: Parser, name: str) -> str:
    """A tag of letters in capitals, as VASP used it; empty where none is set."""
    for given in (vasprun.parameters, vasprun.incar):
        word = _word(given.get(name)).upper()
        if word not in _NONE:
            return word
    return ""


def _flag(vasprun: Parser, name: str) -> bool:
    value = vasprun.parameters.get(name, vasprun.incar.get(name))
    return value is True


def _number(vasprun: Parser, name: str, default: float) -> float:
    value = vasprun.parameters.get(name, vasprun.incar.get(name))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def _list(vasprun: Parser, name: str, length: int) -> list[float] | None:
    """Numbers by kind of potential; INCAR's, since VASP may print a part of them only among its parameters."""
    for given in (vasprun.incar, vasprun.parameters):
        value = given.get(name)
        values = value if isinstance(value, list | tuple) else [value]
        numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == length:
            return numbers
    return None
