"""Generation: conditions in, crystals with their descriptors out, kept safe batch by batch.

Nothing heavy is imported here; import from the modules.
"""
