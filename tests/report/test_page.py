"""The page as a browser gets it."""

from __future__ import annotations

import base64
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mattergen_e.errors import UserError
from mattergen_e.report.page import render, write_report
from mattergen_e.report.runs import read_run, read_runs
from mattergen_e.report.sections import crystals

NASTY = "<script>alert('x')</script> & \"$\\frac\" --> ]]>"
VOID = {"meta", "input", "br", "rect", "path", "use", "image", "line", "circle"}


class Reader(html.parser.HTMLParser):
    """Collects elements, texts and what is not closed in its order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def words(self) -> str:
        """Text outside of scripts and styles."""
        return " ".join(text for tag, text in self.texts if tag not in ("script", "style"))


@pytest.fixture(scope="module")
def page(evaluated, tmp_path_factory) -> str:
    """Of two runs, with a training distribution."""
    folder = tmp_path_factory.mktemp("runs")
    runs = read_runs([evaluated(folder / name) for name in ("first", "second")])
    return render(runs, training={"dft_band_gap": np.linspace(0, 8, 500)})


def test_it_is_whole_and_needs_nothing_else(page):
    reader = Reader(page)
    assert reader.open == []
    references = [
        value
        for _, attributes in reader.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset")
    ]
    assert references and all(str(value).startswith(("#", "data:")) for value in references)
    outside = re.findall(r"(?:https?:)?//[a-z][\w.-]+\.\w+", re.sub(r'xmlns(:\w+)?="[^"]*"', "", page))
    assert outside == []
    assert "@import" not in page and "@font-face" not in page
    assert len(page) < 1.5e6


def test_ids_are_unique_and_every_reference_has_its_goal(page):
    reader = Reader(page)
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    goals = [str(value) for _, attributes in reader.elements for value in attributes.values() if str(value)[:1] == "#"]
    goals += [f"#{goal}" for goal in re.findall(r"url\(#([^)]+)\)", page)]
    colours = [goal for goal in goals if re.fullmatch(r"#[0-9a-f]{3}|#[0-9a-f]{6}", goal)]
    assert {goal[1:] for goal in goals if goal not in colours} <= set(ids)


def test_rates_are_those_of_the_evaluation(page):
    """12 of 13 crystals were read; three of them are VSUN: 23.1 %, Wilson interval by hand 8.2 to 50.3 %."""
    words = Reader(page).words()
    assert "23.1 %" in words and "8.2 to 50.3 · 3 of 13" in words
    assert "target 1 ± 0.5" in words
    assert "novelty against" in words and "textbook, 12 structures" in words
    assert "chgnet 0" in words
    assert words.count("not_generated") == 1 and "not_converged" in words and "charges do not balance" in words


def test_every_section_has_its_data(page):
    assert 'class="missing"' not in page
    words = Reader(page).words()
    for expected in (
        "grey: 500 crystals of the reference, median 4", "dashed: target 1, band: ± 0.5",
        "second: 11 crystals, median 0.2", "3 of 13 at most 0.1", "MAE 0.050 e", "50 %: 0.160 eV",
        "MAE of charges by element", "Wasserstein distance (median) by element", "0.200 eV/atom above the hull",
    ):  # fmt: skip
        assert expected in words, expected


def test_pictures_say_what_they_show(page):
    reader = Reader(page)
    pictures = [attributes for tag, attributes in reader.elements if attributes.get("role") == "img"]
    assert len(pictures) > 30 and all(attributes.get("aria-label") for attributes in pictures)
    heads = [attributes for tag, attributes in reader.elements if tag == "th"]
    assert heads and all(attributes.get("scope") in ("col", "row") for attributes in heads)


def test_names_are_text_and_nothing_else(evaluated, tmp_path):
    def change(rows):
        rows[0] |= {"formula": NASTY, "space_group": NASTY}
        rows[1]["properties"] = {
            NASTY: {"value": 1.0, "target": 2.0, "tolerance": 0.1, "within": False, "source": NASTY}
        }
        rows[-1]["reason"] = NASTY

    folder = evaluated(tmp_path / "run", change=change, name=NASTY, conditions={NASTY: NASTY}, model={NASTY: NASTY},
                       warnings=[NASTY])  # fmt: skip
    page = render(read_runs([folder, folder]), title=NASTY)
    reader = Reader(page)
    assert reader.open == []
    scripts = [attributes for tag, attributes in reader.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "crystals"}, {}]
    assert "<script>alert" not in page
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
    assert reader.words().count("alert('x')") > 10


def test_sections_without_data_say_what_gives_it(evaluated, tmp_path):
    def bare(rows):
        kept = ("index", "key", "formula", "sites", "readable", "reason", "unique", "novel")
        rows[:] = [{key: row[key] for key in kept if key in row} for row in rows]

    folder = evaluated(tmp_path / "run", change=bare, sites=False, relaxed=False)
    (folder / "generated_crystals.jsonl").unlink()
    (folder / "generated_crystals.extxyz").unlink()
    (folder / "generated_crystals_cif.zip").unlink()
    page = render([read_run(folder)])
    missing = re.findall(r'<p class="missing">(.*?)</p>', page)
    assert len(missing) == 7 and all("<code>mattergen-e " in line for line in missing)
    assert "not evaluated" in Reader(page).words()


@pytest.mark.parametrize("kept", [0, 1])
def test_nothing_or_one_crystal(evaluated, tmp_path, kept):
    def change(rows):
        del rows[kept:]

    page = render([read_run(evaluated(tmp_path / "run", change=change, sites=False))])
    assert Reader(page).open == []


def test_no_crystal_with_a_value(evaluated, tmp_path):
    """Only failed crystals, as a model that learned nothing gives."""

    def change(rows):
        rows[:] = [{**rows[-1], "index": i} for i in range(20)]

    page = render([read_run(evaluated(tmp_path / "run", change=change, sites=False))])
    assert "0.0 to 16.1 · 0 of 20" in Reader(page).words()


def test_no_more_crystals_than_asked_for(evaluated, tmp_path):
    run = read_run(evaluated(tmp_path / "run"))
    assert [crystals([run], n).count("<canvas") for n in (0, 5, 99)] == [0, 5, 12]


def test_an_existing_page_stays_until_the_new_one_is_complete(evaluated, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(UserError):
        write_report([tmp_path / "nothing"], out)
    assert out.read_text() == "old"
    assert write_report([evaluated(tmp_path / "run")], out) == out.stat().st_size
    assert out.read_text().startswith("<!doctype html>")


#: Drags, presses a key and switches; what changed in the picture is written into the page.
PROBE = """
<script>
const errors = [];
window.addEventListener("error", (event) => errors.push(event.message));
document.addEventListener("securitypolicyviolation", (event) => errors.push(event.violatedDirective));
window.addEventListener("load", () => {
  const canvas = document.querySelector("canvas[data-crystal]");
  const states = [canvas.toDataURL()];
  const drag = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, { pointerId: 1, clientX: x, clientY: y }));
  canvas.setPointerCapture = () => {};
  canvas.hasPointerCapture = () => true;
  drag("pointerdown", 50, 50); drag("pointermove", 90, 70); states.push(canvas.toDataURL());
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp" })); states.push(canvas.toDataURL());
  document.querySelector("input[value=element]").click(); states.push(canvas.toDataURL());
  document.querySelector("input[value=orthographic]").click(); states.push(canvas.toDataURL());
  const width = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.title = JSON.stringify({ different: new Set(states).size, errors, width, size: canvas.width });
});
</script>
"""


def test_crystals_turn_in_a_browser(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    path = tmp_path / "page.html"
    path.write_text(page.replace("<body>", "<body>" + PROBE))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stderr
    found = json.loads(title[1].replace("&quot;", '"'))
    assert (found["different"], found["errors"], found["width"]) == (5, [], 0)
    assert found["size"] > 100


def test_links_hold_the_crystals(evaluated, textbook, tmp_path):
    from pymatgen.core import Structure

    page = render([read_run(evaluated(tmp_path / "run"))])
    links = [attributes for tag, attributes in Reader(page).elements if tag == "a" and "download" in attributes]
    by_name = {a["download"]: base64.b64decode(str(a["href"]).split(",")[1]).decode() for a in links}
    assert len(by_name) == 12 + 2
    cif = by_name["NaI_2.cif"]
    assert "_atom_site_bader_charge" in cif
    found = Structure.from_str(cif, fmt="cif")
    assert found.composition == textbook[2].composition
    assert found.volume == pytest.approx(textbook[2].volume, rel=1e-5)


def test_the_package_holds_the_page_s_parts():
    from importlib.resources import files

    names = {Path(str(item)).name for item in files("mattergen_e.report").iterdir()}
    assert {"templates", "style.css", "viewer.js"} <= names
    assert (files("mattergen_e.report") / "templates" / "page.html.j2").is_file()


def test_a_section_of_another_packages_descriptor(evaluated, textbook, tmp_path: Path) -> None:
    """A vector of sites, known by what the evaluation says alone: section, table, parity figure."""
    from mattergen_e.descriptors.base import Descriptor
    from mattergen_e.evaluation.descriptors import Compared

    measure = Descriptor(name="moment", dim=3, unit="mu_B", label="magnetic moment").measure()
    number = np.asarray(textbook[0].atomic_numbers)
    none = np.zeros(len(number), dtype=int)
    values = np.arange(3.0 * len(number)).reshape(-1, 3)
    off = np.full(len(number), 0.25)
    moment = Compared(measure, "site", none, np.arange(len(number)), number, off, values, values + 0.25, {}, "DFT")
    run = evaluated(tmp_path / "run", sites=False, descriptors={"moment": moment.summary()})
    np.savez(run / "evaluation" / "descriptor_sites.npz", **moment.arrays())
    page = render([read_run(run)])
    section = page.partition('<section id="moment"')[2].partition("</section>")[0]
    assert "Magnetic moment" in section and "MAE (mu_B)" in section and "0.250" in section
    assert "generated Magnetic moment (mu_B)" in section and "<svg" in section
