"""The callback of recipes by the name that earlier recipes have; it lives in `mattergen_e.networks.callbacks`."""

from mattergen_e.networks.callbacks import RECORD as RECORD
from mattergen_e.networks.callbacks import Provenance as Provenance
