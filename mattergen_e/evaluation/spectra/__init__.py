"""Densities of states asked for: targets, what crystals have, and how near they come."""
