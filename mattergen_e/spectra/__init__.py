"""Densities of states on fixed energy grids: how they are made from a calculation, and what can be read off them."""
