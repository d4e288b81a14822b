"""The crystals that generated ones are compared with: are they new, and do they lie on the hull?"""

from mattergen_e.reference.folder import Reference, ReferenceManifest

__all__ = ["Reference", "ReferenceManifest"]
