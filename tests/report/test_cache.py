"""What a cache holds, against numbers that were put into it."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mattergen_e.data import cache
from mattergen_e.errors import UserError
from mattergen_e.report import cache as show
from mattergen_e.report.cache import summarise
from mattergen_e.report.cache_html import render, write_html
from mattergen_e.report.cache_records import distribution, robust
from mattergen_e.report.periodic import position
from tests.support.caches import rehash

GRID = {"minimum": -4.0, "maximum": 4.0, "points": 16}
NASTY = "<script>alert('x')</script> & $\\frac$ [bold]"


def crystals(first: int, n: int) -> dict[str, np.ndarray]:
    """n times LiF and NaCl in turn."""
    numbers = np.array([[3, 9], [11, 17]])[np.arange(n) % 2].ravel()
    return {
        "pos": np.tile([[0.0, 0, 0], [0.5, 0.5, 0.5]], (n, 1)),
        "cell": np.tile(4 * np.eye(3), (n, 1, 1)),
        "atomic_numbers": numbers,
        "num_atoms": np.full(n, 2),
        "structure_id": np.array([f"m-{first + i}" for i in range(n)]),
    }


@pytest.fixture
def make_cache(tmp_path: Path) -> Callable[..., Path]:
    """Makes a cache of 30 train and 10 val crystals; `charges` and `spectra` are those of the 80 sites."""

    def make(charges: np.ndarray, spectra: np.ndarray, gaps: np.ndarray, **changes: Any) -> Path:
        out, splits, start = tmp_path / "cache", {}, 0
        for name, n in (("train", 30), ("val", 10)):
            of_sites, of_crystals = slice(2 * start, 2 * (start + n)), slice(start, start + n)
            sites = {"bader_charge": charges[of_sites, None], "atomic_dos": spectra[of_sites]}
            splits[name] = cache.write_split(
                out / name,
                crystals(start, n),
                {key: value.astype(np.float32) for key, value in sites.items()},
                {"total_dos": spectra[of_sites][::2].astype(np.float32)},
                {"dft_band_gap": gaps[of_crystals]},
            )
            start += n
        stats = {
            name: cache.SiteStatistics(labelled_crystals=1, labelled_sites=1, coverage=1, rms=1.0) for name in splits
        }
        values = {
            "bader_charge": cache.SiteValue(unit="e", dim=1, column="bader_charge", splits=stats),
            "atomic_dos": cache.SiteValue(unit="states/eV", dim=16, column="atomic_dos", splits=stats),
        }
        manifest = {
            "mattergen_e_version": "0.1",
            "packages": {},
            "created": datetime(2026, 1, 2, tzinfo=UTC),
            "settings": {},
            "sources": [],
            "splits": splits,
            "site_values": values,
            "crystal_values": {
                "total_dos": cache.SiteValue(unit="states/eV/atom", dim=16, column="total_dos", splits=stats)
            },
            "processing": {"atomic_dos": {"grid": GRID}},
            "properties": {"dft_band_gap": cache.PropertyInfo(column="gap", known={})},
            "dropped_by_reason": {"broken_cif": 2},
            "dropped": [cache.DroppedEntry(id=NASTY, origin="x", reason="broken_cif", sentence=NASTY)],
            **changes,
        }
        (out / "manifest.json").write_text(cache.Manifest(**manifest).model_dump_json())
        return out

    return make


def usual() -> dict[str, np.ndarray]:
    """Charges of ±0.9 (LiF) and ±0.8 e (NaCl), flat spectra of 2 states, and gaps of 5 eV."""
    rng = np.random.default_rng(0)
    charges = np.tile([0.9, -0.9, 0.8, -0.8], 20) + rng.normal(scale=0.01, size=80)
    return {"charges": charges, "spectra": np.full((80, 16), 0.25), "gaps": np.full(40, 5.0)}


def test_counts_and_elements(make_cache):
    summary = summarise(make_cache(**usual()))
    assert summary.elements == {"Li": (20, 20), "F": (20, 20), "Na": (20, 20), "Cl": (20, 20)}
    assert list(summary.elements) == ["Li", "F", "Na", "Cl"]
    assert (summary.sizes.minimum, summary.sizes.maximum, summary.sizes.count) == (2, 2, 40)
    assert summary.sizes.histogram.tolist() == [40]
    assert summary.outliers == ()


def test_charges_by_element(make_cache):
    data = usual()
    data["charges"][:40:4] = np.nan
    (charges,) = summarise(make_cache(**data)).site_values
    assert (charges.total.count, charges.total.unknown, charges.total.unit) == (70, 10, "e")
    assert charges.elements["Li"][0] == 10
    for symbol, rows in (("Li", slice(40, None, 4)), ("Cl", slice(3, None, 4))):
        count, low, quantiles, high = charges.elements[symbol]
        values = data["charges"][rows].astype(np.float32).astype(float)
        assert (low, high) == (values.min(), values.max())
        np.testing.assert_allclose(quantiles, np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)))
        assert count == len(values)


def test_values_far_from_the_median_of_their_element(make_cache):
    """F with -0.2 e would be quite usual among all sites, but is not for F."""
    data = usual()
    data["charges"][1] = -0.2
    data["charges"][66] = 2.3
    data["spectra"][71] = 1.0
    data["gaps"][[3, 5, 7]] = 0, -1, 25
    summary = summarise(make_cache(**data))
    found = {(one.kind, one.crystal, one.split, one.place): one for one in summary.outliers}
    assert set(found) == {
        ("bader_charge", "m-0", "train", "F, site 1"),
        ("bader_charge", "m-33", "val", "Na, site 0"),
        ("atomic_dos, states", "m-35", "val", "Cl, site 1"),
        ("dft_band_gap", "m-5", "train", ""),
        ("dft_band_gap", "m-7", "train", ""),
    }
    one = found["bader_charge", "m-0", "train", "F, site 1"]
    assert one.found == pytest.approx(-0.2)
    assert one.far == pytest.approx(0.7 / 0.05, rel=0.02)
    assert one.usual == "median of F -0.90 e"
    assert found["atomic_dos, states", "m-35", "val", "Cl, site 1"].found == pytest.approx(8.0)
    assert summary.outlier_counts == {"dft_band_gap": 2, "bader_charge": 2, "atomic_dos, states": 1}


def test_spectra(make_cache):
    data = usual()
    rng = np.random.default_rng(1)
    data["spectra"] = rng.random((80, 16))
    data["spectra"][:8] = np.nan
    sites, whole = summarise(make_cache(**data)).spectra
    known = data["spectra"][8:].astype(np.float32)
    assert (sites.count, sites.unknown, sites.of) == (72, 8, "sites")
    np.testing.assert_allclose(sites.mean, known.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(sites.low, np.quantile(known, 0.1, axis=0), rtol=1e-5)
    np.testing.assert_allclose(sites.energies, np.arange(-3.75, 4, 0.5))  # type: ignore[arg-type]
    assert sites.integrals.maximum == pytest.approx(0.5 * known.sum(axis=1).max(), rel=1e-5)
    assert (whole.count, whole.unknown, whole.energies) == (36, 4, None)
    assert whole.integrals.minimum == pytest.approx(known[::2].sum(axis=1).min(), rel=1e-5)
    for title, values in (*sites.examples, *whole.examples):
        crystal = int(re.fullmatch(r"m-(\d+) .*", title)[1])  # type: ignore[index]
        row = 2 * crystal + (1 if title.endswith("site 1") else 0)
        np.testing.assert_array_equal(values, data["spectra"][row].astype(np.float32))
        assert ("LiF" in title) == (crystal % 2 == 0)


def test_blocks_and_samples_do_not_change_the_sums(make_cache, monkeypatch):
    data = usual()
    data["spectra"] = np.random.default_rng(1).random((80, 16))
    path = make_cache(**data)
    whole = summarise(path).spectra[0]
    monkeypatch.setattr(show, "ROWS", 7)
    monkeypatch.setattr(show, "SAMPLE", 9)
    parts = summarise(path).spectra[0]
    np.testing.assert_allclose(parts.mean, whole.mean)
    assert parts.integrals.quantiles == whole.integrals.quantiles
    assert not np.allclose(parts.low, whole.low)


def test_nothing_known_is_no_error(make_cache):
    data = {key: np.full_like(value, np.nan) for key, value in usual().items()}
    summary = summarise(make_cache(**data))
    assert [p.count for p in summary.properties] == [0]
    assert summary.site_values[0].elements == {}
    assert "No sites have it" in render(summary)


def test_an_old_manifest_without_grids(make_cache):
    summary = summarise(make_cache(**usual(), processing={}, crystal_values={}))
    (sites,) = summary.spectra
    assert sites.energies is None
    assert sites.integrals.name == "atomic_dos, sum"
    assert sites.integrals.quantiles[2] == pytest.approx(4.0)


def test_a_damaged_cache_is_one_sentence(make_cache):
    path = make_cache(**usual())
    np.save(path / "val/num_atoms.npy", np.full(10, 3))
    rehash(path)
    with pytest.raises(UserError, match="do not belong together"):
        summarise(path)
    np.save(path / "val/num_atoms.npy", np.full(10, 2))
    np.save(path / "val/sites/atomic_dos.npy", np.zeros((19, 16), dtype=np.float32))
    rehash(path)
    with pytest.raises(UserError, match=r"has the shape \(19, 16\)"):
        summarise(path)
    (path / "val/dft_band_gap.json").write_text("{")
    with pytest.raises(UserError, match="dft_band_gap.json cannot be read"):
        summarise(path)
    np.save(path / "val/atomic_numbers.npy", np.full(20, 200))
    rehash(path)
    with pytest.raises(UserError, match="atomic numbers that are no elements"):
        summarise(path)
    with pytest.raises(UserError, match="does not exist"):
        summarise(path / "nowhere")


def test_robust_distances():
    """Medians and absolute deviations by hand: 1..11 has the median 6 and the deviation 3."""
    values = np.array([*range(1, 12), 100.0, np.nan])
    groups = np.array([1] * 11 + [2, 1])
    far, medians = robust(values, groups, 0.1)
    assert medians[0] == 6
    np.testing.assert_allclose(far[:11], np.abs(np.arange(1, 12) - 6) / (1.4826 * 3))
    assert far[11] == far[12] == 0
    assert np.isnan(medians[11])
    normal = np.random.default_rng(0).normal(scale=3, size=100_000)
    far, _ = robust(normal, np.zeros(len(normal), dtype=int), 0.1)
    assert (far > 2).mean() == pytest.approx(0.0455, abs=0.003)


def test_distributions():
    found = distribution("x", "eV", np.array([0.0, 0, 1, 2, 3, np.nan]))
    assert (found.count, found.unknown, found.minimum, found.maximum, found.zero) == (5, 1, 0, 3, 0.4)
    assert found.quantiles[2] == 1
    assert found.histogram.sum() == 5
    counts = distribution("n", "", np.array([2, 2, 4]))
    assert counts.histogram.tolist() == [2, 0, 1]
    assert counts.edges.tolist() == [1.5, 2.5, 3.5, 4.5]


def test_places_in_the_periodic_table():
    places = {"H": (1, 1), "He": (1, 18), "C": (2, 14), "Fe": (4, 8), "La": (8, 3), "Lu": (8, 17), "Hf": (6, 4)}
    from pymatgen.core import Element

    assert {symbol: position(Element(symbol).Z) for symbol in places} == places
    assert len({position(z) for z in range(1, 104)}) == 103


class Reader(html.parser.HTMLParser):
    """Collects what a page would load or run, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.tags, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [
            value for key, value in attrs if key in ("src", "href", "xlink:href", "srcset") or key.startswith("on")
        ]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_escapes_texts(make_cache, tmp_path):
    data = usual()
    data["charges"][1] = -0.2
    path = make_cache(**data)
    write_html(summarise(path), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert reader.links and all(link.startswith("#") for link in reader.links)
    assert page.count('<svg class="drawn"') == 5 + 2 + 2
    assert "&lt;script&gt;" in page
    assert not re.search(r"url\((?!#)", page) and "@import" not in page
    assert 'name="viewport"' in page
    assert "F, site 1" in page and "m-0" in page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "page.html"]


