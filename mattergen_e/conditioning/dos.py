"""Where `DosEmbedding` was; see `mattergen_e.diffusion.dos_embedding`."""

from mattergen_e.diffusion.dos_embedding import DosEmbedding

__all__ = ["DosEmbedding"]
