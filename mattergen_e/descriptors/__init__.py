"""What can be generated jointly with the structure."""

from mattergen_e.descriptors.atomic_dos import AtomicDos
from mattergen_e.descriptors.bader import BaderCharge
from mattergen_e.descriptors.base import Descriptor
from mattergen_e.descriptors.dummy import Dummy

__all__ = ["AtomicDos", "BaderCharge", "Descriptor", "Dummy"]
