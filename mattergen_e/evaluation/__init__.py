"""How good generated crystals are: unique, novel, stable, valid, on target, and how sure that is."""
