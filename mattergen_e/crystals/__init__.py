"""Crystals as files hold them: readers, checks, tables, cells, and where sites go when a cell is reduced."""
