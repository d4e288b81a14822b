"""With which functional a label was made: its name, what belongs to it, and whether labels may stand side by side.

A gap of HSE06 beside one of PBE is no data set, so every label tells its method, and a cache takes labels of one
functional unless more are asked for. Labels of older versions, and values of others, may not tell: they are "unknown",
which goes with any functional.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mattergen_e.errors import UserError

UNKNOWN = "unknown"
#: Where a record, or an entry of a file, tells its method.
KEY = "method"
#: U in eV by which two values count as one.
SAME_U = 0.01
#: Names of the Materials Project's kinds of calculations.
RUN_TYPES = {"GGA": "PBE", "GGA_U": "PBE+U", "GGA+U": "PBE+U", "R2SCAN": "R2SCAN", "SCAN": "SCAN", "HSE06": "HSE06"}
MAX_NAME = 60


@dataclass(frozen=True)
class Method:
    """How the electrons of a calculation were treated.

    Attributes:
        functional: Name, e.g. PBE, PBE+U, PBEsol-D3(BJ), R2SCAN, HSE06, GW0@PBE; `UNKNOWN` where it is not told.
        u: U - J in eV by element, of those that have one.
        spin: Whether spins are separate; None where not told.
        details: What else tells: hybrid, dispersion, and so on; plain JSON values.
    """

    functional: str = UNKNOWN
    u: Mapping[str, float] = field(default_factory=dict)
    spin: bool | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Plain JSON values, for the record of a label."""
        told = {} if self.spin is None else {"spin": self.spin}
        return {"functional": self.functional} | told | ({"u": dict(self.u)} if self.u else {}) | dict(self.details)


def read(told: Any) -> Method:
    """What a record or an entry tells: a dictionary as `Method.record` makes it, or the name alone; else unknown."""
    if isinstance(told, str):
        told = {"functional": told}
    if not isinstance(told, Mapping) or not isinstance(told.get("functional"), str):
        return Method()
    name = told["functional"].strip()
    found = told.get("u")
    given = found if isinstance(found, Mapping) else {}
    u = {str(k): float(v) for k, v in given.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    spin = told.get("spin") if isinstance(told.get("spin"), bool) else None
    usable = 0 < len(name) <= MAX_NAME and name.isprintable()
    return Method(name if usable else UNKNOWN, u, spin)


def of_label(line: Mapping[str, Any]) -> Method:
    """The method of a line of labels.jsonl, or of a line of a file of others.

    Labels tell it in their record; those of older versions, whose names were pymatgen's, count as unknown. Lines of
    others may have a key `functional`, or `method` with a dictionary.
    """
    record = line.get("record")
    if isinstance(record, Mapping):
        return read(record.get(KEY))
    return read(line[KEY] if isinstance(line.get(KEY), Mapping) else line.get("functional"))


def of_run_type(run_type: Any) -> Method:
    """The method of a kind of calculation of the Materials Project."""
    return Method(RUN_TYPES.get(str(run_type).strip().upper().removeprefix("RUNTYPE."), UNKNOWN))


def count(methods: Iterable[Method]) -> dict[str, int]:
    """Labels by functional, most frequent first."""
    return dict(Counter(method.functional for method in methods).most_common())


def told(counts: Mapping[str, int], spin_polarised: int = 0) -> str:
    """The same in words: PBE 12, HSE06 3; 4 of them spin-polarised."""
    spins = f"; {spin_polarised:,} of them spin-polarised" if spin_polarised else ""
    return ", ".join(f"{name} {n:,}" for name, n in counts.items()) + spins


def selects(names: Sequence[str], method: Method) -> bool:
    """Whether a method is among those asked for, however they are written."""
    return method.functional.casefold() in {name.strip().casefold() for name in names}


def check_one(methods: Sequence[tuple[str, Method]], *, several: bool = False) -> None:
    """Check that labels are of one functional.

    Args:
        methods: Ids and methods of all labels.
        several: Whether several functionals were asked for by name; U is compared even then.

    Raises:
        UserError: If there are two functionals, or two values of U for one element.
    """
    counts = count(method for _, method in methods)
    known = {name: n for name, n in counts.items() if name != UNKNOWN}
    advice = "take one with --functional NAME, or all of them with --mix-functionals"
    if len(known) > 1 and not several:
        raise UserError(
            f"The labels are of {len(known)} functionals ({told(known)}), which are not one data set: {advice}."
        )
    first: dict[str, tuple[str, float]] = {}
    for name, method in methods:
        for element, value in method.u.items():
            other, before = first.setdefault(element, (name, value))
            if abs(before - value) > SAME_U:
                raise UserError(
                    f"The labels are of two methods: {element} has U = {before:g} eV in {other!r} and {value:g} eV in "
                    f"{name!r}: leave one kind out, or take all of them with --mix-functionals."
                )