def test_the_same_cache_gives_the_same_page(make_cache):
    path = make_cache(**usual())
    assert render(summarise(path)) == render(summarise(path))


def test_a_page_that_cannot_be_written(make_cache, tmp_path):
    summary = summarise(make_cache(**usual()))
    with pytest.raises(UserError, match="cannot be written"):
        write_html(summary, tmp_path / "no" / "page.html")


def test_texts_of_crystals_are_counted(make_cache):
    path = make_cache(**usual(), properties={"space_group": cache.PropertyInfo(column="x", known={})})
    for split, n in (("train", 30), ("val", 10)):
        (path / split / "space_group.json").write_text(json.dumps({"values": (["Fm-3m", "P1"] * n)[:n]}))
    assert summarise(path).texts == {"space_group": 2}


def test_a_vector_of_another_package_is_no_spectrum() -> None:
    """Neither a grid in the manifest nor a descriptor of spectra: its components are numbers of sites."""
    from types import SimpleNamespace

    grid = {"grid": {"minimum": -15.0, "maximum": 5.0, "points": 512}}
    manifest: Any = SimpleNamespace(processing={"pdos": grid})
    assert not show._is_spectrum(manifest, "moment", 3)
    assert show._is_spectrum(manifest, "pdos", 512) and show._is_spectrum(manifest, "atomic_dos", 512)
    assert not show._is_spectrum(manifest, "bader_charge", 1)
