"""The textbook crystals and a tiny predictor of their spectra."""

from textbook import predictor as predictor
from textbook import textbook as textbook
