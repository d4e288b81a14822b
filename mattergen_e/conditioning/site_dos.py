"""Where conditions of sites were; see `mattergen_e.diffusion.site_dos`."""

from mattergen_e.diffusion.site_dos import SiteDosCondition, dataset_from_cache

__all__ = ["SiteDosCondition", "dataset_from_cache"]
